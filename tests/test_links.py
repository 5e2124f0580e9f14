"Internal links lead somewhere; the sidebar lists every page, and none that is missing."
import re
from pathlib import Path
import pytest, yaml
from execnb.nbio import read_nb

root = Path(__file__).parents[1]
pages = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.parts))
texts = [*pages, *(root/o for o in ('README.md','CONTRIBUTING.md','CHANGELOG.md','llms.txt','bench/RECORDS.md'))]

@pytest.mark.parametrize('path', texts, ids=lambda o: str(o.relative_to(root)))
def test_links(path):
    text = path.read_text() if path.suffix!='.ipynb' else '\n'.join(c.source for c in read_nb(path).cells if c.cell_type=='markdown')
    text = re.sub(r'```.*?```|`[^`]*`', '', text, flags=re.S)
    targets = [o for o in re.findall(r'\]\(([^)\s]+)\)', text) if not re.match(r'https?:|mailto:|#', o)]
    missing = [o for o in targets if not (path.parent/o.split('#')[0]).exists()]
    assert not missing
    anchors = [o.split('#') for o in targets if re.search('#(eq|fig)-', o)]
    assert not [o for o in anchors if o[1] not in labels(path.parent/o[0])]

def labels(path):
    "The equations and figures that a page names"
    text = '\n'.join(c.source for c in read_nb(path).cells)
    return set(re.findall(r'\{#(eq-[\w-]+)\}', text)) | set(re.findall(r'label: (fig-[\w-]+)', text))

@pytest.mark.parametrize('path', pages, ids=lambda o: str(o.relative_to(root)))
def test_references_stay_on_their_page(path):
    "Quarto resolves @eq-… and @fig-… within a page only: to another page leads a link"
    asked = set(re.findall(r'@((?:eq|fig)-[\w-]+)', '\n'.join(c.source for c in read_nb(path).cells)))
    assert asked <= labels(path)

def test_sidebar():
    def listed(o): return [o] if isinstance(o, str) else [p for x in o['contents'] for p in listed(x)]
    bar = [p for o in yaml.safe_load((root/'nbs'/'sidebar.yml').read_text())['website']['sidebar']['contents'] for p in listed(o)]
    assert sorted(bar)==sorted(str(p.relative_to(root/'nbs')) for p in pages)

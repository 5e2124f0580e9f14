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

def test_sidebar():
    def listed(o): return [o] if isinstance(o, str) else [p for x in o['contents'] for p in listed(x)]
    bar = [p for o in yaml.safe_load((root/'nbs'/'sidebar.yml').read_text())['website']['sidebar']['contents'] for p in listed(o)]
    assert sorted(bar)==sorted(str(p.relative_to(root/'nbs')) for p in pages)

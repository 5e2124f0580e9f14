"""Make README.md, and the picture it shows, from nbs/index.ipynb.

That page is the site's landing page, too: text that begins with `<!-- site -->` is only there, text that begins with `<!-- readme -->` and code with `#| readme` only here."""
import base64, re
from pathlib import Path
from execnb.nbio import read_nb

root, parts = Path(__file__).parents[1], []
picture = Path('nbs/images/three_panel.png')
for c in read_nb(root/'nbs/index.ipynb').cells:
    if c.source.startswith('<!-- site -->'): continue
    if c.cell_type=='markdown': parts.append(re.sub(r'\]\(([\w/]+\.ipynb\))', r'](nbs/\1', c.source.removeprefix('<!-- readme -->').lstrip('\n')).replace('](../', ']('))
    if c.cell_type!='code' or '#| hide' in c.source: continue
    alt = re.search(r'fig-alt: "(.*)"', c.source)
    for data in (o.get('data', {}) for o in c.outputs):
        if 'text/markdown' in data: parts.append(''.join(data['text/markdown']))
        elif 'image/png' in data:
            (root/picture).parent.mkdir(exist_ok=True)
            (root/picture).write_bytes(base64.b64decode(''.join(data['image/png'])))
            parts.append(f'![{alt[1]}]({picture.as_posix()})')
(root/'README.md').write_text('<!-- made from nbs/index.ipynb by tools/readme.py: edit that -->\n\n' + '\n\n'.join(parts) + '\n', encoding='utf-8')

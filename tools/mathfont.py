"""Make nbs/fonts/pertnb-math.woff2: Latin Modern Math, cut to the glyphs of the site's equations. Run it again when an equation has a new sign.

`apt-get install fonts-lmodern; pip install fonttools brotli; python tools/docscheck.py; python tools/mathfont.py`. The licence, beside the font, allows changed copies under another name: the file's name table says `pertnb Math`."""
import re
from pathlib import Path
from fontTools import subset
from fontTools.ttLib import TTFont

root = Path(__file__).resolve().parents[1]
source = '/usr/share/texmf/fonts/opentype/public/lm-math/latinmodern-math.otf'
italic = {**{chr(97+i): chr(0x1D44E+i) for i in range(26)}, **{chr(65+i): chr(0x1D434+i) for i in range(26)}, 'h': 'ℎ',
          **{chr(0x3B1+i): chr(0x1D6FC+i) for i in range(25)}, **{chr(0x391+i): chr(0x1D6E2+i) for i in range(25)}} # a single letter is set in italics

def signs():
    "All characters of the site's equations, as written and as set, and what any equation may need"
    found = set(' 0123456789()[]{}|+-=<>,.;:!/\u2212\u2032\u2061\u2062')
    for page in (root/'_site').rglob('*.html'):
        for math in re.findall(r'<math.*?</math>', page.read_text(encoding='utf-8'), re.S):
            found |= set(re.sub(r'<annotation.*?</annotation>|<[^>]+>', '', math, flags=re.S))
    found |= {chr(97+i) for i in range(26)} | {chr(65+i) for i in range(26)}
    return found | {italic[o] for o in found if o in italic}

if __name__=='__main__':
    font, options = TTFont(source), subset.Options()
    options.drop_tables += ['FFTM']
    options.layout_features, options.flavor, options.notdef_outline, options.name_IDs = ['ssty'], 'woff2', True, [0,1,2,4,6,13,14]
    maker = subset.Subsetter(options); maker.populate(unicodes={ord(o) for o in signs()}); maker.subset(font)
    for record in font['name'].names:
        if record.nameID in (1,4,6): record.string = 'pertnb Math' if record.nameID!=6 else 'pertnbMath'
    if 'CFF ' in font: font['CFF '].cff.fontNames = ['pertnbMath']
    out = root/'nbs'/'fonts'/'pertnb-math.woff2'
    subset.save_font(font, out, options)
    print(f'{out.stat().st_size/1e3:.0f} kB, {len(font.getGlyphOrder())} glyphs')

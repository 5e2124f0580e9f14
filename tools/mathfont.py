"""Make nbs/fonts/pertnb-math.woff2: Latin Modern Math, cut to the glyphs of the site's equations. Run it again when an equation has a new sign.

`apt-get install fonts-lmodern; pip install fonttools brotli; python tools/docscheck.py; python tools/mathfont.py`. The licence, beside the font, allows changed copies under another name: the file's name table says `pertnb Math`."""
import html, re
from pathlib import Path

root = Path(__file__).resolve().parents[1]
source = '/usr/share/texmf/fonts/opentype/public/lm-math/latinmodern-math.otf'
italic = {**{chr(97+i): chr(0x1D44E+i) for i in range(26)}, **{chr(65+i): chr(0x1D434+i) for i in range(26)}, 'h': 'ℎ',
          **{chr(0x3B1+i): chr(0x1D6FC+i) for i in range(25)}, **{chr(0x391+i): chr(0x1D6E2+i) for i in range(25)}} # a single letter is set in italics

def signs_of(page):
    "All characters of a page's equations, as written and as they are set"
    found = set()
    for math in re.findall(r'<math.*?</math>', page, re.S):
        found |= set(html.unescape(re.sub(r'<annotation.*?</annotation>|<[^>]+>', '', math, flags=re.S)))
    return found | {italic[o] for o in found if o in italic}

def signs():
    "Those of all pages, and what any equation may need"
    found = set(' 0123456789()[]{}|+-=<>,.;:!/\u2212\u2032\u2061\u2062') | {chr(97+i) for i in range(26)} | {chr(65+i) for i in range(26)} | set(italic.values())
    return found.union(*(signs_of(o.read_text(encoding='utf-8')) for o in (root/'_site').rglob('*.html')))

if __name__=='__main__':
    from fontTools import subset
    from fontTools.ttLib import TTFont
    font, options = TTFont(source), subset.Options()
    for table in font['cmap'].tables:
        if table.isUnicode(): table.cmap[0x203E] = 'macron' # pandoc's bar over a letter, which the font has under another number
    options.drop_tables += ['FFTM']
    options.layout_features, options.flavor, options.notdef_outline, options.name_IDs = ['ssty'], 'woff2', True, [0,1,2,4,6,13,14]
    maker = subset.Subsetter(options); maker.populate(unicodes={ord(o) for o in signs()}); maker.subset(font)
    for record in font['name'].names:
        if record.nameID in (1,4,6): record.string = 'pertnb Math' if record.nameID!=6 else 'pertnbMath'
    if 'CFF ' in font: font['CFF '].cff.fontNames = ['pertnbMath']
    out = root/'nbs'/'fonts'/'pertnb-math.woff2'
    subset.save_font(font, out, options)
    have = set(map(chr, font.getBestCmap()))
    out.with_suffix('.txt').write_text(''.join(sorted(have)), encoding='utf-8') # what tests/test_site.py compares with
    print(f'{out.stat().st_size/1e3:.0f} kB, {len(font.getGlyphOrder())} glyphs')

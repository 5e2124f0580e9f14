"""Search finds definitions at their entries: Quarto's own index holds pages and their chapters only.

Quarto runs this after it has made the site (`post-render` in _quarto.yml)."""
import html, json, os, re
from pathlib import Path

entry = re.compile(r'''(?:<section\ id="([^"]+)"[^>]*>\s*)? <h[2-4](?:\s+id="([^"]+)")?[^>]*> ((?:(?!</h).)*) </h[2-4]>\s*
    <p>\s*<a\s(?:(?!</p).)*class="source-link".*?</p> (.*?) (?=<section|</section|</main|<h[1-4])''', re.S|re.X)
def plain(text): return ' '.join(html.unescape(re.sub('<[^>]+>', '', text)).split())

def definitions(page, name, like):
    "Entries for the index, one a definition of a page; `like` is an entry of the same page"
    for section,heading,title,below in entry.findall(page):
        place = section or heading
        yield dict(objectID=f'{name}#{place}', href=f'{name}#{place}', title=like['title'], section=plain(title), text=plain(below)[:400], crumbs=like.get('crumbs', []))

def main(site):
    index = site/'search.json'
    have = json.loads(index.read_text(encoding='utf-8'))
    pages, known = {o['href'].split('#')[0]: o for o in reversed(have)}, {o['href'] for o in have}
    new = [o for name,like in pages.items() for o in definitions((site/name).read_text(encoding='utf-8'), name, like) if o['href'] not in known]
    index.write_text(json.dumps(new+have, ensure_ascii=False), encoding='utf-8')

if __name__=='__main__': main(Path(os.environ['QUARTO_PROJECT_OUTPUT_DIR']))

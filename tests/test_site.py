"The site, made without Quarto (nbdev's processing, then pandoc) and looked at in Chromium: one render for all tests."
import ast, base64, html, io, json, os, re, sys, time
from configparser import ConfigParser
from pathlib import Path
import pytest, yaml
from matplotlib.image import imread
from test_report import Page, needs_browser

root = Path(__file__).parents[1]
sys.path.insert(0, str(root/'tools'))

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of pages"
    import docscheck
    folder = tmp_path_factory.mktemp('site')
    docscheck.render(folder)
    return folder

@pytest.fixture(scope='module')
def pages(site): return {str(o.relative_to(site)): re.sub(r'base64,[A-Za-z0-9+/=\s]{99,}', 'base64,', o.read_text(encoding='utf-8')) for o in sorted(site.rglob('*.html')) if str(o.relative_to(site)) not in ('scroll.html','example/report.html')}

@pytest.fixture(scope='module')
def browser(site):
    with Page((site/'index.html').as_uri()) as page: yield page

def show(browser, url, width, dark=False):
    browser('Emulation.setDeviceMetricsOverride', width=width, height=900, deviceScaleFactor=1, mobile=width<500)
    browser('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
    browser.js('window.old = true')
    browser('Page.navigate', url=url)
    while browser.js('window.old') or browser.js('document.readyState')!='complete': time.sleep(.005)

def ids(text): return set(re.findall(r'\bid="([^"]+)"', text))
def told(text): return html.unescape(re.sub('<[^>]+>', '', text))
def code_cells(text): return re.findall(r'(<details[^>]*>.*?</summary>\s*)?<div class="sourceCode[^"]*"[^>]*><pre[^>]*><code[^>]*>(.*?)</code>', text, re.S)
def entries(text):
    "Definitions of a page, in order: name, and what stands below until the next heading"
    parts = re.split(r'<h[23][^>]*>(.*?)</h[23]>', text, flags=re.S)
    return [(told(name), below) for name,below in zip(parts[1::2], parts[2::2]) if 'class="source-link"' in below[:600]]

def test_definitions_come_in_the_order_of_the_source_and_once(pages):
    "Points 1 and 3: heading, then the definition; what is shown open is shown once"
    n = folded = 0
    for name,text in pages.items():
        found = entries(text)
        places = [re.search(r'/(\w+)\.py#L(\d+)"', below).groups() for _,below in found]
        own = [int(line) for module,line in places if f'{module}.html'==name]
        assert own==sorted(own), f'{name}: {[o for o,_ in found]}'
        for what,below in found:
            own = re.compile(rf'^\s*(async def|def|class) {re.escape(what.split(".")[-1])}\b', re.M)
            cells = [(bool(closed), told(code)) for closed,code in code_cells(below)]
            seen = [closed for closed,code in cells if own.search(code)]
            assert seen.count(False)==1, f'{name}: {what} is shown {seen.count(False)} times'
            n += 1; folded += seen.count(True)
        assert '<details class="code-fold" open' not in text and 'Exported source' not in text
        assert not [code for _,code in code_cells(text) if re.search(r'^#\| ?(label|fig-)', told(code), re.M)], f'{name}: options stand at the top of a cell'
    assert n>300 and folded>30

def test_signatures_are_as_written(pages):
    "Point 2"
    for name,text in pages.items():
        for bad in (':NoneType=', 'function=&lt;lambda&gt;', '&lt;lambda&gt;', 'Call self as a function'): assert bad not in text, (name, bad)
        links = [o for o in re.findall(r'<code[^>]*>(.*?)</code>', text, re.S) if re.search(r'\]\(https?:', told(o))]
        assert not links, (name, links[:1])

def test_links_lead_somewhere_and_only_where_they_should(pages, site):
    "Point 9: every link within the site has its page and its place; words of the command and names of files are no links to functions"
    places = {name: ids(text) for name,text in pages.items()}
    for name,text in pages.items():
        for href in set(re.findall(r'<a\s[^>]*?href="([^"]+)"', text)):
            if re.match(r'https?:|mailto:', href): assert 'example.github.io' not in href, (name, href); continue
            file, _, place = href.partition('#')
            to = (site/name).parent/file if file else site/name
            assert to.exists(), (name, href)
            if place: assert html.unescape(place) in places[os.path.relpath(to, site)], (name, href)
        assert '.ipynb"' not in re.sub(r'https?://[^"]+', '', text), name
        if name!='api.html':
            words = {told(o) for o in re.findall(r'<a\s[^>]*><code>(.*?)</code></a>', text)}
            assert not words & {'score','demo','run','show','predict','inspect','new','mode'}, name
            assert not [o for o in words if re.search(r'\.(h5ad|html|csv|json|png|svg)$', o)], name

def test_figures_have_texts_and_nothing_is_from_elsewhere(pages, site):
    "Point 7"
    n = 0
    for name,text in pages.items():
        for image in re.findall('<img[^>]*>', text):
            n += 1; assert len(re.search('alt="([^"]*)"', image)[1])>=20, (name, image[:200])
        assert not re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//|@import', text, re.I), name
        assert not re.search(r'jquery|require(?:\.min)?\.js|cdnjs|googleapis', text, re.I), name
    assert n>=25
    for page in (root/'_proc').rglob('*.ipynb'): assert not [o for c in json.loads(page.read_text())['cells'] for o in c.get('outputs', []) if 'text/html' in o.get('data', {})], page # Quarto's reason to bring jQuery
    for o in ('theme.scss','dark.scss'): assert '$web-font-path: false' in (root/'nbs'/o).read_text()
    assert not re.search(r'url\(\s*["\']?https?:', (site/'styles.css').read_text())

def test_names(pages):
    "Point 8: one name a page; help has headings"
    titles = [told(re.search('<title>(.*?)</title>', o, re.S)[1]) for o in pages.values()]
    assert len(set(titles))==len(titles)
    assert not set(titles) & {'The speedrun','A speedrun of your own','The spine','What pays','Larger','Questions','Which remedy when'}
    for name in ('help/faq','help/remedies','hub','tutorials/judge'): assert len(re.findall(r'<h2', pages[f'{name}.html']))>=2, name

benchmarks = [f'evidence/{o}.html' for o in ('ablation','speed','studies','unseen')] + ['help/compare.html']

def test_benchmarks_open_with_results(pages):
    "Point 8: what was found, then a table; code folded, the best in bold, no NaN"
    for name in benchmarks:
        main = pages[name].split('</header>')[-1]
        assert 'In short:' in told(main)[:300], name
        assert all(closed for closed,code in code_cells(main) if 'import' in code or 'pd.' in told(code)), name
        assert '<strong>' in ''.join(re.findall('<table.*?</table>', main, re.S)), name
    for name,text in pages.items():
        assert not [o for o in re.findall(r'<td[^>]*>(.*?)</td>', text, re.S) if told(o).strip() in ('NaN','nan','None')], name

def test_api_lists_every_public_name(pages):
    "Point 10"
    rows = re.findall(r'<td[^>]*><a\s+href="([^"]+)"><code>(.*?)</code></a></td>\s*<td[^>]*>(.*?)</td>', pages['api.html'], re.S)
    listed = {(href.split('.html')[0], name.split('.')[-1]): (href, told(what)) for href,name,what in rows}
    public = set()
    for file in (root/'pertnb').glob('[!_]*.py'):
        tree = ast.parse(file.read_text()).body
        offered = next(ast.literal_eval(o.value) for o in tree if isinstance(o, ast.Assign) and ast.unparse(o.targets[0])=='__all__')
        public |= {(file.stem, o.name) for o in tree if isinstance(o, (ast.FunctionDef, ast.ClassDef)) and not o.name.startswith('_') and (o.name in offered or any('patch' in ast.unparse(d) for d in o.decorator_list))}
    assert public==set(listed) and len(public)>300
    assert not [o for o,(_,what) in listed.items() if not what]
    own = {(name.removesuffix('.html'), place) for name,text in pages.items() for place in re.findall(r'<h3\s+id="([^"]+)"[^>]*>(?:(?!</h3).)*</h3>\s*<p>\s*<a[^>]*class="source-link"', text, re.S)}
    for k,(href,_) in listed.items():
        if '#' in href: assert (href.split('.html')[0], href.split('#')[1].lower()) in own, (k, href) # not at a chapter of that name
    assert listed['generation','generate'][0]=='generation.html#generate' and 'generate' in [o for o,_ in entries(pages['generation.html'])]

def test_search_finds_definitions(pages):
    "Point 10: what is added to Quarto's index of pages and chapters, which Quarto runs after the site is made"
    from searchentries import definitions
    found = {(o['section'], o['href']): o['text'] for name,text in pages.items() for o in definitions(text, name, dict(title=name))}
    assert len(found)==sum(len(entries(o)) for o in pages.values())>300
    assert found['generate','generation.html#generate'].startswith('@renamed') and 'Control cells:' in found['generate','generation.html#generate']
    assert (root/'_proc'/yaml.safe_load((root/'_quarto.yml').read_text())['project']['post-render']).exists()

def test_landing_page(pages, site):
    "Point 11"
    text = pages['index.html']
    assert 'Predict the' in told(text) and len(re.findall('<img', text))==1 and '<table' not in text
    assert len(told(code_cells(text)[0][1]).strip().split('\n'))==3
    cards = re.search(r'<div class="cards">(.*?)</main>', text, re.S)[1]
    assert [told(o) for o in re.findall(r'<a[^>]*>(.*?)</a>', cards, re.S)][:4]==['Try it','Your data','Read the book','Benchmarks']
    assert 'href="example/report.html"' in text and '<html' in (site/'example'/'report.html').read_text()[:200] and (site/'example'/'report.html').stat().st_size<1e6

def test_placeholders_are_one_setting():
    "Point 12: the account that holds the repository is said once, with a sentence that says what to set"
    raw, cfg = (root/'settings.ini').read_text(), ConfigParser(delimiters=['='])
    cfg.read_string(raw)
    assert re.search(r'# .*set `user`.*\nuser = ', raw) and len(re.findall(r'\bexample\b(?!\.org)', raw))==1
    assert cfg['DEFAULT']['user'] in cfg['DEFAULT']['git_url'] and cfg['DEFAULT']['user'] in cfg['DEFAULT']['doc_host']
    said = yaml.safe_load((root/'_quarto.yml').read_text())
    assert said['website']['repo-subdir']=='nbs' and (root/'nbs'/said['image'].lstrip('/')).exists() and said['image'][0]=='/' # links to sources; one picture of links, from every folder
    assert not re.search('example', (root/'_quarto.yml').read_text().replace('[fonts, example]', ''))

def test_signs_of_equations_are_in_the_font(pages):
    "Point 5: `python tools/mathfont.py` where this fails"
    have = set((root/'nbs'/'fonts'/'pertnb-math.txt').read_text(encoding='utf-8'))
    from mathfont import signs_of
    missing = {name: sorted(signs_of(text)-have-{'\n'}) for name,text in pages.items()}
    assert not {k: v for k,v in missing.items() if v}
    assert (root/'nbs'/'fonts'/'GUST-FONT-LICENSE.txt').exists()

@needs_browser
def test_pages_fit_a_phone(pages, site, browser):
    "Point 6: nothing but what scrolls by itself is wider than 390 px"
    wide = {}
    for name in pages:
        show(browser, (site/name).as_uri(), 390)
        if (w := browser.js('document.documentElement.scrollWidth'))>390: wide[name] = w
    assert not wide

@needs_browser
def test_lines_keep_their_indentation_and_nothing_is_cut_off(pages, site, browser):
    "Point 4, on the pages with the widest lines: code is not wrapped, and what is wider than its frame scrolls; numbers stand at the right"
    for name in ('board.html','generation.html','tables.html','cli.html','help/compare.html'):
        show(browser, (site/name).as_uri(), 1440)
        bad = browser.js("""JSON.stringify([...document.querySelectorAll('main pre, .table-scroll')].filter(o => {
            const s = getComputedStyle(o);
            return (o.tagName=='PRE' && getComputedStyle(o.firstElementChild || o).whiteSpace!='pre') || (o.scrollWidth>o.clientWidth+1 && !['auto','scroll'].includes(s.overflowX));
            }).map(o => o.textContent.slice(0, 80)))""")
        assert bad=='[]', (name, bad)
        assert browser.js("[...document.querySelectorAll('td.num')].every(o => getComputedStyle(o).textAlign=='right')"), name
        assert browser.js("[...document.querySelectorAll('main pre, .table-scroll')].every(o => o.scrollWidth<=o.clientWidth+1 || o.tabIndex==0)"), f'{name}: not by keyboard'
    assert browser.js("document.querySelectorAll('td.num').length")>50

@needs_browser
def test_equations_are_legible(site, browser):
    "Point 5: the font is there, and the braces of the ELBO's first equation are as wide as what they embrace"
    show(browser, (site/'elbo.html').as_uri(), 1440)
    for _ in range(200):
        if browser.js("[...document.fonts].some(o => o.family.includes('pertnb Math') && o.status=='loaded')"): break
        time.sleep(.01)
    else: raise AssertionError('the font was not loaded')
    found = json.loads(browser.js("""JSON.stringify([...document.querySelectorAll('munder')].filter(o => o.children[1].textContent=='⏟').map(o => o.children[0].getBoundingClientRect()).map(o => [o.left, o.bottom+scrollY, o.width]))"""))
    assert len(found)>=2
    for x,y,width in found: # the element says its size before stretching: so look at the ink
        shot = browser('Page.captureScreenshot', clip=dict(x=x, y=y, width=width, height=10, scale=1), captureBeyondViewport=True)['data']
        ink = imread(io.BytesIO(base64.b64decode(shot)))[:,:,:3].min((0,2))<.6
        assert ink.mean()>.8, f'{ink.mean():.2f} of its width'

@needs_browser
def test_by_night(site, browser):
    "Point 7: figures keep their colours, which captions name, on a white card, and tables are as bright as the text"
    show(browser, (site/'evidence/ablation.html').as_uri(), 1440, dark=True)
    assert browser.js("document.body.className")=='quarto-dark'
    assert browser.js("[...document.querySelectorAll('main img')].every(o => getComputedStyle(o).backgroundColor=='rgb(255, 255, 255)' && getComputedStyle(o).filter.includes('brightness'))")
    assert browser.js("[...document.querySelectorAll('main td.num')].every(o => getComputedStyle(o).color==getComputedStyle(document.body).color || o.querySelector('strong'))")

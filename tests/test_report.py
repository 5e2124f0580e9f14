"The one-page report, opened in a real browser: a gene is picked and the picture is read."
import base64, itertools, json, os, re, shutil, subprocess, tempfile
from html import unescape
from types import SimpleNamespace
import pandas as pd
import pytest
from click.testing import CliRunner
from pertnb import protocols
from pertnb.cli import main
from pertnb.report import brief

browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
needs_browser = pytest.mark.skipif(browser is None, reason='no Chromium here (apt install chromium)')

@pytest.fixture(scope='module')
def run(saved_run): return saved_run[0], saved_run[1]/'report.html'

def contrast(a, b):
    def luminance(c):
        v = [int(c[i:i+2], 16)/255 for i in (1,3,5)]
        return sum(w*(o/12.92 if o<=.03928 else ((o+.055)/1.055)**2.4) for w,o in zip((.2126,.7152,.0722), v))
    x, y = sorted((luminance(a), luminance(b)))
    return (y+.05)/(x+.05)

def test_it_is_whole_and_accessible(run):
    page = run[1].read_text()
    assert not re.search(r'(?:src|href)="(?!data:)|url\(|@import|fetch\(', page) # nothing from elsewhere
    images = re.findall('<img[^>]*>', page)
    assert len(images)==3 and all(re.search('alt="[^"]{20,}"', o) for o in images)
    assert '<html lang="en">' in page and 'name="viewport"' in page and '@media print' in page and '<label for="gene">' in page
    schemes = [dict(re.findall('--(\\w+):(#[0-9a-f]{6})', o)) for o in re.findall(':root{([^}]*)}', page)]
    assert len(schemes)==2 # light and dark
    for c in schemes:
        assert all(contrast(c[k], c['paper'])>=3 for k in ('real','predicted','control')) and contrast(c['ink'], c['panel'])>=7
        assert all(contrast(c[k], c['paper'])>=4.5 for k in ('ink','faint','beyond'))
    assert not re.search('[^-]color:#', page) # all colours are of a scheme
    assert len(page)<6e5
    assert page.index('class="lead"')<page.index('<h2>Figure')<page.index('<h2>Genes')<page.index('<h2>Scoreboard')<page.index('<summary>')
    said = unescape(page)
    for word in ('Mode C · count transfer is', 'Of the way from the null', 'intervals of mode C', 'pertnb run demo', '--seed 0', 'torch '): assert word in said, word

class Page:
    "A page open in the browser, by the DevTools protocol over two pipes"
    def __init__(self, url):
        (theirs, self.to), (self.of, back) = os.pipe(), os.pipe()
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True) # the browser is killed, and would leave its own behind
        args = [browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={self.profile.name}', '--remote-debugging-pipe', 'about:blank']
        self.process = subprocess.Popen(['bash', '-c', f'exec "$@" 3<&{theirs} 4>&{back}', '-', *args], pass_fds=(theirs, back), stderr=subprocess.DEVNULL, env=os.environ | dict(TMPDIR=self.profile.name))
        os.close(theirs); os.close(back)
        self.ids, self.rest, self.session = itertools.count(1), b'', None
        target = self('Target.createTarget', url='about:blank')['targetId']
        self.session = self('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        self('Page.enable'); self('Page.navigate', url=url)
        while not self.js("document.readyState=='complete' && location.href!='about:blank'"): pass
    def __call__(self, method, **params):
        i = next(self.ids)
        os.write(self.to, json.dumps(dict(id=i, method=method, params=params) | (dict(sessionId=self.session) if self.session else {})).encode()+b'\0')
        while True:
            while b'\0' not in self.rest:
                got = os.read(self.of, 2**16); assert got, 'the browser is gone'
                self.rest += got
            said, self.rest = self.rest.split(b'\0', 1)
            if (said := json.loads(said)).get('id')==i: assert 'error' not in said, said; return said['result']
    def js(self, code): return self('Runtime.evaluate', expression=code)['result'].get('value')
    def key(self, name, code):
        for o in ('rawKeyDown','keyUp'): self('Input.dispatchKeyEvent', type=o, key=name, code=name, windowsVirtualKeyCode=code)
    def __enter__(self): return self
    def __exit__(self, *_): self.process.kill(); self.process.wait(); os.close(self.to); os.close(self.of); self.profile.cleanup()

@needs_browser
def test_a_gene_is_picked_in_a_browser(run):
    result, page = run
    gene = result.shifts.real.abs().nlargest(5).index[3]
    with Page(page.as_uri()) as shown:
        at_rest = shown.js('document.documentElement.outerHTML')
        shown.js(f"pick.value = {gene!r}; pick.dispatchEvent(new Event('change'))")
        picked = shown.js('document.documentElement.outerHTML')
    told = lambda dom: re.search('<p id="said"[^>]*>(.*?)</p>', dom)[1]
    drawn = lambda dom: re.findall('data-series="(\\w+)"[^>]*points="([^"]+)"', dom)
    assert told(at_rest).startswith(result.shifts.real.abs().idxmax()+':') and told(picked).startswith(gene+':')
    assert [k for k,_ in drawn(picked)]==['real','predicted','control'] and drawn(picked)!=drawn(at_rest)
    pert = (result.real.obs.condition=='IFNB').to_numpy()
    x = result.real[pert, gene].X.toarray().ravel()
    assert abs(float(re.search('([0-9.]+) in real', told(picked))[1])-x.mean())<.006
    points = [tuple(map(float, o.split(','))) for o in dict(drawn(picked))['real'].split()]
    top = max(((250-y)/220)**2 for k,p in drawn(picked) for y in [float(o.split(',')[1]) for o in p.split()])
    assert abs(top-1)<1e-3 and len(points)==40 # the highest bin of the three fills the picture; 20 bins, two ends each

@needs_browser
def test_by_keyboard_alone(run):
    "Tab reaches every region, with a mark to see; an arrow key picks the next gene"
    genes = list(run[0].shifts.real.abs().nlargest(2).index)
    with Page(run[1].as_uri()) as page:
        reached = []
        for _ in range(12):
            page.key('Tab', 9)
            reached.append(page.js("document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.tagName"))
            if reached[-1]=='gene': break
        assert reached==['Figure','find','Genes','gene']
        assert page.js("getComputedStyle(document.activeElement).outlineStyle")=='solid'
        assert page.js("document.getElementById('said').textContent").startswith(genes[0]+':')
        page.key('ArrowDown', 40)
        assert page.js("document.getElementById('said').textContent").startswith(genes[1]+':')
        page.key('Tab', 9); assert page.js("document.activeElement.getAttribute('aria-label')")=='Scoreboard'
        page.key('Tab', 9); assert page.js("document.getElementById('metric').textContent").startswith('r ↑: correlation of predicted and real')
        for _ in range(30):
            page.key('Tab', 9)
            if page.js('document.activeElement.tagName')=='SUMMARY': break
        assert page.js('document.activeElement.tagName')=='SUMMARY'
        assert not page.js("document.querySelector('details').open")
        page('Input.dispatchKeyEvent', type='keyDown', key='Enter', code='Enter', windowsVirtualKeyCode=13, text='\r'); page('Input.dispatchKeyEvent', type='keyUp', key='Enter', code='Enter', windowsVirtualKeyCode=13)
        assert page.js("document.querySelector('details').open")

@needs_browser
def test_genes_are_searched_and_metrics_explained(run):
    shifts = run[0].shifts
    gene = shifts.real.abs().idxmin() # far below those shown at first
    with Page(run[1].as_uri()) as page:
        names = lambda: page.js("[...document.querySelectorAll('#shifts tbody th')].map(o => o.textContent).join('|')").split('|')
        assert names()==list(shifts.real.abs().nlargest(20).index)
        page.js(f"find.value = {gene.lower()!r}; find.dispatchEvent(new Event('input'))")
        row = page.js(f"[...document.querySelectorAll('#shifts tbody tr')].find(o => o.cells[0].textContent=={gene!r}).innerText").split('\t')
        assert abs(float(row[1])-shifts.real[gene])<.006 and abs(float(row[2])-shifts['shift'][gene])<.006
        assert row[4].strip()==('inside' if shifts.low[gene]-5e-4<=shifts.real[gene]<=shifts.high[gene]+5e-4 else 'outside')
        page.js("find.value = 'no such gene'; find.dispatchEvent(new Event('input'))")
        assert page.js("document.getElementById('shown').textContent")=='0 of 0 shown'
        page.js("[...document.querySelectorAll('.metric')].find(o => o.textContent.startsWith('E ')).click()") # as a tap does
        assert 'energy distance' in page.js("document.getElementById('metric').textContent")

@needs_browser
def test_in_the_dark(run):
    with Page(run[1].as_uri()) as page:
        colour = lambda: page.js('getComputedStyle(document.body).backgroundColor')
        assert colour()=='rgb(255, 255, 255)'
        page('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark')])
        assert colour()=='rgb(20, 23, 26)' and page.js("getComputedStyle(document.querySelector('[data-series=real]')).stroke")=='rgb(255, 255, 255)'

@needs_browser
def test_on_a_phone_and_on_paper(run):
    with Page(run[1].as_uri()) as page:
        page('Emulation.setDeviceMetricsOverride', width=390, height=844, deviceScaleFactor=2, mobile=True)
        assert page.js('document.documentElement.scrollWidth')<=390                             # the page does not move sideways ...
        assert page.js("document.querySelector('.scroll img').getBoundingClientRect().width")>=600 # ... figures do, in their frames, and are large enough to read
        page('Emulation.clearDeviceMetricsOverride')
        pdf = base64.b64decode(page('Page.printToPDF')['data'])
        assert pdf[:5]==b'%PDF-' and 2<=len(re.findall(rb'/Type\s*/Page\b', pdf))<=8
        page('Emulation.setEmulatedMedia', media='print')
        assert page.js("getComputedStyle(document.getElementById('gene')).display")=='none' and page.js("document.querySelector('.scroll img').getBoundingClientRect().width<=document.body.clientWidth")

# --- in a terminal: the verdict and at most twelve lines, the last of which says where all is written ---

def check_lines(said, verdict, width):
    top, below = said.split('\n\n', 1)
    assert ' '.join(top.split())==verdict
    assert 3<=len(below.splitlines())<=10 and max(map(len, said.splitlines()))<=width # with the empty line above and where it was written: twelve
    assert '\x1b' not in said
    return below

@pytest.mark.parametrize('width', [60, 80])
def test_thirty_targets_in_a_terminal(run, width):
    names = [f'perturbation number {i}' for i in range(30)]
    targets = pd.DataFrame(dict(cells=1000, effect=2.5, verdict='not told apart', B_r=.5, C_r=.5, rule_r=.5, B_E=12.25, C_E=12.25), index=names)
    sentences = dict(run[0].sentences, verdict='Better for 30. '*9+'End.', next_step=f'Look at {", ".join(names)}.', carried='')
    many = SimpleNamespace(targets=targets, sentences=sentences, scoreboard=run[0].scoreboard, settings=dict(question=f'Predicting {", ".join(names)} for 240 cells.', notes=['few cells']*5))
    below = check_lines(brief(many, width), sentences['verdict'], width)
    assert '26 more in targets.csv' in below and 'Predicting perturbation number 0' in below and below.endswith('… more: --verbose') and 'number 29' not in below

@pytest.mark.parametrize('width', [60, 80])
def test_a_question_of_many_words_in_a_terminal(run, width):
    one = SimpleNamespace(targets=None, sentences=run[0].sentences, scoreboard=run[0].scoreboard, settings=dict(question='Predicting IFNB for cells, '+'and more cells, '*99))
    below = check_lines(brief(one, width), one.sentences['verdict'], width)
    assert 'ceiling' in below and 'mode C' in below and ' …' in below

@pytest.mark.parametrize('width', [60, 80])
def test_nine_folds_in_a_terminal(run, width, tmp_path, monkeypatch):
    "The command's own words; the whole board with --verbose only"
    board = run[0].scoreboard
    boards = pd.concat([board.assign(fold=f'a_cell_type_with_a_long_name_{i}', value=board.value-.01*i*(board.metric=='r')) for i in range(9)])
    (tmp_path/'out').mkdir(); boards.to_csv(tmp_path/'out'/'scoreboards.csv', index=False)
    monkeypatch.setattr(protocols, 'run_protocol', lambda *_, **kw: protocols.summary(boards))
    monkeypatch.setenv('COLUMNS', str(width)); monkeypatch.chdir(tmp_path)
    command = lambda *args: CliRunner().invoke(main, ['run', 'demo', '--holdout', 'each', '--out', 'out', *args]).output
    said = command()
    assert said.endswith('\nWritten to out: begin with report.html.\n')
    below = check_lines(said.rsplit('\nWritten', 1)[0], protocols.folds_verdict(boards), width)
    assert 'of 9 folds' in said and below.startswith('Mean over 9 folds') and 'ceiling' in below and 'zeros off' not in said
    assert 'long_name_8' in below # r is lowest there
    whole = command('--verbose')
    assert 'zeros off' in whole and 'mean shift, pooled' in whole and len(whole.splitlines())>25

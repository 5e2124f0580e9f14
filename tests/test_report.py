"The one-page report, opened in a real browser: a gene is picked and the picture is read."
import re, shutil, subprocess
from html import unescape
import pytest
from pertnb.speedrun import speedrun

browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')/'out'
    result = speedrun('demo', target='IFNB', epochs=2, n_genes=200, embedding='pca', progress=False)
    result.save(folder)
    return result, folder/'report.html'

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
    colours = re.findall(r"'(#[0-9a-f]{6})'", page)
    assert len(colours)==3 and all(contrast(c, '#ffffff')>=3 for c in colours) and contrast('#1a1a1a', '#f2f7fb')>=7
    assert len(page)<2e6
    said = unescape(page)
    for word in ('Mode C is', 'Of the way from untouched control cells', 'intervals of mode C', 'pertnb run demo', '--seed 0', 'torch '): assert word in said, word

def dump(page, *args):
    return subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=4000', *args, page.as_uri()], capture_output=True, text=True, timeout=120).stdout

@pytest.mark.skipif(browser is None, reason='no Chromium here (apt install chromium)')
def test_a_gene_is_picked_in_a_browser(run, tmp_path):
    result, page = run
    gene = result.shifts.real.abs().nlargest(5).index[3]
    by_hand = page.read_text().replace('</body>', f"<script>pick.value = {gene!r}; pick.dispatchEvent(new Event('change'))</script></body>")
    (tmp_path/'picked.html').write_text(by_hand)
    at_rest, picked = dump(page, '--dump-dom'), dump(tmp_path/'picked.html', '--dump-dom')
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

@pytest.mark.skipif(browser is None, reason='no Chromium here (apt install chromium)')
def test_it_fits_a_phone(run, tmp_path):
    (tmp_path/'wide.html').write_text(run[1].read_text().replace('</body>', "<script>document.title = `${document.documentElement.scrollWidth} of ${window.innerWidth}`</script></body>"))
    wide, there = re.search(r'<title>(\d+) of (\d+)', dump(tmp_path/'wide.html', '--dump-dom', '--window-size=500,900')).groups()
    assert int(wide)<=int(there)<=500

"Folds on the workers of a dask scheduler: one that is killed loses nothing, and what they cannot see is said first."
import filecmp, json, os, signal, subprocess, sys, time
from importlib import import_module
from pathlib import Path
import anndata as ad
import child
import psutil
import pytest
from click.testing import CliRunner
from pertnb.core import InputError
from pertnb.training import TrainingError
from pertnb.datasets import demo
from pertnb import protocols
from pertnb.protocols import run_protocol
from pertnb.cli import main

quick = dict(target='IFNB', condition_key='condition', cell_type_key='cell_type', epochs=1, n_genes=100, embedding='pca', progress=False)

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    a = demo(800)
    del a.varm['true_mean'], a.uns['demo']
    a.write_h5ad(file := tmp_path_factory.mktemp('data')/'my.h5ad')
    return str(file)

def dask(what, folder, *args):
    "`dask scheduler` or `dask worker`"
    os.chdir(folder)
    import_module(f'distributed.cli.dask_{what}').main(['--scheduler-file', str(folder/'where'), '--no-dashboard', *args])

@pytest.fixture
def cluster(tmp_path):
    "The address of a scheduler on loopback, and the processes of its two workers"
    def start(what, *args): return child.begin(dask, what, tmp_path, *args, out=tmp_path/f'{what}.log', err=tmp_path/f'{what}.log')
    running = [start('scheduler', '--host', '127.0.0.1', '--port', '0')]
    until(lambda: (tmp_path/'where').exists())
    running += [start('worker', '--host', '127.0.0.1', '--nthreads', '1', '--no-nanny') for _ in range(2)]
    address = json.loads((tmp_path/'where').read_text())['address']
    from distributed import Client
    with Client(address, set_as_default=False) as client: client.wait_for_workers(2, timeout=60)
    yield address, running[1:]
    for process in running: process.kill(); process.join()

def until(true, seconds=60):
    "Wait until it is true; what it is then"
    end = time.time()+seconds
    while not (res := true()):
        assert time.time()<end, 'waited in vain'
        time.sleep(.05)
    return res

def below(process): return psutil.Process(process.pid).children()

@pytest.fixture(scope='module')
def usual(data, tmp_path_factory):
    "Three folds on this machine, one thread each"
    out = tmp_path_factory.mktemp('usual')/'out'
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0}, raising=False)
    monkeypatch.setattr(protocols, 'start_fold', child.start_fold)
    res = run_protocol(data, out, None, seeds=3, jobs=3, **quick)
    monkeypatch.undo()
    return out, res

def command(data, out, address, *more):
    args = [f'--{k.replace("_", "-")}={v}' for k,v in quick.items() if k!='progress']
    return ['run', data, *args, '--seeds', '3', '--out', str(out), '--cluster', address, *more]

def test_a_killed_worker_loses_nothing(data, usual, cluster, tmp_path):
    address, workers = cluster
    said, wrong = tmp_path/'said', tmp_path/'wrong'
    run = child.begin(child.command, *command(data, tmp_path/'out', address), out=said, err=wrong)
    victim = until(lambda: next((o for o in workers if below(o)), None))
    folds = below(victim)
    os.kill(victim.pid, signal.SIGKILL); victim.join()
    assert folds
    until(lambda: not [o for o in folds if o.is_running() and o.status()!=psutil.STATUS_ZOMBIE], 20) # it ends with its worker
    child.end(run, said, 240)
    assert run.exitcode==0, wrong.read_text()
    assert 'Mean over 3 folds' in said.read_text()
    page = (tmp_path/'out'/'report.html').read_text() # of all folds, and nothing from elsewhere
    for k in range(3): assert f'href="cells-seed{k}/report.html"' in page and (tmp_path/'out'/f'cells-seed{k}'/'report.html').exists()
    assert 'src="data:image/png' in page and not [o for o in ('src="http', 'href="http', '<link', '@import', 'url(') if o in page]
    for name in ('scoreboards.csv', 'summary.csv'): assert filecmp.cmp(usual[0]/name, tmp_path/'out'/name, shallow=False), name
    assert not [o.name for o in (tmp_path/'out').iterdir() if 'seen' in o.name or 'part' in o.name]

def test_nobody_listens(data, tmp_path):
    begun = time.time()
    res = CliRunner().invoke(main, command(data, tmp_path/'out', 'tcp://127.0.0.1:9'))
    assert res.exit_code==1 and "No scheduler of dask answers at 'tcp://127.0.0.1:9'" in res.output and res.output.count('\n')==1, res.output
    assert time.time()-begun<30 and not (tmp_path/'out').exists()
    one = CliRunner().invoke(main, ['run', data, '--cluster', 'tcp://127.0.0.1:9', '--out', str(tmp_path/'one')])
    assert one.exit_code==2 and 'several folds' in one.output

def test_workers_must_see_the_file_and_be_of_our_version(data, cluster, tmp_path, monkeypatch):
    import pertnb, pertnb.protocols as p
    monkeypatch.setattr(pertnb, '__version__', '9.9')
    with pytest.raises(InputError, match='here is 9.9'): run_protocol(data, tmp_path/'out', None, seeds=2, cluster=cluster[0], **quick)
    monkeypatch.undo()
    usual = p._look
    class Elsewhere:
        "A client whose workers do not see the data, or not the folder"
        def __init__(self, **change): self.change = change
        def run(self, f, *args, **kw):
            v, size, mark = f(*args)
            return {'tcp://w': (v, self.change.get('size', size), self.change.get('mark', mark))}
    with pytest.raises(InputError, match='does not see .*my.h5ad'): p._check_workers(Elsewhere(size=None), data, tmp_path)
    with pytest.raises(InputError, match='does not see'): p._check_workers(Elsewhere(mark=False), data, tmp_path)
    p._check_workers(Elsewhere(), data, tmp_path)

def test_a_failing_fold_has_its_last_words_and_the_others_do_not_begin(data, tmp_path, monkeypatch):
    import pertnb.protocols as p
    begun = []
    def failing(folder, *args): begun.append(folder); return 'the disk is full'
    monkeypatch.setattr(p, 'start_fold', failing)
    with pytest.raises(TrainingError, match='cells-seed0 failed: the disk is full'):
        run_protocol(data, tmp_path/'out', None, seeds=5, jobs=1, **quick)
    assert len(begun)<5

def test_nothing_listens_and_nothing_is_left(tmp_path):
    "The cluster by default opens no port, and its folds end with it"
    from pertnb.protocols import _connect
    from distributed import Client
    here = psutil.Process()
    with _connect(None, 2) as client:
        assert not [c for c in here.net_connections() if c.status=='LISTEN']
        assert client.submit(lambda: 2).result()==2

def test_each_perturbation_within_one_context(data, tmp_path, monkeypatch):
    "Its cells there are not learned from; those of the others there are"
    monkeypatch.setattr(protocols, 'start_fold', child.start_fold)
    a = ad.read_h5ad(data); a[a.obs.condition.isin(['control','IFNB','drugA'])].write_h5ad(tmp_path/'two.h5ad')
    args = [f'--{k.replace("_", "-")}={v}' for k,v in quick.items() if k not in ('progress','target')]
    res = CliRunner().invoke(main, ['run', str(tmp_path/'two.h5ad'), *args, '--target', 'each', '--holdout', 'CD14 Mono', '--out', str(tmp_path/'out')])
    assert res.exit_code==0, res.output
    assert {o.name for o in (tmp_path/'out').iterdir() if o.is_dir()}=={'IFNB_in_CD14_Mono', 'drugA_in_CD14_Mono'}
    real = ad.read_h5ad(tmp_path/'out'/'IFNB_in_CD14_Mono'/'real.h5ad').obs
    assert set(real.condition)=={'control','IFNB'} and set(real.cell_type)=={'CD14 Mono'}
    said = json.loads((tmp_path/'out'/'IFNB_in_CD14_Mono'/'run.json').read_text())
    assert said['holdout']=='IFNB in CD14 Mono'
    wrong = CliRunner().invoke(main, ['run', str(tmp_path/'two.h5ad'), *args, '--target', 'each', '--out', str(tmp_path/'no')])
    assert wrong.exit_code==1 and 'name the context' in wrong.output and not (tmp_path/'no').exists()

def test_ctrl_c_ends_the_folds(data, tmp_path):
    code = ('import signal; signal.signal(signal.SIGINT, signal.default_int_handler); ' # a job in the background of a shell would ignore it
            'from pertnb.protocols import run_protocol; '
            f'run_protocol({data!r}, {str(tmp_path/"out")!r}, None, seeds=2, **dict({quick!r}, epochs=10**4))')
    run = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL, start_new_session=True)
    folds = until(lambda: [o for o in below(run) if '-c' in o.cmdline()])
    time.sleep(1); os.kill(run.pid, signal.SIGINT) # to it alone, as a notebook's stop button does
    assert run.wait(60)!=0
    assert not [o for o in folds if o.is_running() and o.status()!=psutil.STATUS_ZOMBIE]

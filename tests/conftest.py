"Which worker takes which test and in what order, what is fast, and what several files share."
import functools, os, pickle, resource
from pathlib import Path
import child
import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is there to read it: a thread for each worker
durations = Path(__file__).parent/'durations.txt' # CPU seconds of each test and each shared fixture that takes a second or more; `pytest --record` writes it

@functools.cache
def recorded():
    "What takes a second or more → its CPU seconds, when last recorded"
    rows = (line.split(maxsplit=1) for line in durations.read_text().splitlines()) if durations.exists() else ()
    return {name: float(seconds) for seconds,name in rows}

def pytest_addoption(parser): parser.addoption('--record', action='store_true', help=f'write the CPU seconds of each test that runs into {durations.name}')


# --- who takes what, and when: the longest first ---

alone = {f'test_{o}.py' for o in ('notebooks','trials','cli','formats','checkpoint','generality','studies')} # the slow tests here share nothing that is costly
together = {f'test_{o}.py' for o in ('interop','predict','report','targets')} # those that use `saved_run`

def scope_of(nodeid):
    "Tests with one scope stay in one worker"
    file = Path(nodeid.split('::')[0]).name
    return nodeid if file in alone and nodeid in recorded() else 'saved_run' if file in together else file

class ByCost(LoadScopeScheduling):
    def _split_scope(self, nodeid): return scope_of(nodeid)

def pytest_xdist_make_scheduler(config, log): return ByCost(config, log)

def costly(item):
    "The fixtures of a test that several tests share, by their recorded names"
    shared = (d[-1] for d in item._fixtureinfo.name2fixturedefs.values())
    return {f'{d.baseid}::{d.argname}' for d in shared if d.scope!='function' and d.baseid}

def pytest_collection_modifyitems(config, items):
    "What is not recorded as slow, and needs nothing that is, is fast; scopes are sorted by what their tests and fixtures take"
    seconds, scopes = recorded(), {}
    for o in items:
        shared = costly(o)
        if o.nodeid not in seconds and not shared & seconds.keys(): o.add_marker('fast')
        scopes.setdefault(scope_of(o.nodeid), set()).update({o.nodeid, *shared})
    total = {scope: sum(seconds.get(o, 0) for o in names) for scope,names in scopes.items()}
    items.sort(key=lambda o: -total[scope_of(o.nodeid)])


# --- record: CPU seconds, which other processes on the machine change little ---

def cpu(): return sum(child.spent) + sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

def measured(config, name):
    "Write what the hook around which this is a wrapper takes"
    start = cpu()
    yield
    if config.getoption('record'):
        with open(f'{durations}.new', 'a') as f: f.write(f'{cpu()-start:.1f} {name}\n') # a line at a time: several workers append

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item): yield from measured(item.config, item.nodeid)

@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef, request):
    if fixturedef.scope=='function' or not fixturedef.baseid: yield
    else: yield from measured(request.config, f'{fixturedef.baseid}::{fixturedef.argname}')

def pytest_sessionfinish(session):
    if not session.config.getoption('record') or hasattr(session.config, 'workerinput'): return
    new = Path(f'{durations}.new')
    rows = dict(recorded()) # what did not run this time stays
    rows |= {name: float(seconds) for seconds,name in (line.split(maxsplit=1) for line in new.read_text().splitlines())}
    durations.write_text(''.join(f'{s:.0f} {k}\n' for k,s in sorted(rows.items(), key=lambda o: (-round(o[1]), o[0])) if s>=1))
    new.unlink()


# --- shared ---

@functools.cache
def share_demo():
    "The demo's cells are simulated once in a process; each test has a copy"
    import pertnb.datasets as d
    made = functools.cache(d.demo)
    d.demo = functools.wraps(d.demo)(lambda *args, **kw: made(*args, **kw).copy())

def pytest_pycollect_makemodule(): share_demo() # before a file of tests is imported

@pytest.fixture(scope='module')
def warm_folds():
    "Folds in processes that need not import anything, where a test isn't about these processes"
    from pertnb import protocols
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, 'start_fold', child.start_fold)
        yield

@pytest.fixture(scope='session')
def saved_run(tmp_path_factory):
    "A short run on the demo, and the folder it was saved to: made by one worker for all"
    from filelock import FileLock
    from pertnb.speedrun import speedrun
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: base = base.parent
    folder, as_made = base/'saved_run'/'out', base/'saved_run.pickle' # the object that ran, not what can be read of it
    with FileLock(base/'saved_run.lock'):
        if not as_made.exists():
            run = speedrun('demo', target='IFNB', epochs=2, n_genes=200, embedding='pca', progress=False)
            run.save(folder)
            as_made.write_bytes(pickle.dumps(run))
    return pickle.loads(as_made.read_bytes()), folder

"One thread for each worker, which tests a worker takes, and what several files need."
import os
import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is there to read it

class ByFile(LoadScopeScheduling):
    "A file's tests share fixtures and stay in one worker; each notebook stands alone"
    def _split_scope(self, nodeid): return nodeid if 'test_notebooks.py' in nodeid else nodeid.split('::')[0]

def pytest_xdist_make_scheduler(config, log): return ByFile(config, log)

@pytest.fixture(scope='session')
def saved_run(tmp_path_factory):
    "A short run on the demo, and the folder it was saved to"
    from pertnb.speedrun import speedrun
    folder = tmp_path_factory.mktemp('run')/'out'
    run = speedrun('demo', target='IFNB', epochs=2, n_genes=200, embedding='pca', progress=False)
    run.save(folder)
    return run, folder

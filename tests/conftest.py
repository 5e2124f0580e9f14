"One thread for each worker, and which tests a worker takes."
import os
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is there to read it

class ByFile(LoadScopeScheduling):
    "A file's tests share fixtures and stay in one worker; each notebook stands alone"
    def _split_scope(self, nodeid): return nodeid if 'test_notebooks.py' in nodeid else nodeid.split('::')[0]

def pytest_xdist_make_scheduler(config, log): return ByFile(config, log)

"What must stay as it is while a run works: the number of threads that the user set."
import os, subprocess, sys

code = """
import torch, warnings; warnings.simplefilter('ignore')
from pertnb.speedrun import speedrun
def threads_after_a_run():
    speedrun('demo', target='IFNB', epochs=1, n_genes=200, progress=False).figure
    return torch.get_num_threads()
of_environment = threads_after_a_run()
torch.set_num_threads(3)
print(of_environment, threads_after_a_run())
"""

def test_threads_are_as_set():
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          env=os.environ|dict(OMP_NUM_THREADS='1'))
    assert done.stdout.split()[-2:]==['1','3'], done.stderr

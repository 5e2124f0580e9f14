"What must stay as it is while a run works: the number of threads that the user set, and neighbours' processor time."
import json, os, subprocess, sys
import pytest

code = """
import json, sys, warnings; warnings.simplefilter('ignore')
if sys.argv[1:]: import torch; torch.set_num_threads(int(sys.argv[1]))
from pertnb.datasets import demo
from pertnb.speedrun import speedrun
import scipy.linalg, sklearn.cluster, torch # with their libraries
from threadpoolctl import threadpool_info
def numbers(): return {pool['filepath']: pool['num_threads'] for pool in threadpool_info()} | dict(torch=torch.get_num_threads())
before = numbers()
run = speedrun(demo(600), 'condition', cell_type_key='cell_type', target='IFNB', epochs=3, n_genes=200, progress=False, embedding='umap')
run.figure
after = numbers()
assert len(before)>1 and {k: after[k] for k in before}==before, (before, after)
print(json.dumps([torch.get_num_threads(), [float(o.double().sum()) for o in run.model.parameters()]]))
"""

def of_run(*number, **env):
    "Threads that torch has after a run, and sums of the model's weights"
    env = {k: v for k,v in os.environ.items() if k!='OMP_NUM_THREADS'} | env
    done = subprocess.run([sys.executable, '-c', code, *number], capture_output=True, text=True, env=env)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])

def test_threads_are_as_set():
    "By the environment, or in torch; and the model is the same to the bit"
    (of_environment, one), (of_torch, three) = of_run(OMP_NUM_THREADS='1'), of_run('3')
    assert (of_environment, of_torch)==(1, 3) and one==three

waiting = """
import os, pertnb.core, numpy as np, torch, time
torch.set_num_threads(2); a, A = torch.ones(400, 400), np.ones((400, 400))
for _ in range(3): a@a; A@A; (a+a).exp()   # whose threads have to wait now
start = time.process_time(); time.sleep(.5)
print(time.process_time()-start, os.environ['OMP_WAIT_POLICY'])
"""

@pytest.mark.parametrize('said', [{}, dict(OMP_WAIT_POLICY='ACTIVE')], ids=['', 'the user says so'])
def test_waiting_threads_sleep(said):
    "After work on two threads nobody spins; what the user set stays"
    env = {k: v for k,v in os.environ.items() if not k.startswith(('OMP_','OPENBLAS_','GOMP_'))}
    done = subprocess.run([sys.executable, '-c', waiting], capture_output=True, text=True, env=env|said)
    seconds, policy = done.stdout.split()
    assert policy==said.get('OMP_WAIT_POLICY', 'PASSIVE'), done.stderr
    if not said: assert float(seconds)<.1

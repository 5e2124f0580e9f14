"Two processes train as one does: the same losses, each cell in one of them, and one of them writes."
import json, os, socket, subprocess, sys
from pathlib import Path
import child
import numpy as np
import pandas as pd
import pytest
from pertnb.datasets import *
from pertnb.data import *

script = '''
import json, os, sys, torch
torch.set_num_threads(1)
from lightning_fabric import Fabric
from pertnb.datasets import *
from pertnb.data import *
from pertnb import state, training
folder, devices, backed = sys.argv[1], int(sys.argv[2]), sys.argv[3]=='disk'
fabric = Fabric(accelerator='cpu', devices=devices, strategy='ddp' if devices>1 else 'auto'); fabric.launch()
wrote = []
keep = state.atomic_write
state.atomic_write = lambda *args: (wrote.append(1), keep(*args))
train = PertData(folder+'/cells.h5ad', **known_datasets['demo'][1], backed=backed).to_genes(json.load(open(folder+'/genes.json')))
model, history = training.fit(train, epochs=3, batch_size=64, val_frac=.1, block=16, progress=False, fabric=fabric, checkpoint=folder+'/kept', every=0)
res = dict(rank=fabric.global_rank, wrote=len(wrote), history=history.to_dict('list'), weights=[float(o.double().norm()) for o in model.parameters()])
json.dump(res, open(f'{folder}/{devices}-{fabric.global_rank}.json', 'w'))
'''

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d, a = tmp_path_factory.mktemp('devices'), demo(600)
    a.write_h5ad(d/'cells.h5ad'); (d/'train.py').write_text(script)
    json.dump(list(choose_genes(PertData(a, **known_datasets['demo'][1]), 100)), open(d/'genes.json', 'w'))
    return d

def with_env(env, *args):
    os.environ.update(env)
    child.code(*args)

def forked(d, devices, where):
    "A process for each device, with the environment that Fabric gives those that it starts"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    env = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE=str(devices), NODE_RANK='0') if devices>1 else {}
    def start(rank): return child.begin(with_env, env | (dict(LOCAL_RANK=str(rank)) if env else {}), script, d, devices, where, out=d/f'out{rank}', err=d/f'err{rank}')
    processes = [start(rank) for rank in range(devices)]
    for rank,process in enumerate(processes):
        child.end(process, d/f'out{rank}')
        assert not process.exitcode, (d/f'err{rank}').read_text()[-2000:]

def by_torchrun(d, devices, where):
    env = {k: v for k,v in os.environ.items() if k not in ('RANK','LOCAL_RANK','WORLD_SIZE')} | dict(OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(devices), str(d/'train.py'), str(d), str(devices), where],
                          capture_output=True, text=True, timeout=300, env=env)
    assert not done.returncode, done.stderr[-2000:]

def launched(d, devices, where, how=forked):
    for f in d.glob(f'{devices}-*.json'): f.unlink()
    how(d, devices, where)
    return [json.loads(f.read_text()) for f in sorted(d.glob(f'{devices}-*.json'))]

@pytest.mark.parametrize('where, how', [('memory', forked), ('disk', by_torchrun)]) # by Fabric itself: in the command's test
def test_two_processes_are_as_one(folder, where, how):
    one, = launched(folder, 1, where)
    two = launched(folder, 2, where, how)
    assert [o['rank'] for o in two]==[0,1] and [o['wrote']>0 for o in two]==[True,False] and one['wrote']
    for o in two:
        for k in ('reconstruction','kl','val_elbo'): np.testing.assert_allclose(o['history'][k], one['history'][k], rtol=1e-5)
        np.testing.assert_allclose(o['weights'], one['weights'], rtol=1e-4)
    off = max(abs(np.array(o['history'][k])/one['history'][k]-1).max() for o in two for k in ('reconstruction','kl','val_elbo'))
    print(f'losses of two processes differ from those of one by {off:.1e} at most, of their size')

@pytest.mark.parametrize('block', [1, 16])
def test_each_cell_once(folder, block):
    "The parts of two processes, put together, are the batch; over an epoch each cell comes once"
    data = PertData(folder/'cells.h5ad', **known_datasets['demo'][1])
    n = len(data)//64*64
    data = data[:n]; data.library_size = np.arange(n, dtype=np.float32)+1 # a number for each cell
    whole, *parts = ([b.s[:,0].numpy() for b in data.batches(64, np.random.default_rng(0), shard=p, block=block)] for p in ((0,1), (0,2), (1,2)))
    for w,a,b in zip(whole, *parts, strict=True): np.testing.assert_array_equal(w, np.stack([a, b], 1).ravel())
    assert len(np.unique(np.concatenate(whole)))==n

def test_the_command_on_two_devices(folder, tmp_path):
    "`pertnb run --devices 2` writes what `--devices 1` writes"
    def args(n): return ['run', folder/'cells.h5ad', '--condition-key', 'condition', '--cell-type-key', 'cell_type', '--size-key', 'total_counts', '--target', 'IFNB',
                         '--epochs', '2', '--n-genes', '100', '--embedding', 'pca', '--devices', n, '--accelerator', 'cpu', '--out', tmp_path/n]
    failed, _, err = child.in_process(child.command_without_figures, *args('1'))
    assert not failed, err[-2000:]
    done = subprocess.run([Path(sys.executable).parent/'pertnb', *args('2')], capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr[-2000:]
    one, two = (pd.read_csv(tmp_path/n/'history.csv') for n in '12')
    np.testing.assert_allclose(two[['reconstruction','kl']], one[['reconstruction','kl']], rtol=1e-5)
    assert {o.name for o in tmp_path.iterdir()}=={'1','2'}

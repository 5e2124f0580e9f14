"What a GPU does: the same training as the processor. Run with `pytest -m gpu`; without CUDA those are skipped."
import json
from pathlib import Path
import child
import numpy as np
import pytest
import torch
from pertnb.data import *
from pertnb.datasets import *
from pertnb.model import *
from pertnb.state import FabricEngine, launch_fabric, pinned
from pertnb.training import fit

def gpu(test):
    "Marked `gpu`, and skipped where there is none"
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device here')(test))

def cells():
    data = PertData(demo(600), **known_datasets['demo'][1])
    return data.to_genes(choose_genes(data, 100))

@gpu
@pytest.mark.parametrize('likelihood', ['nb','gaussian'])
def test_training_is_that_of_the_processor(likelihood):
    data = cells()
    if likelihood=='gaussian': data = PertData(data.to_adata(), 'condition', cell_type_key='cell_type')
    (_, one), (_, other) = (fit(data, likelihood, epochs=3, val_frac=.1, fabric=launch_fabric(1, accelerator=o), progress=False) for o in ('cpu','cuda'))
    np.testing.assert_allclose(other, one, rtol=1e-3)

@gpu
def test_likelihood_and_gradients():
    b = cells().batch()
    o = torch.randn(b.x.shape)
    def found(device):
        raw, alpha = o.to(device).requires_grad_(), torch.full((o.shape[1],), .5, device=device, requires_grad=True)
        log_p = SharedCounts(raw, b.s.to(device), alpha).log_prob(b.y.to(device))
        return [v.cpu().detach() for v in (log_p, *torch.autograd.grad(log_p.sum(), (raw, alpha)))]
    for one, other in zip(found('cpu'), found('cuda')): torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)

@gpu
def test_compiled_networks():
    model = CVAE(['a','b'], Conditions(['x','control'], 'control')).cuda()
    x, c = torch.rand(4, 2).cuda(), torch.eye(2)[[0,1,0,1]].cuda()
    torch.testing.assert_close(torch.compile(model.encoder)(x, c), model.encoder(x, c))

@gpu
def test_the_bench(tmp_path): assert bench(tmp_path, '--accelerator', 'cuda')['accelerator']=='cuda'

def bench(folder, *args):
    script = Path(__file__).parents[1]/'bench'/'speedrun.py'
    failed, out, err = child.in_process(child.script, script, folder, '--data', 'demo', '--epochs', '1', '--n-genes', '50', *args)
    assert not failed, err[-2000:]
    return json.loads(out.splitlines()[-1])

def test_the_bench_without(tmp_path):
    res = bench(tmp_path)
    assert res['accelerator']=='none' and 0<res['r']<=1

def test_batches_are_pinned_for_cuda_alone(monkeypatch):
    "A stand-in for a device: dense tensors are pinned, counts go as they are, fields keep their names"
    seen = []
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: (seen.append(self), self)[1])
    class Device:
        global_rank, world_size = 0, 1
        def __init__(self, kind): self.device = torch.device(kind)
        def to_device(self, o): return o
    b = cells().batch([0,1,2])
    assert FabricEngine(Device('cpu')).to_device((b, b.s))[0] is b and not seen
    moved, s = FabricEngine(Device('cuda')).to_device((b, b.s))
    assert type(moved) is type(b) and moved.y is b.y and s is b.s and len(seen)==len(b) # all but y, and s twice

def test_no_device_in_the_networks():
    "Both run on a device that holds no values, so neither makes tensors of its own elsewhere"
    model = CVAE(['a','b'], Conditions(['x','control'], 'control')).to('meta')
    x, c = torch.empty(4, 2, device='meta'), torch.empty(4, 2, device='meta')
    mu, logvar = model.encode(x, c)
    p = model.decode(mu, c, x[:,:1])
    assert {o.device.type for o in (mu, logvar, p.log_mean)}=={'meta'} and p.log_mean.shape==(4, 2)

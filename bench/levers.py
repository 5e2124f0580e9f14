"""What a lever is worth in one training step: each way of doing it in turn, as a ratio to the default within one run.

    PERTNB_DATA=../shared/data python bench/levers.py [--batches 128,512] [--levers 'bfloat16 products;…'] [--rounds 40]

CPU time on one thread, so that what else the machine does counts little; the ratio is the median over rounds, in each of
which all take a turn. Writes bench/records/levers.csv.
"""
import argparse, time, types
from pathlib import Path
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch.nn import functional as F
from limit import products
from pertnb.datasets import *
from pertnb.data import *
from pertnb.model import *
from pertnb.elbo import *
from pertnb.training import *

class SparseLinear(torch.autograd.Function):
    "The first layer on the non-zeros of x (scipy, CSR): what their rows of the weights sum to"
    @staticmethod
    def rows(x, weights):
        values, indices, starts = (torch.from_numpy(o) for o in (x.data, x.indices, x.indptr[:-1]))
        return F.embedding_bag(indices, weights, starts, mode='sum', per_sample_weights=values)

    @staticmethod
    def forward(ctx, x, c, weight, bias):
        ctx.x = x; ctx.save_for_backward(c)
        return SparseLinear.rows(x, weight[:,:x.shape[1]].t().contiguous()).addmm_(c, weight[:,x.shape[1]:].t()).add_(bias)

    @staticmethod
    def backward(ctx, grad):
        by_genes = SparseLinear.rows(ctx.x.tocsc(), grad.contiguous())
        return None, None, torch.cat([by_genes.t(), grad.t()@ctx.saved_tensors[0]], 1), grad.sum(0)

def sparse_layer(model):
    "Let the encoder skip the zeros of x"
    first, *others = model.encoder.body
    def forward(self, x, c):
        h = SparseLinear.apply(sp.csr_matrix(x.numpy()), c, first.weight, first.bias)
        for layer in others: h = layer(h)
        return self.head(h).chunk(2, 1)
    model.encoder.forward = types.MethodType(forward, model.encoder)

def apart(model):
    "Shares first, their likelihood afterwards"
    model.decode = lambda z, c, s: NegativeBinomial(log_rate(model.decoder(z, c), s), model.decoder.log_scale.exp())

def compiled(model): model.encoder, model.decoder = torch.compile(model.encoder), torch.compile(model.decoder)

levers = {'default': {}, 'shares and likelihood apart': dict(change=apart), 'first layer on sparse input': dict(change=sparse_layer),
          'bfloat16 products': dict(precision=torch.bfloat16), 'AdamW not fused': dict(fused=False), 'torch.compile': dict(change=compiled),
          'no alignment term': dict(alignment=False), 'Gaussian': dict(likelihood='gaussian')}

def stepper(train, B, likelihood='nb', change=None, precision=None, fused=True, alignment=True):
    "A function that does one training step, and its model"
    torch.manual_seed(0)
    model = CVAE(train.genes, train.conditions, likelihood); train = model.prepare_data(train); model.init_output_bias(train)
    opt, rng, weights = torch.optim.AdamW(model.parameters(), 1e-3, (.9,.95), fused=fused), np.random.default_rng(0), train.balanced()
    if change: change(model)
    def endless():
        while True: yield from train.batches(B, rng, weights)
    batches = endless()
    def step():
        b = next(batches)
        with torch.autocast('cpu', precision, enabled=precision is not None): log_px, kl_z, mu = model(b)
        loss = -elbo(log_px, kl_z)
        if alignment: loss = loss + 5*misalignment(mu, b.cell_type_id, b.condition_id, b.c[:,0]>0)
        opt.zero_grad(); loss.backward(); opt.step()
    return step, model

def in_turns(steps, rounds, k=3):
    "CPU milliseconds of a step, rounds × levers; and seconds until each was ready"
    ms, ready = {name: [] for name in steps}, {}
    for name,step in steps.items():
        start = time.perf_counter()
        for _ in range(3): step()
        ready[name] = time.perf_counter()-start
    for _ in range(rounds):
        for name,step in steps.items():
            start = time.process_time()
            for _ in range(k): step()
            ms[name].append((time.process_time()-start)/k*1e3)
    return pd.DataFrame(ms), pd.Series(ready)

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--batches', default='128,512'); p.add_argument('--rounds', type=int, default=40)
    p.add_argument('--levers', default='', help='separated by ;'); a = p.parse_args(); torch.set_num_threads(1)
    names = ['default', *a.levers.split(';')] if a.levers else list(levers)
    cells = PertData(kang18(), **known_datasets['kang18'][1])
    train, rows = cells.to_genes(choose_genes(cells)), []
    logs = PertData(train.to_adata(), 'condition', cell_type_key='cell_type')
    for B in map(int, a.batches.split(',')):
        made = {name: stepper(logs if name=='Gaussian' else train, B, **levers[name]) for name in names}
        pairs = [(torch.randn(m,k), torch.randn(k,n)) for m,k,n in products(stepper(train, B)[1], B)]
        ms, ready = in_turns({name: step for name,(step,_) in made.items()} | {'its matrix products': lambda: [x@y for x,y in pairs]}, a.rounds)
        rows.append(pd.DataFrame(dict(batch=B, ms=ms.median(), to_default=ms.div(ms.default, axis=0).median(), seconds_until_ready=ready)).rename_axis('lever').reset_index())
    res = pd.concat(rows); print(res.round(3).to_string(index=False))
    folder = Path(__file__).parent/'records'; folder.mkdir(exist_ok=True); res.round(4).to_csv(folder/'levers.csv', index=False)

"""How near the default training step comes to the time of its matrix products alone, where the rest goes, and cells per second.

    PERTNB_DATA=../shared/data python bench/limit.py [--batches 128,256,512]

Writes bench/records/limit.csv, operators.csv and per_second.csv.
"""
import argparse, tempfile, time
from pathlib import Path
import numpy as np
import pandas as pd
import torch
from pertnb.board import scoreboard
from pertnb.datasets import *
from pertnb.data import *
from pertnb.model import *
from pertnb.elbo import *
from pertnb.training import *
from pertnb.generation import generate

def best(*fs, n=10, k=10):
    "Seconds of one call of each function, in turns: the least of n means of k"
    times = [[] for _ in fs]
    for f in fs: f()
    for _ in range(n):
        for f,t in zip(fs, times):
            start = time.perf_counter()
            for _ in range(k): f()
            t.append((time.perf_counter()-start)/k)
    return [min(t) for t in times]

def stepper(train, likelihood, batch_size):
    "A function that does one training step, as `fit` does"
    torch.manual_seed(0)
    model = CVAE(train.genes, train.conditions, likelihood); train = model.prepare_data(train); model.init_output_bias(train)
    opt, rng, chance = torch.optim.AdamW(model.parameters(), 1e-3, (.9,.95), fused=True), np.random.default_rng(0), train.balanced()
    def batches():
        while True: yield from train.batches(batch_size, rng, chance)
    it = batches()
    def step():
        b = next(it)
        log_px, price, mu = model(b)
        loss = -elbo(log_px, price) + 5*misalignment(mu, b.cell_type_id, b.condition_id, b.c[:,0]>0)
        opt.zero_grad(); loss.backward(); opt.step()
    return model, step

def products(model, B):
    "The step's matrix products: (rows, inner, columns) of forward, and of the gradients backward needs"
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear): continue
        o, i = layer.weight.shape
        yield (B, i, o); yield (o, B, i)                          # forward; gradient of the weights
        if not name.startswith('encoder.body'): yield (B, o, i)   # gradient of the input, but for the data

def step_limits(train, logs, B):
    "Milliseconds of a step with either likelihood, and of its matrix products alone"
    (model, step), (_, gaussian) = stepper(train, 'nb', B), stepper(logs, 'gaussian', B)
    shapes = list(products(model, B))
    pairs = [(torch.randn(m,k), torch.randn(k,n)) for m,k,n in shapes]
    nb, g, bare = best(step, gaussian, lambda: [x@y for x,y in pairs])
    flop = sum(2*m*k*n for m,k,n in shapes)
    return step, dict(batch=B, nb_ms=nb*1e3, gaussian_ms=g*1e3, nb_over_gaussian=nb/g, products_ms=bare*1e3, share_of_step=bare/nb, GFLOP=flop/1e9, GFLOP_per_s=flop/bare/1e9)

def operators(step, n=20):
    "Milliseconds of a step by operator"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as prof:
        for _ in range(n): step()
    return pd.Series({e.key: e.self_cpu_time_total/n/1e3 for e in prof.key_averages()}).nlargest(15)

def per_second(train, n=20_000):
    "Cells a second: made, written, scored"
    model, _ = fit(train, epochs=1, progress=False)
    controls, real, res = train[train.is_control], train.to_adata(), {}
    for mode in 'ABC':
        make = lambda: generate(model, controls, 'IFNB', mode, n=n, progress=False)
        res[f'made, mode {mode}'] = n/best(make, n=3, k=1)[0]
    got = make()
    with tempfile.TemporaryDirectory() as d: res['written as h5ad'] = n/best(lambda: got.write_h5ad(f'{d}/cells.h5ad'), n=1, k=1)[0]
    few = got[::10].copy()
    res[f'scored, all metrics, {len(few)} cells'] = len(few)/best(lambda: scoreboard({'mode C · count transfer': few}, real, 'condition', 'control'), n=1, k=1)[0]
    return res

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--batches', default='128,256,512'); a = p.parse_args()
    cells = PertData(kang18(), **known_datasets['kang18'][1])
    train = cells.to_genes(choose_genes(cells))
    logs = PertData(train.to_adata(), 'condition', cell_type_key='cell_type')
    steps, rows = zip(*(step_limits(train, logs, int(B)) for B in a.batches.split(',')))
    tables = {'limit': pd.DataFrame(rows), 'operators': operators(steps[0]).rename_axis('operator').reset_index(name='ms'),
              'per_second': pd.Series(per_second(train)).rename_axis('what').reset_index(name='cells_per_second')}
    folder = Path(__file__).parent/'records'; folder.mkdir(exist_ok=True)
    for name,t in tables.items(): t.round(4).to_csv(folder/f'{name}.csv', index=False); print(t.round(3).to_string(index=False), '\n')

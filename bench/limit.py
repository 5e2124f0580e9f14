"""How near the default training step comes to the time of its matrix products alone, where the rest goes, and cells generated per second.

    PERTNB_DATA=../shared/data python bench/limit.py [--batch 128]
"""
import argparse, time
import numpy as np
import pandas as pd
import torch
from pertnb.data import *
from pertnb.elbo import *
from pertnb.generation import generate
from pertnb.model import *
from pertnb.training import *

def best(f, n=5, k=20):
    "Seconds of one call: the least of n means of k"
    f(); times = []
    for _ in range(n):
        start = time.perf_counter()
        for _ in range(k): f()
        times.append((time.perf_counter()-start)/k)
    return min(times)

def stepper(train, likelihood, batch_size):
    "A function that does one training step, as `fit` does"
    torch.manual_seed(0)
    model = CVAE(train.genes, train.conditions, likelihood); train = model.align(train); model.start_at(train)
    opt, rng, chance = torch.optim.AdamW(model.parameters(), 1e-3, fused=True), np.random.default_rng(0), train.balanced()
    def batches():
        while True: yield from train.batches(batch_size, rng, chance)
    it = batches()
    def step():
        b = next(it)
        log_px, price, mu = elbo_terms(model, b)
        loss = -elbo(log_px, price) + 5*misalignment(mu, b.t, b.k, b.c[:,0]>0)
        opt.zero_grad(); loss.backward(); opt.step()
    return model, step

def products(model, B):
    "The step's matrix products: (rows, inner, columns) of forward, and of the gradients backward needs"
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear): continue
        o, i = layer.weight.shape
        yield (B, i, o); yield (o, B, i)                          # forward; gradient of the weights
        if not name.startswith('encoder.body'): yield (B, o, i)   # gradient of the input, but for the data

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--batch', type=int, default=128); B = p.parse_args().batch
    cells = PertData(kang18(), **studies['kang18'][1])
    train = cells.to_genes(choose_genes(cells))
    logs = PertData(train.to_adata(), 'condition', cell_type_key='cell_type')
    model, step = stepper(train, 'nb', B)
    _, gaussian = stepper(logs, 'gaussian', B)
    t_nb, t_g = best(step), best(gaussian)
    shapes = list(products(model, B))
    flops = sum(2*m*k*n for m,k,n in shapes)
    bare = sum(best(lambda x=torch.randn(m,k), y=torch.randn(k,n): x@y) for m,k,n in shapes)
    print(f'batch {B}, {torch.get_num_threads()} threads: NB step {t_nb*1e3:.1f} ms, Gaussian {t_g*1e3:.1f} ms, ratio {t_nb/t_g:.2f}')
    print(f'{flops/1e9:.3f} GFLOP of matrix products in {bare*1e3:.1f} ms by themselves ({flops/bare/1e9:.0f} GFLOP/s): {bare/t_nb:.0%} of the NB step')
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as prof:
        for _ in range(20): step()
    ops = pd.Series({e.key: e.self_cpu_time_total/20e3 for e in prof.key_averages()}).nlargest(14)
    print('\nms per step, by operator\n'+ops.round(2).to_string())
    model, _ = fit(train, epochs=1, progress=False)
    ctrl = train[train.is_control]
    for mode in 'ABC':
        n = 20_000; start = time.perf_counter(); got = generate(model, ctrl, 'IFNB', mode, n=n, progress=False); t = time.perf_counter()-start
        print(f'mode {mode}: {n/t:.0f} cells of {got.n_vars} genes a second')

"""A million simulated cells on disk: trained on for one epoch, and a million cells made to disk, against the same in memory.

    python bench/disk.py [--cells 1000000] [--genes 2000] [--folder DIR]

Each step runs in a process of its own, whose peak memory is its own. Writes bench/records/disk.csv.
"""
import argparse, json, sys, tempfile, time
from pathlib import Path
import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from folds import own_process, peak
from pertnb.datasets import *
from pertnb.data import *
from pertnb.generation import generate
from pertnb.training import fit

keys = dict(condition_key='condition', cell_type_key='cell_type')

def simulate(path, cells, genes, block=20_000):
    "One block of the demo's cells (genes beyond its thousand are its genes again, of other cells), thinned anew each time"
    import h5py
    parts = [demo(block, seed=k) for k in range(-(-genes//1000))]
    rows, rng, obs = min(len(p) for p in parts), np.random.default_rng(0), []
    whole = sp.hstack([p.X[:rows] for p in parts], 'csr')[:,:genes].astype(np.float32)
    names = [f'{g}_{k}' if k else g for k,p in enumerate(parts) for g in p.var_names][:genes]
    with h5py.File(path, 'w') as f:
        ad.io.write_elem(f, '/', ad.AnnData(var=pd.DataFrame(index=names)))
        for i in range(0, cells, rows):
            X = whole[(at := rng.permutation(rows)[:cells-i])]
            X.data = rng.binomial(X.data.astype(int), .9).astype(np.float32); X.eliminate_zeros(); X.indptr = X.indptr.astype(np.int64)
            obs.append(parts[0].obs[['condition','cell_type']].astype(str).iloc[at])
            if i: ad.io.sparse_dataset(f['X']).append(X)
            else: ad.io.write_elem(f, 'X', X)
        obs = pd.concat(obs, ignore_index=True); obs.index = 'c'+obs.index.astype(str)
        ad.io.write_elem(f, 'obs', obs.astype('category'))
    return dict(cells=len(obs))

def work(path, backed, n, out):
    "Open, train for an epoch, make `n` cells; seconds of each and this process's peak memory"
    times, start = {}, time.perf_counter()
    def lap(what):
        nonlocal start
        times[f'{what} s'], times[f'{what} MB'] = time.perf_counter()-start, peak(); start = time.perf_counter()
    data = PertData(path, **keys, backed=backed); lap('open')
    train = data.to_genes(choose_genes(data, 2000)); lap('choose genes')
    model, _ = fit(train, epochs=1, progress=False); lap('train')
    generate(model, train[train.is_control], 'IFNB', n=n, out=out, progress=False); lap('generate')
    return dict(backed=backed, cells=len(data), made=n, peak_MB=times['generate MB'], **times)

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--cells', type=int, default=1_000_000); p.add_argument('--genes', type=int, default=2000)
    p.add_argument('--times', type=int, default=1); p.add_argument('--folder', type=Path); p.add_argument('--step', default=''); p.add_argument('--path')
    a = p.parse_args()
    if a.step=='simulate': print(json.dumps(simulate(a.path, a.cells, a.genes)))
    elif a.step: print(json.dumps(work(a.path, a.step=='disk', a.cells, f'{a.path}.made.h5ad')))
    else:
        with tempfile.TemporaryDirectory(dir=a.folder) as d:
            step = lambda s: own_process(sys.executable, __file__, '--step', s, '--cells', a.cells, '--genes', a.genes, '--path', f'{d}/cells.h5ad')
            print(step('simulate'), f'{Path(d,"cells.h5ad").stat().st_size/1e9:.2f} GB', flush=True)
            rows = []
            for s in ('disk','memory')*a.times: rows.append(step(s)); print(rows[-1], flush=True)
            rows = pd.DataFrame(rows)
        for o in ('train','generate'): rows[f'{o} cells/s'] = rows['cells' if o=='train' else 'made']/rows[f'{o} s']
        best = rows.groupby('backed')[['train cells/s','generate cells/s']].max()
        print(rows.round(1).to_string(index=False), f'\ndisk over memory: {(best.loc[True]/best.loc[False]).round(3).to_dict()}')
        rows.round(2).to_csv(Path(__file__).parent/'records'/'disk.csv', index=False)

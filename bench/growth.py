"""How training and generation grow with cells, genes, conditions and contexts: time per cell and peak memory.

    python bench/growth.py [--cells 3000,30000,300000] [--genes 500,2000,8000]
    python bench/growth.py --groups 10,100,1000

Cells of the simulated study, drawn again with replacement; more than its 1,000 genes by setting cells of the same type
and condition side by side. One epoch is trained (with what a model takes along) and as many cells are generated as there
are controls, in a process of its own for each size. Writes bench/records/growth.csv. With --groups, 30,000 cells of 500
genes are dealt out at random to so many conditions, or to so many contexts, which changes what they cost and not what
they are. Writes bench/records/growth_groups.csv.
"""
import argparse, json, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
import scipy.sparse as sp
import anndata as ad
from folds import own_process, peak
from pertnb.datasets import *
from pertnb.data import *
from pertnb.generation import generate
from pertnb.training import fit

def dealt(obs, column, n, among, rng):
    "`column` with `n` new labels, dealt out to the cells `among`"
    labels = np.array([f'{column} {i+1}' for i in range(n)])
    column_now = obs[column].astype(str).to_numpy(object)
    column_now[among] = labels[rng.permutation(int(among.sum()))%n]
    return obs.assign(**{column: pd.Categorical(column_now)})

def study(cells, genes, conditions=0, contexts=0, n=3000):
    "`cells` × `genes`, as `PertData`; 0 conditions or contexts: the demo's own"
    rng, a = np.random.default_rng(0), demo(n)
    a = a[np.lexsort((a.obs.condition, a.obs.cell_type))].copy()
    shifts = range(-(-genes//a.n_vars))                                      # a neighbour is mostly of the same group
    X = sp.hstack([sp.csr_matrix(a.X)[np.roll(np.arange(n), k)] for k in shifts], 'csr')[:,:genes]
    obs = a.obs.assign(total_counts=a.obs.total_counts*len(shifts))
    rows = rng.integers(0, n, cells)
    obs = obs.iloc[rows].reset_index(drop=True); obs.index = obs.index.astype(str)
    if conditions: obs = dealt(obs, 'condition', conditions, (obs.condition!='control').to_numpy(), rng)
    if contexts: obs = dealt(obs, 'cell_type', contexts, np.ones(cells, bool), rng)
    return PertData(ad.AnnData(X[rows], obs, pd.DataFrame(index=[f'g{i}' for i in range(genes)])), **known_datasets['demo'][1])

def one(cells, genes, conditions=0, contexts=0):
    train = study(cells, genes, conditions, contexts)
    data_mb = (train.values.data.nbytes+train.values.indices.nbytes)/1e6
    before = peak()
    start = time.perf_counter(); model, _ = fit(train, epochs=1, progress=False); fitted = time.perf_counter()-start
    controls, after_fit = train[train.is_control], peak()
    target = 'condition 1' if conditions else 'IFNB'
    start = time.perf_counter(); got = generate(model, controls, target, progress=False); made = time.perf_counter()-start
    labels = dict(conditions=conditions, contexts=contexts) if conditions or contexts else {}
    return dict(cells=cells, genes=genes, **labels, data_MB=data_mb, before_MB=before, fit_MB=after_fit, peak_MB=peak(),
                train_us_per_cell=fitted/cells*1e6, generate_us_per_cell=made/len(got)*1e6)

def grown(sizes, name):
    "A process of its own for each size, and a table of all"
    rows = []
    for size in sizes:
        rows.append(own_process(sys.executable, __file__, '--one', ','.join(map(str, size)))); print(rows[-1], flush=True)
    out = Path(__file__).parent/'records'/name; out.parent.mkdir(exist_ok=True)
    (res := pd.DataFrame(rows)).round(2).to_csv(out, index=False)
    print(res.round(1).to_string(index=False))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--cells', default='3000,30000,300000'); p.add_argument('--genes', default='500,2000,8000')
    p.add_argument('--groups', default=''); p.add_argument('--one', default='')
    a = p.parse_args()
    if a.one: print(json.dumps(one(*map(int, a.one.split(','))))); raise SystemExit
    numbers = lambda text: list(map(int, text.split(',')))
    if a.groups: grown([(30_000, 500, *k) for n in numbers(a.groups) for k in ((n, 0), (0, n))], 'growth_groups.csv')
    else: grown([(cells, genes) for genes in numbers(a.genes) for cells in numbers(a.cells)], 'growth.csv')

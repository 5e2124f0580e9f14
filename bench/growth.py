"""How training and generation grow with cells and genes: seconds per cell and peak memory.

    python bench/growth.py [--cells 3000,30000,300000] [--genes 500,2000,8000]

Cells of the simulated study, drawn again with replacement; more than its 1,000 genes by setting cells of the same type
and condition side by side. One epoch is trained (with what a model takes along) and as many cells are generated as there
are controls, in a process of its own for each size. Writes bench/records/growth.csv.
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

def study(cells, genes, n=3000):
    "`cells` × `genes`, as `PertData`"
    rng, a = np.random.default_rng(0), demo(n)
    a = a[np.lexsort((a.obs.condition, a.obs.cell_type))].copy()
    shifts = range(-(-genes//a.n_vars))                                      # a neighbour is mostly of the same group
    X = sp.hstack([sp.csr_matrix(a.X)[np.roll(np.arange(n), k)] for k in shifts], 'csr')[:,:genes]
    obs = a.obs.assign(total_counts=a.obs.total_counts*len(shifts))
    rows = rng.integers(0, n, cells)
    obs = obs.iloc[rows].reset_index(drop=True); obs.index = obs.index.astype(str)
    return PertData(ad.AnnData(X[rows], obs, pd.DataFrame(index=[f'g{i}' for i in range(genes)])), **known_datasets['demo'][1])

def one(cells, genes):
    train = study(cells, genes)
    data_mb = (train.values.data.nbytes+train.values.indices.nbytes)/1e6
    before = peak()
    start = time.perf_counter(); model, _ = fit(train, epochs=1, progress=False); fitted = time.perf_counter()-start
    controls, after_fit = train[train.is_control], peak()
    start = time.perf_counter(); got = generate(model, controls, 'IFNB', progress=False); made = time.perf_counter()-start
    return dict(cells=cells, genes=genes, data_MB=data_mb, before_MB=before, fit_MB=after_fit, peak_MB=peak(),
                train_us_per_cell=fitted/cells*1e6, generate_us_per_cell=made/len(got)*1e6)

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--cells', default='3000,30000,300000'); p.add_argument('--genes', default='500,2000,8000'); p.add_argument('--one', default='')
    a = p.parse_args()
    if a.one: print(json.dumps(one(*map(int, a.one.split(','))))); raise SystemExit
    rows = []
    for genes in a.genes.split(','):
        for cells in a.cells.split(','):
            rows.append(own_process(sys.executable, __file__, '--one', f'{cells},{genes}')); print(rows[-1], flush=True)
    out = Path(__file__).parent/'records'/'growth.csv'; out.parent.mkdir(exist_ok=True)
    (res := pd.DataFrame(rows)).round(2).to_csv(out, index=False)
    print(res.round(1).to_string(index=False))

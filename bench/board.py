"""Scoring many cells: seconds and peak memory.

    python bench/board.py [--cells 50000] [--genes 2000]

Predicted against as many real cells, and a fifth as many controls, all drawn from one sparse distribution.
"""
import argparse, resource, time
import anndata as ad, numpy as np, pandas as pd, scipy.sparse as sp
from pertnb.board import *
from pertnb.tables import *

def cells(n, genes, label, rng):
    X = sp.random(n, genes, .06, 'csr', dtype=np.float32, random_state=rng, data_rvs=lambda k: rng.exponential(1.5, k).astype(np.float32))
    return ad.AnnData(X, pd.DataFrame(dict(condition=label), index=[f'{label}{i}' for i in range(n)]), pd.DataFrame(index=[f'g{i}' for i in range(genes)]))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--cells', type=int, default=50_000); p.add_argument('--genes', type=int, default=2000)
    a = p.parse_args(); rng = np.random.default_rng(0)
    real, pred = ad.concat([cells(a.cells, a.genes, 'drug', rng), cells(a.cells//5, a.genes, 'control', rng)]), cells(a.cells, a.genes, 'drug', rng)
    attach_pca(real, fit_pcs(real[-5000:]))
    start = time.time(); board = scoreboard({'prediction': pred}, real, 'condition')
    print(board_table(board).round(3).to_string())
    print(f'{a.cells} against {a.cells} cells × {a.genes} genes: {time.time()-start:.0f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6:.2f} GB')

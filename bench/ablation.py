"""What each ingredient is worth on cell types never seen perturbed: one left out or changed at a time.

    PERTNB_DATA=../shared/data python bench/ablation.py [--seeds 3] [--types 'B,CD16 Mono,NK,DC']

The four types are those on which settings were chosen; the others are for bench/types.py.
Writes nbs/results/ablation.csv, which 13_ablation shows.
"""
import argparse, os, warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import pandas as pd
import torch
from pertnb.board import *
from pertnb.data import *
from pertnb.generation import *
from pertnb.metrics import metrics
from pertnb.training import fit

variants = {'as it is': {}, 'no alignment of z': dict(align=0.), 'every cell alike': dict(balance=0.), 'd = 10': dict(n_latent=10),
            'half the price of z': dict(beta=.5)}
ways = {'B': dict(mode='B'), 'C, model alone': dict(mode='C', lean=0.), 'C': dict(mode='C'), 'C, other types alone': dict(mode='C', lean=1.)}

def one(job):
    cell_type, variant, seed = job
    torch.set_num_threads(1); warnings.simplefilter('ignore')
    cells = PertData(kang18(), **studies['kang18'][1])
    held = split_cell_type(cells, cell_type)
    train = cells[~held].to_genes(choose_genes(cells[~held]))
    mean, axes = fit_pcs(train.to_adata())
    ctrl, real = (cells[(cells.cell_type==cell_type) & (cells.condition==o)].to_genes(train.genes) for o in ('control','IFNB'))
    model, _ = fit(train, seed=seed, progress=False, **variants[variant])
    C, R, rows = ctrl.x.toarray(), real.x.toarray(), []
    for way,args in ways.items():
        X = dense(generate(model, ctrl, 'IFNB', seed=seed, progress=False, **args))
        for m in ('r','J50','E'):
            sets = [(o-mean)@axes for o in (X, R, C)] if metrics[m].space=='pcs' else (X, R, C)
            rows.append(dict(variant=variant, way=way, cell_type=cell_type, seed=seed, metric=m, value=float(metrics[m](*sets))))
    return rows

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--seeds', type=int, default=3); p.add_argument('--types', default='B,CD16 Mono,NK,DC')
    a = p.parse_args()
    jobs = [(t, v, s) for s in range(a.seeds) for v in variants for t in a.types.split(',')]
    with ProcessPoolExecutor(os.cpu_count()) as pool: rows = sum(pool.map(one, jobs), [])
    out = Path(__file__).parents[1]/'nbs'/'results'/'ablation.csv'; out.parent.mkdir(exist_ok=True)
    (res := pd.DataFrame(rows)).to_csv(out, index=False)
    by_seed = res.groupby(['variant','way','metric','seed'], sort=False).value.mean().unstack('metric')
    print(by_seed.groupby(level=[0,1], sort=False).agg(['mean','std']).round(3).to_string())

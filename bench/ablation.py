"""What each ingredient is worth on cell types never seen perturbed: one left out or changed at a time.

    PERTNB_DATA=../shared/data python bench/ablation.py [--seeds 3] [--types 'B,CD16 Mono,NK,DC'] [--variants 'default']

The four types are those on which settings were chosen; the others are for bench/cell_types.py.
Writes nbs/results/ablation.csv, which evidence/ablation shows.
"""
import argparse, os, warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import pandas as pd
import torch
from folds import kang_fold, keep
from pertnb.generation import generate
from pertnb.training import fit

was = dict(n_latent=20, beta=1.)
variants = {'default': {}, 'd = 20, full KL weight': was, 'no alignment of z': dict(was, latent_alignment=0.), 'every cell alike': dict(was, balance=0.),
            'd = 10': dict(was, n_latent=10), 'half the KL weight': dict(was, beta=.5)}
ways = {'B': dict(mode='B'), 'C, model alone': dict(mode='C', shrinkage=0.), 'C': dict(mode='C'), 'C, other types alone': dict(mode='C', shrinkage=1.)}

def one(job):
    cell_type, variant, seed = job
    torch.set_num_threads(1); warnings.simplefilter('ignore')
    train, ctrl, score = kang_fold(cell_type)
    model, _ = fit(train, seed=seed, progress=False, **variants[variant])
    rows = []
    for way,args in ways.items():
        scores = score(generate(model, ctrl, 'IFNB', seed=seed, progress=False, **args))
        rows += [dict(variant=variant, way=way, cell_type=cell_type, seed=seed, metric=m, value=v) for m,v in scores.items()]
    return rows

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--seeds', type=int, default=3); p.add_argument('--types', default='B,CD16 Mono,NK,DC')
    p.add_argument('--variants', default=';'.join(variants), help='separated by ;'); a = p.parse_args()
    jobs = [(t, v, s) for s in range(a.seeds) for v in a.variants.split(';') for t in a.types.split(',')]
    with ProcessPoolExecutor(os.cpu_count()) as pool: rows = sum(pool.map(one, jobs), [])
    res = keep(Path(__file__).parents[1]/'nbs'/'results'/'ablation.csv', pd.DataFrame(rows), ['variant','way','cell_type','seed','metric'])
    by_seed = res.groupby(['variant','way','metric','seed'], sort=False).value.mean().unstack('metric')
    print(by_seed.groupby(level=[0,1], sort=False).agg(['mean','std']).round(3).to_string())

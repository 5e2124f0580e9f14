"""Do the intervals hold? Share of genes whose real shift lies inside those of mode C, which 90 % were asked of.

    PERTNB_DATA=../shared/data python bench/intervals.py [--seeds 3]

Held-out cells, each cell type held out in turn, and the demo's true shift. A row a question, type and seed,
with the level promised, in nbs/results/intervals.csv, which the page on generation shows.
"""
import argparse, time, warnings
from pathlib import Path
import numpy as np, pandas as pd
from pertnb.data import *
from pertnb.datasets import *
from pertnb.effects import profile
from pertnb.generation import shift_interval
from pertnb.task import Task
from pertnb.training import fit

kang_types = ['B','CD14 Mono','CD16 Mono','CD4 Memory T','CD4 Naive T','CD8 T','DC','NK','T activated'] # 40 cells or more

def row(interval, real, **names):
    "The level promised, and the shares that were held"
    inside, top = (interval.low<=real)&(real<=interval.high), interval['shift'].abs().nlargest(100).index
    return names | {'promised': interval.coverage.iloc[0], 'all genes': inside.mean(), '100 largest': inside[top].mean()}

def questions(adata, data, name, holdout, seed):
    "Rows of one task: one training, and one row more where the truth is known"
    task = Task.split(data, 'IFNB', holdout=holdout, seed=seed)
    model, o = fit(task.train, seed=seed, progress=False)[0], task.observed
    interval = lambda n: shift_interval(model, task.controls, 'IFNB', seed=seed, n=n)
    names = dict(dataset=name, question='unseen type' if holdout else 'held-out cells', cell_type=holdout or 'all', seed=seed)
    yield row(interval((~o.is_control).sum()), profile(o.x, ~o.is_control)-profile(o.x, o.is_control), **names)
    if name=='demo':
        true = demo_true_shift(adata, 'IFNB', task.controls.types)[list(model.genes)].to_numpy()
        yield row(interval(np.inf), true, **names | dict(question=f"{names['question']}, true shift"))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--seeds', type=int, default=3)
    a, start, rows = p.parse_args(), time.time(), []
    warnings.simplefilter('ignore')
    for name in ('kang18','demo'):
        adata = known_datasets[name][0]()
        data = PertData(adata, **known_datasets[name][1])
        types = kang_types if name=='kang18' else sorted(set(data.types))
        rows += [r for holdout in (None, *types) for seed in range(a.seeds) for r in questions(adata, data, name, holdout, seed)]
    table = pd.DataFrame(rows)
    print(table.groupby(['dataset','question','cell_type'])[['promised','all genes','100 largest']].mean().round(3).to_string())
    print(table.groupby(['dataset','question'])[['promised','all genes','100 largest']].mean().round(3).to_string())
    table.round(4).to_csv(Path(__file__).parents[1]/'nbs'/'results'/'intervals.csv', index=False)
    print(f'{time.time()-start:.0f} s')

"""Nine cell types, each left out in turn: the model against every baseline, and the ceiling.

    PERTNB_DATA=../shared/data python bench/cell_types.py OUT [--seeds 3]

What `pertnb run … --holdout each` does, with the columns of the table in the docs. OUT may be continued.
Writes nbs/results/types.csv and coverage.csv, which evidence/ablation shows.
"""
import argparse, os, time
from pathlib import Path
import pandas as pd
from pertnb.protocols import *

metrics = ['r','J25','J50','J100','E','C2ST']

def fold(name):
    "Type and seed of a fold, from its name"
    t, _, seed = name.partition('-seed')
    return dict(cell_type=t.replace('_', ' '), seed=int(seed or 0))

def coverage(f):
    s = pd.read_csv(f)
    inside = s.real.between(s.low, s.high)
    return dict(fold(f.parent.name), **{'all genes': inside.mean(), '100 largest': inside[s['shift'].abs().nlargest(100).index].mean()})

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('out', type=Path); p.add_argument('--seeds', type=int, default=1)
    a = p.parse_args(); start = time.time()
    res = run_protocol(Path(os.environ['PERTNB_DATA'])/'kang18_ifnb_2800.h5ad', a.out, 'each', seeds=a.seeds,
                       condition_key='condition', control='control', target='IFNB', cell_type_key='cell_type', embedding='pca')
    print(summary_table(res)[metrics].round(3).to_string())
    if a.seeds>1: print('\nsd over seeds\n'+summary_table(res, 'sd')[metrics].round(3).to_string())

    boards = pd.read_csv(a.out/'scoreboards.csv')
    boards = boards[(boards.cell_type=='all') & boards.metric.isin(metrics)]
    long = pd.DataFrame([dict(fold(f), prediction=p, metric=m, value=round(v, 5)) for f,p,m,v in boards[['fold','prediction','metric','value']].to_numpy()])
    print('\nby type\n'+long[long.metric.isin(['r','J50','E']) & long.prediction.isin(['mode C · count transfer','kernel shift','control'])].pivot_table(index='cell_type', columns=['metric','prediction'], values='value').round(3).to_string())

    covered = pd.DataFrame([coverage(f) for f in sorted(a.out.glob('*/shifts.csv'))])
    print('\nheld by 90 % intervals of mode C\n'+covered.groupby('cell_type')[['all genes','100 largest']].mean().round(3).to_string()+f"\nmean {covered['all genes'].mean():.3f} {covered['100 largest'].mean():.3f}")
    results = Path(__file__).parents[1]/'nbs'/'results'
    results.mkdir(exist_ok=True); long.to_csv(results/'types.csv', index=False); covered.round(4).to_csv(results/'coverage.csv', index=False)
    print(f'\n{time.time()-start:.0f} s')

"""Five pairs of Norman's screen, each left out in turn: the model against adding up, the stronger part, and the mean of other pairs.

    PERTNB_DATA=../shared/data python bench/pairs.py OUT [--seeds 3]

Writes nbs/results/pairs.csv, which evidence/ablation shows.
"""
import argparse, os, time
from pathlib import Path
import pandas as pd
from pertnb.protocols import *

metrics = ['r','J25','J50','J100','E','C2ST']

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('out', type=Path); p.add_argument('--seeds', type=int, default=1)
    a = p.parse_args(); start = time.time()
    res = run_protocol(Path(os.environ['PERTNB_DATA'])/'norman19_mini.h5ad', a.out, 'pairs', seeds=a.seeds, condition_key='condition',
                       control='control', size_key='n_counts_all_genes', embedding='pca')
    print(summary_table(res)[metrics].round(3).to_string())
    boards = pd.read_csv(a.out/'scoreboards.csv')
    boards = boards[(boards.cell_type=='all') & boards.metric.isin(metrics)]
    boards = boards.assign(seed=boards.fold.str.extract(r'-seed(\d+)$')[0].fillna('0').astype(int))[['condition','seed','prediction','metric','value']]
    print(boards[boards.metric.isin(['r','E'])].pivot_table(index='condition', columns=['metric','prediction'], values='value')[[(m, p) for m in 'rE' for p in ('mode B · counterfactual','mode C · count transfer','additive','ceiling')]].round(3).to_string())
    results = Path(__file__).parents[1]/'nbs'/'results'
    results.mkdir(exist_ok=True); boards.round(5).to_csv(results/'pairs.csv', index=False)
    print(f'\n{time.time()-start:.0f} s')

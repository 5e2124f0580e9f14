"""Nine cell types, each left out in turn: the model against every baseline, and the ceiling.

    PERTNB_DATA=../shared/data python bench/types.py OUT [--seeds 3]

What `pertnb run … --holdout each` does, with the columns of the table in the docs. OUT may be continued.
"""
import argparse, os, time
from pathlib import Path
from pertnb.protocols import *

p = argparse.ArgumentParser(); p.add_argument('out'); p.add_argument('--seeds', type=int, default=1)
a = p.parse_args(); start = time.time()
res = run_protocol(Path(os.environ['PERTNB_DATA'])/'kang18_ifnb_2800.h5ad', a.out, 'each', seeds=a.seeds,
                   condition_key='condition', control='control', target='IFNB', cell_type_key='cell_type')
columns = ['r','J25','J50','J100','E','C2ST']
print(summary_table(res)[columns].round(3).to_string())
if a.seeds>1: print('\nsd over seeds\n'+summary_table(res, 'sd')[columns].round(3).to_string())
print(f'\n{time.time()-start:.0f} s')

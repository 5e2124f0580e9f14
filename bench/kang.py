"""The figures we claim for real cells, with the command's own defaults, over seeds.

    PERTNB_DATA=../shared/data python bench/kang.py [--seeds 3]

Held-out cells with both likelihoods, and two cell types held out in turn. One line a run, then means and standard deviations.
"""
import argparse, os, resource, time
from pathlib import Path
import numpy as np, pandas as pd
from pertnb.tables import board_table
from pertnb.files import *
from pertnb.data import *
from pertnb.generation import *
from pertnb.metrics import *
from pertnb.speedrun import *

keys = dict(condition_key='condition', control='control', target='IFNB', cell_type_key='cell_type', progress=False)

def decoder_mean_r(run, path):
    "r of the decoder's mean for the same control cells, an expectation and no prediction of cells"
    ctrl = run.real.obs[keys['condition_key']]==keys['control']
    study = PertData(path, 'condition', cell_type_key='cell_type')
    mean = dense(expected_expression(run.model, study[np.isin(study.cells, run.real.obs_names[ctrl])], 'IFNB'))
    X = dense(run.real)
    return shift_r(mean, X[~ctrl.to_numpy()], X[ctrl.to_numpy()])

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--seeds', type=int, default=3)
    seeds = range(p.parse_args().seeds)
    path, rows = Path(os.environ['PERTNB_DATA'])/'kang18_ifnb_2800.h5ad', []
    for what,more in {'held-out cells, nb': {}, 'held-out cells, gaussian': dict(likelihood='gaussian'), 'CD14 Mono held out': dict(holdout='CD14 Mono'),
                      'CD4 Naive T held out': dict(holdout='CD4 Naive T')}.items():
        for seed in seeds:
            start = time.time()
            run = speedrun(str(path), seed=seed, **keys, **more)
            t = board_table(run.scoreboard)
            b = t.loc['mode B · counterfactual']
            rows.append(dict(what=what, r=b.r, J50=b.J50, variance_R2=b['variance R2'], zeros_off=b['zeros off'], decoder_mean_r=decoder_mean_r(run, path),
                             r_mode_A=t.r['mode A · prior'], r_mean_shift=t.r['mean shift'], r_ceiling=t.r['ceiling'], J50_ceiling=t.J50['ceiling'], seconds=time.time()-start))
            print(what, 'seed', seed, {k: round(v, 3) for k,v in rows[-1].items() if k!='what'}, flush=True)
    table = pd.DataFrame(rows).groupby('what', sort=False)
    print('\nmean\n', table.mean().round(3).to_string(), '\n\nsd\n', table.std().round(3).to_string())
    print(f'\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3:.0f} MB')

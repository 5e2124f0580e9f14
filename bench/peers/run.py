"""Peers on the very same cells, genes, threads and scores, run in turn with ours.

    PERTNB_DATA=../shared/data python bench/peers/run.py [--held-out cells,NK] [--who pertnb,scVI] [--seeds 1] [--epochs N]

Makes a venv for each peer in bench/peers/.venv (its own defaults, unless --epochs), trains each predictor in a process of
its own, and scores all with the board's metrics. Writes nbs/results/peers.csv, a row for each predictor, fold and seed;
rows that are there stay, unless run anew.
"""
import argparse, subprocess, sys, tempfile
from pathlib import Path
import pandas as pd
here = Path(__file__).parent; sys.path.insert(0, str(here.parent))
from folds import kang_fold, keep, own_process
from pertnb.files import read_h5ad

peers = {'pertnb': ('ours.py', None), 'scVI': ('scvi_flip.py', ['scvi-tools>=1.4,<1.5']),
         'scGen': ('scgen_shift.py', ['pertpy==1.0.3', 'scvi-tools>=1.4,<1.5', 'statsmodels<0.15'])}
results = here.parents[1]/'nbs'/'results'/'peers.csv'
names = ('r','J25','J50','J100','E','C2ST','variance R2','zeros off')

def python(name):
    "The interpreter of a peer's venv, made if it is not there"
    if not peers[name][1]: return sys.executable
    home = here/'.venv'/name
    if not (home/'done').exists():
        subprocess.run([sys.executable, '-m', 'venv', home], check=True)
        for o in (['torch==2.13.0'], peers[name][1]): subprocess.run([home/'bin'/'python', '-m', 'pip', 'install', '-q', *o], check=True)
        (home/'done').touch()
    return home/'bin'/'python'

def run(name, folder, seed, epochs):
    "Train and predict in a process of its own; what it says of itself"
    return own_process(python(name), here/peers[name][0], folder, 'IFNB', seed, *([epochs] if epochs else []))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--held-out', default='cells'); p.add_argument('--who', default='pertnb,scVI')
    p.add_argument('--seeds', type=int, default=1); p.add_argument('--epochs', default='')
    a = p.parse_args()
    for held_out, seed in ((h, s) for s in range(a.seeds) for h in a.held_out.split(',')):
        train, controls, score = kang_fold(held_out, names)
        for name in a.who.split(','):
            with tempfile.TemporaryDirectory() as d:
                train.to_adata().write_h5ad(f'{d}/train.h5ad'); controls.to_adata().write_h5ad(f'{d}/controls.h5ad')
                said = run(name, d, seed, a.epochs)
                rows = [dict(held_out=held_out, predictor=f.stem, seed=seed, **said, **score(read_h5ad(f))) for f in sorted(Path(d).glob(f'{name}*.h5ad'))]
            keep(results, pd.DataFrame(rows).round(4), ['held_out','predictor','seed'])
            print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)

"""Peers on the very same cells, genes, threads and scores, run in turn with ours.

    PERTNB_DATA=../shared/data python bench/peers/run.py [--holdouts cells,CD14 Mono,NK] [--epochs N]

Makes a venv with scvi-tools in bench/peers/.venv (its own defaults unless --epochs), runs ours (in a process of its own,
too) and scVI on each task, and scores both with the board's metrics. Writes nbs/results/peers.csv.
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
import pandas as pd
from pertnb.board import fit_pcs
from pertnb.data import *
from pertnb.metrics import metrics

here = Path(__file__).parent
ours = '''import json, resource, sys, time, warnings; warnings.simplefilter('ignore')
from pertnb.data import *; from pertnb.training import *; from pertnb.generation import *
keys = dict(condition_key='condition', control='control', cell_type_key='cell_type', layer='counts', size_key='library_size')
train = PertData(sys.argv[1], **keys); fit(train, epochs=1, progress=False)
start = time.perf_counter(); model, h = fit(train, progress=False); seconds = time.perf_counter()-start
for m in 'BC': generate(model, sys.argv[2], sys.argv[3], m, progress=False).write_h5ad(sys.argv[4]+m+'.h5ad')
print(json.dumps(dict(seconds=seconds, epochs=len(h), peak_MB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3)))'''

def venv():
    python = here/'.venv'/'bin'/'python'
    if not python.exists():
        subprocess.run([sys.executable, '-m', 'venv', here/'.venv'], check=True)
        for o in (['torch==2.13.0'], ['scvi-tools>=1.4,<1.5']): subprocess.run([python, '-m', 'pip', 'install', '-q', *o], check=True)
    return python

def call(*args):
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--holdouts', default='cells,CD14 Mono,NK'); p.add_argument('--epochs', default='')
    a = p.parse_args(); python, rows = venv(), []
    cells = PertData(kang18(), **studies['kang18'][1])
    for h in a.holdouts.split(','):
        test = split_cells(cells, seed=0) if h=='cells' else split_cell_type(cells, h)
        train = cells[~test].to_genes(choose_genes(cells[~test]))
        ctrl = cells[cells.is_control & (test if h=='cells' else cells.cell_type==h)].to_genes(train.genes)
        real = cells[test & ~cells.is_control].to_genes(train.genes)
        mean, axes = fit_pcs(train.to_adata())
        with tempfile.TemporaryDirectory() as d:
            train.to_adata().write_h5ad(f'{d}/train.h5ad'); ctrl.to_adata().write_h5ad(f'{d}/ctrl.h5ad')
            found = {'pertnb': call(sys.executable, '-c', ours, f'{d}/train.h5ad', f'{d}/ctrl.h5ad', 'IFNB', f'{d}/ours'),
                     'scVI': call(python, here/'scvi_flip.py', f'{d}/train.h5ad', f'{d}/ctrl.h5ad', 'IFNB', f'{d}/scvi.h5ad', *filter(None, [a.epochs]))}
            X, C = real.x.toarray(), ctrl.x.toarray()
            for name,file,info in (('pertnb, mode B','oursB.h5ad','pertnb'), ('pertnb, mode C','oursC.h5ad','pertnb'), ('scVI, flipped and sampled','scvi.h5ad','scVI')):
                P = dense(read_h5ad(f'{d}/{file}'))
                score = {m: float(metrics[m](*((o-mean)@axes for o in (P, X, C)) if metrics[m].space=='pcs' else (P, X, C))) for m in ('r','J50','E','variance R2','C2ST')}
                rows.append(dict(held_out=h, predictor=name, **{k: found[info][k] for k in ('seconds','epochs','peak_MB')}, **score)); print(rows[-1], flush=True)
    out = Path(__file__).parents[2]/'nbs'/'results'/'peers.csv'; out.parent.mkdir(exist_ok=True)
    (res := pd.DataFrame(rows)).round(4).to_csv(out, index=False)
    print(res.round(3).to_string(index=False))

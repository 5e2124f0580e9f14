"""Perturbations never seen: each single perturbation left out, and predicted from its features. Better than the mean of all others?

    PERTNB_DATA=../shared/data python bench/unseen.py OUT [--seeds 3] [--studies screen,norman-families,norman-nothing]

Perturbations are left out in groups, to save time, together with every pair that holds one of them (else the pair would tell of it). What is left
is trained on with the defaults of the command line. Pairs whose parts were both given alone are left out all together, their parts stay.
Predictions are scored on one half of the perturbation's cells; `seen` is mode C of a model that was trained on the other half, and scored on the same cells.
OUT/unseen.csv has a row for each study, seed, perturbation and prediction, and grows; a second call goes on. Copy it to nbs/results/unseen.csv.
"""
import argparse, os, warnings
from pathlib import Path
import numpy as np
import pandas as pd
import torch
from pertnb.baselines import baseline_cells
from pertnb.board import fit_pcs
from pertnb.data import PertData, choose_genes, split_cells
from pertnb.datasets import known_datasets, simulate_screen
from pertnb.files import dense
from pertnb.generation import generate, modes
from pertnb.metrics import metrics
from pertnb.training import fit

columns = ['kinase','MAPK cascade','p38','transcription','chromatin','phosphatase','metabolism','cytoskeleton']
families = dict(BPGM='metabolism', CBL='', CEBPE='transcription', CNN1='cytoskeleton', FOXL2='transcription', FOXO4='transcription', HK2='kinase,metabolism', HOXB9='transcription',
                IER5L='', KLF1='transcription', KMT2A='chromatin,transcription', MAP2K3='kinase,MAPK cascade,p38', MAP2K6='kinase,MAPK cascade,p38', MAP3K21='kinase,MAPK cascade',
                MAP4K3='kinase,MAPK cascade', MAP4K5='kinase,MAPK cascade', MAPK1='kinase,MAPK cascade', MIDN='', NIT1='metabolism', PLK4='kinase', PTPN12='phosphatase',
                PTPN9='phosphatase', RUNX1T1='chromatin,transcription', SAMD1='chromatin', SET='chromatin', SGK1='kinase', SLC38A2='metabolism', TBX3='transcription', TGFBR2='kinase',
                TMSB4X='cytoskeleton', ZBTB10='transcription') # by hand, from what the genes are called and known for

def study(name, seed):
    "The cells of a study, with the features it is about"
    if name=='screen':
        a = simulate_screen(20, n_cells=100, seed=100+seed)
        return PertData(a, **known_datasets['demo'][1], features=a.uns['features'])
    table = pd.DataFrame([[float(c in f.split(',')) for c in columns] for f in families.values()], list(families), columns)
    if name=='norman-nothing': table = pd.DataFrame(np.random.default_rng(seed).normal(size=table.shape), table.index)
    path = Path(os.environ.get('PERTNB_DATA', '../shared/data'))/'norman19_mini.h5ad'
    return PertData(path, condition_key='condition', control='control', size_key='n_counts_all_genes', features=table)

def groups_of(cells, seed, size=5):
    "Single perturbations in random groups, and pairs of such, all in one group"
    known, parts = sorted(set(cells.condition)-{cells.conditions.control}), cells.conditions.parts
    singles = [k for k in known if len(parts(k))==1]
    pairs = [k for k in known if len(parts(k))==2 and set(parts(k))<=set(singles)]
    singles = list(np.random.default_rng(seed).permutation(singles))
    return [singles[i:i+size] for i in range(0, len(singles), size)] + ([pairs] if pairs else [])

def answers(cells, left, controls, half, targets, seed, only=None):
    "For a model trained on the mask `left`: (target, prediction, scores on the half, c)"
    train = cells[left].to_genes(choose_genes(cells[left]))
    model, _ = fit(train, seed=seed, progress=False)
    controls, (mean, axes) = controls.to_genes(train.genes), fit_pcs(train.to_adata())
    start = controls.x.toarray()
    def scores(predicted, real):
        for m in ('r','J50','E'):
            sets = [predicted, real, start]
            if metrics[m].space=='pcs': sets = [(o-mean)@axes for o in sets]
            yield m, metrics[m](*sets)
    for k in targets:
        real = cells[half & (cells.condition==k)].to_genes(train.genes).x.toarray()
        made = {f'mode {o}': dense(generate(model, controls, k, o, seed=seed, progress=False)) for o in (only or modes)}
        if not only: made |= {'control': start} | {n: dense(a) for n,a in baseline_cells(controls, k, train).items()}
        c = model.effects.amplitude(k)
        for name,x in made.items(): yield dict(perturbation=k, prediction='seen' if only else name, **dict(scores(x, real)), c=np.nan if only else c)

def run(name, seed, path):
    "All groups of a study that are not in the table yet"
    cells = study(name, seed)
    half, parts = split_cells(cells, .5, seed) & ~cells.is_control, cells.conditions.parts
    controls, groups = cells[cells.is_control], groups_of(cells, seed)
    done = pd.read_csv(path).query('study==@name and seed==@seed') if path.exists() else pd.DataFrame(columns=['perturbation','prediction'])
    def keep(rows):
        rows = pd.DataFrame(rows).assign(study=name, seed=seed)
        rows['pair'] = [len(parts(k))>1 for k in rows.perturbation]
        rows[['study','seed','perturbation','pair','prediction','r','J50','E','c']].round(5).to_csv(path, mode='a', header=not path.exists(), index=False)
        print(name, seed, rows.groupby('prediction').r.mean().round(3).to_dict(), flush=True)
    if 'seen' not in set(done.prediction): keep(answers(cells, ~half, controls, half, [k for g in groups for k in g], seed, only='C'))
    for group in groups:
        if set(group)<=set(done[done.prediction!='seen'].perturbation): continue
        single = [k for k in group if len(parts(k))==1]
        holds = lambda k: k in group or bool(set(parts(k)) & set(single))
        left = ~pd.Series(cells.condition).map({k: holds(k) for k in set(cells.condition)}).to_numpy(bool)
        keep(answers(cells, left, controls, half, group, seed))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out'); p.add_argument('--seeds', type=int, default=3); p.add_argument('--studies', default='screen,norman-families,norman-nothing')
    args = p.parse_args(); torch.set_num_threads(1); warnings.simplefilter('ignore')
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for name in args.studies.split(','): run(name, seed, Path(args.out)/'unseen.csv')

"""Several studies, each of their contexts held out in turn: are the modes ever worse than doing nothing, or than the best simple rule?

    PERTNB_DATA=../shared/data python bench/studies.py OUT [--seeds 3] [--studies kang,shared] [--part test] [--jobs 2]
    python bench/studies.py OUT --studies '' --file study.h5ad --condition-key perturbation --control ctrl --context-key cell_line

A fold is a study, a context and a seed: one training with the defaults of the command line, all perturbations of the context predicted in every
mode and by every rule, scored by r, J50 and E. Folds are added to OUT/folds.csv as they finish; a second call goes on from there.
OUT/studies.csv and OUT/studies.png show them; nbs/results/studies.csv, which evidence/studies shows, gets the studies that were run (not a --file).
"""
import argparse, functools, os, sys, time, warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
import numpy as np
import pandas as pd

results = Path(__file__).parents[1]/'nbs'/'results'
simulated = 'shared','specific','half','affine','none'
studies = 'kang','glioblastoma','glioblastoma-untyped','norman', *simulated
chose = 'B','CD16 Mono','NK','DC' # Kang's types on which settings were chosen; the other five chose nothing
first_test = 100                  # simulated studies of lower seeds are for choosing settings

# ---- the studies

@functools.lru_cache(2)
def study_cells(name, seed=0, file=()):
    "The cells; of a simulated study, those of a seed"
    from pertnb.data import PertData
    from pertnb.datasets import kang18, known_datasets, simulate_study
    folder = Path(os.environ.get('PERTNB_DATA', '../shared/data'))
    if name in simulated: return PertData(simulate_study(name, n_types=6, n_cells=60, seed=seed), **known_datasets['demo'][1])
    if name=='kang': return PertData(kang18(), **known_datasets['kang18'][1])
    if name=='norman': return PertData(folder/'norman19_mini.h5ad', condition_key='condition', control='control', size_key='n_counts_all_genes')
    if name.startswith('glioblastoma'):
        typed = {} if name.endswith('untyped') else dict(cell_type_key='patient_id')
        return PertData(folder/'glioblastoma_panobinostat.h5ad', condition_key='condition', control='ctrl', **typed)
    path, keys = file
    return PertData(path, **dict(keys))

def contexts(name, cells, column=None, least=40):
    "Each context to hold out: its name, how `Task.split` is told, the perturbations with enough cells in it and elsewhere"
    from pertnb.protocols import folds
    if name=='norman':
        for pair in (o['holdout'] for o in folds(cells, holdout='pairs').values()): yield pair, pair, (pair,)
        return
    n, control = pd.crosstab(cells.types if column is None else cells.obs[column].astype(str), cells.condition), cells.conditions.control
    for context in n.index[n[control]>=least]:
        here, elsewhere = n.loc[context].drop(control), n.drop(index=context).sum().drop(control)
        if len(targets := here.index[(here>=least) & (elsewhere>=least)]): yield context, context if column is None else f'{column}={context}', tuple(targets)

def part(study, context, seed):
    "Did this fold choose settings (selection), or not (test)? Studies that are not divided are 'all'"
    if study in simulated: return 'test' if seed>=first_test else 'selection'
    return ('selection' if context in chose else 'test') if study=='kang' else 'all'

def all_folds(names, seeds=1, file=(), column=None, least=40, most=None):
    "Arguments of `one_fold` for every fold"
    for name in names:
        own = () if name in studies else file
        cells = study_cells(name, 0, own)
        if cells.cell_type is not None or name=='norman': by = None
        else: by = 'patient_id' if name in studies else column
        held = list(contexts(name, cells, by, least))[:most]
        for seed in [*range(min(seeds, 2)), *range(first_test, first_test+seeds)] if name in simulated else range(seeds):
            yield from ((name, *o, seed, own) for o in held)

# ---- a fold

def predictions(task, model):
    "Name → its cells under a target, for all modes and rules"
    from pertnb.generation import generate, modes
    key, typed = task.train.keys['condition_key'], task.train.cell_type is not None
    def made(letter):
        more = dict(prior='type') if letter=='A' and typed else {}
        return lambda target: generate(model, task.controls, target, letter, seed=task.seed, progress=False, **more)
    res = {m.title+', by type'*(letter=='A' and typed): made(letter) for letter,m in modes.items()}
    for name,cells in task.baselines.items(): res[name] = lambda target, cells=cells: cells[cells.obs[key].astype(str)==target]
    return res

def one_fold(study, context, holdout, targets, seed, file):
    "A row for each target, prediction and metric"
    import torch; torch.set_num_threads(1); warnings.simplefilter('ignore')
    from pertnb.board import random_halves, standard_error
    from pertnb.files import dense
    from pertnb.metrics import metrics
    from pertnb.task import Task
    from pertnb.training import fit
    task, start = Task.split(study_cells(study, seed, file), targets, holdout, seed=seed), time.time()
    model, _ = fit(task.train, seed=seed, progress=False)
    fold, rows = dict(study=study, context=context, seed=seed), []
    rows.append(dict(fold, target='', prediction='training', metric='seconds', value=time.time()-start))
    (mean, axes), control = task.pcs, task.controls.x.toarray()
    def scores(cells, real, errors=True):
        for m in ('r','J50','E'):
            f, sets = metrics[m], [cells, real, control]
            if f.space=='pcs': sets = [(o-mean)@axes for o in sets]
            yield m, f(*sets), standard_error(f, sets) if m=='E' and errors else np.nan
    for target in targets:
        real = task.observed[task.observed.condition==target].x.toarray()
        add = lambda name, found: rows.extend(dict(fold, target=target, prediction=name, metric=m, value=v, error=e) for m,v,e in found)
        add('control', scores(control, real))
        for name,made in predictions(task, model).items():
            if len(cells := made(target)): add(name, scores(dense(cells), real))
        halves = pd.DataFrame(o for o in random_halves(len(real), lambda a, b: {m: v for m,v,_ in scores(real[a], real[b], False)}))
        add('ceiling', ((m, float(metrics[m].extrapolate(halves[m].mean())), halves[m].std()) for m in halves))
    return rows

def run(todo, path, jobs):
    "Folds in processes of one thread each; each is written as it finishes. How many failed"
    failed = 0
    with ProcessPoolExecutor(jobs, get_context('spawn')) as pool:
        started = {pool.submit(one_fold, *fold): fold for fold in todo}
        for i,done in enumerate(as_completed(started), 1):
            study, context, *_, seed, _ = started[done]
            try: pd.DataFrame(done.result()).round(5).to_csv(path, mode='a', header=not path.exists(), index=False,
                columns=['study','context','target','seed','prediction','metric','value','error'])
            except Exception as e: failed += 1; print(f'failed: {study} | {context} | {seed}: {type(e).__name__}: {e}', flush=True)
            else: print(f'{i}/{len(todo)} {study} | {context} | {seed}', flush=True)
    return failed

# ---- the table, the checks, the picture

def with_peers(rows):
    "Further predictions of the same Kang folds, where bench/peers has made them"
    path = results/'peers.csv'
    if not path.exists(): return rows
    peers = pd.read_csv(path).query("held_out!='cells'").rename(columns=dict(held_out='context', predictor='prediction'))
    peers = peers.melt(['context','prediction','seed'], ['r','J50','E'], 'metric').assign(study='kang', target='IFNB')
    there = rows[['study','context','seed']].drop_duplicates()
    return pd.concat([rows, peers.merge(there, on=['study','context','seed'])])

def kind(name):
    "What a prediction is: mode, rule, control, ceiling or peer"
    from pertnb.baselines import baselines
    if name in ('control','ceiling'): return name
    return 'mode' if name.startswith('mode ') else 'rule' if name in baselines else 'peer'

def paired(a, b, fresh=False):
    """Mean difference of folds and its standard error over contexts (seeds of the same cells are no further evidence; `fresh`: each seed
    has its own cells); of a single one, that of its cells"""
    d = (a.value-b.value).dropna()
    independent = d if fresh else d.groupby('context').mean()
    if len(independent)>1: return d.mean(), independent.sem()
    return d.mean(), float(np.hypot(a.error, b.error).loc[d.index].mean())

def summarise(rows):
    "A row per study, part and prediction: means over folds; E less that of the controls, and less that of the best rule"
    rows = rows[rows.metric.isin(['r','J50','E'])]
    rows = rows.assign(part=[part(*o) for o in rows[['study','context','seed']].to_numpy()])
    rows = pd.concat([rows, rows[rows.study=='kang'].assign(part='all')])
    errors = lambda e: np.sqrt((e**2).sum())/len(e) # of a mean over targets
    folds = rows.groupby(['study','part','prediction','metric','context','seed']).agg(value=('value','mean'), error=('error',errors))
    place, res = lambda o: (*studies, o).index(o), []
    for study,which in sorted(set(zip(rows.study, rows.part)), key=lambda o: (place(o[0]), *o)):
        d = folds.loc[study,which]
        E = {name: d.loc[name,'E'] for name in rows.prediction[(rows.study==study) & (rows.part==which)].unique()}
        n, control, noise = len(E['control']), E['control'].value.mean(), E['control'].error.mean()
        rules = [name for name in E if kind(name) in ('rule','control') and name!='resampled' and len(E[name])==n]
        best = min(rules, key=lambda name: E[name].value.mean())
        for name in E:
            (more, se), (behind, behind_se) = paired(E[name], E['control'], study in simulated), paired(E[name], E[best], study in simulated)
            r, J50 = (d.loc[name,m].value.mean() for m in ('r','J50'))
            relative = (E[name].value.mean()+noise)/(E['control'].value.reindex(E[name].index).mean()+noise)
            res.append(dict(study=study, part=which, prediction=name, kind=kind(name), folds=len(E[name]), r=r, J50=J50, E=E[name].value.mean(), noise=noise, relative=relative,
                            difference=more, difference_se=se, best_rule=best, behind=behind, behind_se=behind_se))
    return pd.DataFrame(res)

def checks(table):
    "(passed, sentence) of each: no mode worse than the untouched controls, mode C not worse than the best rule, by more than 2 standard errors"
    from pertnb.generation import modes
    for o in table[(table.kind=='mode') & (table.prediction!=modes['A'].title)].itertuples():
        says = lambda d, se, than: (d<=2*se, f'{o.study} ({o.part}): {o.prediction} against {than}: E {d:+.3f} ± {se:.3f}, {o.folds} folds')
        yield says(o.difference, o.difference_se, 'untouched controls')
        if o.prediction==modes['C'].title: yield says(o.behind, o.behind_se, f'the best rule, {o.best_rule}')

def to_show(table):
    "One column per study: its test folds, and Kang's selection beside them"
    tested = set(table.study[table.part=='test'])
    keep = (table.part!='all') | ~table.study.isin(tested|set(table.study[table.part=='selection']))
    keep &= ~((table.part=='selection') & table.study.isin(tested) & (table.study!='kang'))
    table = table[keep]
    name = [study if which=='all' else f'{study}\n({which})' for study,which in table[['study','part']].to_numpy()]
    return table.assign(column=pd.Categorical(name, list(dict.fromkeys(name))))

def draw(table, floor=.01):
    "E relative to that of the untouched controls, a column per study"
    import matplotlib.pyplot as plt
    from pertnb.generation import modes
    t, small, open_ones = to_show(table), iter('v^<>1234+xXPp*hH|_.'), iter(('#009E73','#CC79A7','#E69F00'))
    _, ax = plt.subplots(figsize=(2+.9*t.column.nunique(), 4), layout='constrained')
    def put(rows, off, **style): ax.scatter(rows.column.cat.codes+off, rows.relative.clip(lower=floor), **style)
    for i,m in enumerate(modes.values()): put(t[t.prediction.str.startswith(m.title)], .14*i-.14, color=m.color, marker=m.marker, s=45, zorder=4, label=m.title)
    for name in t.prediction[t.kind=='rule'].unique(): put(t[t.prediction==name], -.3, color='#999999', marker=next(small), s=22, label=name)
    for name in t.prediction[t.kind=='peer'].unique(): put(t[t.prediction==name], .3, facecolor='none', edgecolor=next(open_ones), marker='o', s=35, label=name)
    put(t[t.kind=='ceiling'], 0, color='k', marker='_', s=250, lw=.8, label='half of the real cells')
    ax.axhline(1, color='#999999', lw=1); ax.set(yscale='log', ylabel='E relative to untouched controls')
    ax.set_xticks(range(t.column.nunique()), [o.replace('-', '\n') for o in t.column.cat.categories], fontsize=8)
    ax.legend(frameon=False, fontsize=7, loc='upper left', bbox_to_anchor=(1,1))
    return ax

def show(table):
    "Prints the tables and the checks"
    t = to_show(table)
    order = t[~t.kind.eq('ceiling')].groupby('prediction').relative.mean().sort_values().index
    for what in ('relative','E','r','J50'):
        wide = t.pivot(index='prediction', columns='column', values=what).reindex([*order, 'ceiling'])
        print(f'\n{"E relative to untouched controls" if what=="relative" else what}\n'+wide.rename(columns=lambda o: o.replace('\n',' ')).round(3).to_string(na_rep=''))
    kang = table[(table.study=='kang') & (table.kind!='peer')]
    if len(kang): print('\nKang by part\n'+kang.pivot(index='prediction', columns='part', values=['E','r','J50']).round(3).to_string(na_rep=''))
    said = t.assign(said=[f'{d:+.3f} ± {se:.3f}' for d,se in t[['difference','difference_se']].to_numpy()])
    weak = said[said.column.isin(t.column[(t.prediction=='control') & (t.E<1)]) & (said.prediction!='control')]
    if len(weak): print('\nE less that of untouched controls, ± standard error over folds, where the effect is weak\n'+weak.pivot(index='prediction', columns='column', values='said').rename(columns=lambda o: o.replace('\n',' ')).to_string(na_rep=''))
    print()
    for passed,sentence in (found := list(checks(table))): print('PASS' if passed else 'FAIL', sentence)
    print(f'{sum(o for o,_ in found)} of {len(found)} pass')

def keep(table, path):
    "Put the table's studies into a CSV, in place of what it held of them"
    path.parent.mkdir(exist_ok=True)
    old = [pd.read_csv(path)] if path.exists() else []
    table = pd.concat([*(o[~o.study.isin(table.study)] for o in old), table])
    table.sort_values('study', key=lambda o: o.map(lambda name: studies.index(name)), kind='stable').round(5).to_csv(path, index=False)

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path); p.add_argument('--seeds', type=int, default=1); p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--studies', help='separated by commas', default=','.join(studies))
    p.add_argument('--part', choices=['selection','test'], help='only these folds of the studies that are divided')
    p.add_argument('--contexts', type=int, help='only so many of each study, for a trial')
    p.add_argument('--no-results', action='store_true', help='leave nbs/results/studies.csv as it is')
    f = p.add_argument_group('a study of your own'); f.add_argument('--file', type=Path)
    for o in ('condition-key','control','context-key','size-key','layer'): f.add_argument(f'--{o}')
    f.add_argument('--untyped', action='store_true', help='do not tell the model the context')
    f.add_argument('--least', type=int, default=40, help='cells of each kind that make a context')
    a = p.parse_args()
    a.names, a.own = [o for o in a.studies.split(',') if o], ()
    if unknown := [o for o in a.names if o not in studies]: p.error(f'unknown: {", ".join(unknown)}; there are: {", ".join(studies)}')
    if a.file:
        keys = dict(condition_key=a.condition_key, control=a.control, size_key=a.size_key, layer=a.layer, cell_type_key=None if a.untyped else a.context_key)
        a.own = a.file, tuple((k, v) for k,v in keys.items() if v is not None)
        a.names.append(a.file.stem+'-untyped'*a.untyped)
    return a

if __name__=='__main__':
    a, start = arguments(), time.time()
    a.out.mkdir(parents=True, exist_ok=True); path = a.out/'folds.csv'
    for o in ('OMP_NUM_THREADS','MKL_NUM_THREADS','OPENBLAS_NUM_THREADS'): os.environ[o] = '1' # of the processes to come
    done = set() if not path.exists() else set(map(tuple, pd.read_csv(path, dtype=str)[['study','context','seed']].drop_duplicates().to_numpy()))
    wanted = lambda fold: not a.part or part(fold[0], fold[1], fold[4]) in ('all', a.part)
    todo = [o for o in all_folds(a.names, a.seeds, a.own, a.context_key, a.least, a.contexts) if wanted(o) and (o[0], o[1], str(o[4])) not in done]
    failed = run(todo, path, a.jobs) if todo else 0
    rows = pd.read_csv(path, dtype=dict(context=str, target=str))
    table = summarise(with_peers(rows))
    table.round(5).to_csv(a.out/'studies.csv', index=False)
    show(table)
    draw(table).figure.savefig(a.out/'studies.png', dpi=150)
    if not a.no_results: keep(table[table.study.isin([o for o in a.names if o in studies])], results/'studies.csv')
    seconds = rows[rows.metric=='seconds'].groupby('study', sort=False).value.mean()
    print(f'\nseconds of a training: {", ".join(f"{k} {v:.1f}" for k,v in seconds.items())}\n{len(todo)} folds, {time.time()-start:.0f} s')
    sys.exit(bool(failed))

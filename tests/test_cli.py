"The command, as a user meets it: what it writes, and how it refuses."
import subprocess, sys
from pathlib import Path
from threading import Thread
import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from child import command, command_without_figures, in_process
from click.testing import CliRunner
from pertnb.datasets import demo
from pertnb.cli import main

keys = ['--condition-key', 'condition', '--cell-type-key', 'cell_type', '--target', 'IFNB']
quick = ['--epochs', '2', '--n-genes', '100', '--embedding', 'pca']

def study(**kw):
    a = demo(800, **kw)
    del a.varm['true_mean'], a.uns['demo']
    return a

def dense(a, change):
    a.X = a.X.toarray(); change(a.X)
    return a

def put(value):
    def f(X): X[3,7] = value
    return f

def no_counts(X): X[5] = 0

def names(a, axis, new):
    n = list(getattr(a, axis)); n[1] = new(n); setattr(a, axis, n)
    return a

def only(a, **kw):
    for k,v in kw.items(): a = a[a.obs[k].isin(v)]
    return a.copy()

def rare(a): return a[~((a.obs.condition=='drugA') & (np.arange(a.n_obs)>20))].copy()
def unlabelled(a):
    a.obs['condition'] = a.obs.condition.astype(object); a.obs.iloc[3, 0] = np.nan
    return a
def logged(a):
    a.X = a.X.log1p()
    return a

# what is wrong: (how to make it, further arguments, a word that the message must hold)
broken = {
    'missing key':           (lambda a: a, ['--condition-key', 'conditions'], "'condition'"),
    'missing cell type key': (lambda a: a, ['--cell-type-key', 'celltype'], "'cell_type'"),
    'no key given':          (lambda a: a, None, 'condition'),
    'absent control':        (lambda a: a, ['--control', 'ctrl'], "'control'"),
    'absent target':         (lambda a: a, ['--target', 'IFN'], "'IFNB'"),
    'absent layer':          (lambda a: a, ['--layer', 'counts'], 'layer'),
    'absent holdout':        (lambda a: a, ['--holdout', 'CD14'], "'CD14 Mono'"),
    'unknown likelihood':    (lambda a: a, ['--likelihood', 'zinb'], 'gaussian'),
    'NaN':                   (lambda a: dense(a, put(np.nan)), [], 'NaN'),
    'infinite':              (lambda a: dense(a, put(np.inf)), [], 'infinite'),
    'negative':              (lambda a: dense(a, put(-1)), [], 'negative'),
    'not integers':          (lambda a: dense(a, put(99.5)), [], 'non-integers'),
    'log values for nb':     (logged, [], 'counts'),
    'empty cell':            (lambda a: dense(a, no_counts), [], 'no counts'),
    'no genes':              (lambda a: a[:, :0].copy(), [], 'empty'),
    'no cells':              (lambda a: a[:0].copy(), [], 'empty'),
    'gene twice':            (lambda a: names(a, 'var_names', lambda n: n[0]), [], 'Duplicate gene'),
    'cell twice':            (lambda a: names(a, 'obs_names', lambda n: n[0]), [], 'Duplicate cell'),
    'rare condition':        (rare, [], 'fewer than 10'),
    'unlabelled cell':       (unlabelled, [], 'no condition'),
    'one type, held out':    (lambda a: only(a, cell_type=['B']), ['--holdout', 'B'], 'only one cell type'),
    'only controls':         (lambda a: only(a, condition=['control']), [], 'no perturbation'),
}

def refused(args, word, tmp_path):
    "One line, exit code 1, nothing written"
    before = sorted(tmp_path.iterdir())
    res = CliRunner().invoke(main, ['run', *map(str, args), '--out', str(tmp_path/'out')])
    assert res.exit_code == 1 and res.output.startswith('Error: '), res.output
    assert res.output.count('\n') == 1 and word in res.output, res.output
    assert sorted(tmp_path.iterdir()) == before

@pytest.mark.parametrize('what', broken)
@pytest.mark.filterwarnings('ignore')
def test_bad_input_is_refused_in_one_line(what, tmp_path):
    make, more, word = broken[what]
    make(study()).write_h5ad(tmp_path/'bad.h5ad')
    refused([tmp_path/'bad.h5ad', *([] if more is None else [*keys, *quick, *more])], word, tmp_path)

def test_bad_files_are_refused_in_one_line(tmp_path):
    (tmp_path/'text.h5ad').write_text('no cells here')
    study().write_h5ad(tmp_path/'whole.h5ad')
    raw = (tmp_path/'whole.h5ad').read_bytes()
    (tmp_path/'cut.h5ad').write_bytes(raw[:len(raw)*2//3])
    refused([tmp_path/'absent.h5ad', *keys], 'no file', tmp_path)
    refused([tmp_path/'text.h5ad', *keys], 'not an h5ad', tmp_path)
    refused([tmp_path/'cut.h5ad', *keys], 'cut.h5ad', tmp_path)

def test_a_run_writes_everything_and_is_not_overwritten(tmp_path):
    study().write_h5ad(tmp_path/'my.h5ad')
    out = tmp_path/'out'
    args = ['run', str(tmp_path/'my.h5ad'), *keys, *quick, '--size-key', 'total_counts', '--out', str(out), '--verbose']
    def call(*more): return CliRunner().invoke(main, [*args, *more])
    first = subprocess.run([Path(sys.executable).parent/'pertnb', *args], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stderr == '' and '\r' not in first.stdout # quiet when nobody is looking: in a pipe, no progress
    assert 'mode B · counterfactual' in first.stdout and 'latent dimensions are active' in first.stdout
    assert {o.name for o in out.iterdir()} >= {'predictions.h5ad','real.h5ad','scoreboard.csv','three_panel.png','three_panel.svg','history.csv','model'}
    board = pd.read_csv(out/'scoreboard.csv')
    assert list(board.columns[:4]) == ['prediction','cell_type','metric','value'] and {'low','high','null','ceiling','calibrated'} <= set(board.columns)
    assert set(board.prediction) >= {'mode A · prior','mode B · counterfactual','control','mean shift','nearest type','resampled','sham · mode B asked for control','ceiling'}
    pred, real = ad.read_h5ad(out/'predictions.h5ad'), ad.read_h5ad(out/'real.h5ad')
    started_from, pred = pred[pred.obs['mode'].isna()], pred[pred.obs['mode'].notna()]
    assert set(pred.obs['mode']) == {'A','B','C'} and set(pred.obs.condition) == {'IFNB'} and set(real.obs.condition) == {'control','IFNB'}
    assert set(started_from.obs.condition) == {'control'} and set(started_from.obs_names) <= set(real.obs_names)
    assert list(pred.var_names) == list(real.var_names) and pred.layers['counts'].dtype.kind == 'i'
    size = pred.obs.library_size.to_numpy()[:,None]
    assert np.allclose(pred.X.toarray(), np.log1p(pred.layers['counts'].toarray()/size*1e4), atol=1e-4)
    stamp = (out/'scoreboard.csv').stat().st_mtime_ns
    again = call()
    assert again.exit_code == 1 and 'force' in again.stderr and (out/'scoreboard.csv').stat().st_mtime_ns == stamp
    assert in_process(command_without_figures, *args, '--force', '--seed', '1')[0] == 0 and (out/'scoreboard.csv').stat().st_mtime_ns != stamp
    assert sorted(o.name for o in tmp_path.iterdir()) == ['my.h5ad','out']

def test_somebody_elses_folder_is_never_replaced(tmp_path):
    (tmp_path/'out').mkdir(); (tmp_path/'out'/'thesis.txt').write_text('years of work')
    refused(['demo', '--force'], 'not a folder written by pertnb', tmp_path)
    assert (tmp_path/'out'/'thesis.txt').exists()

def test_log_values_and_pairs(tmp_path):
    a = study()
    per = sp.diags(1e4/a.obs.total_counts.to_numpy())
    a.X = sp.csr_matrix(per @ a.X).log1p().astype(np.float32)
    a.write_h5ad(tmp_path/'log.h5ad')
    args = ['run', str(tmp_path/'log.h5ad'), '--condition-key', 'condition', '--target', 'IFNB+drugA', '--likelihood', 'gaussian', *quick, '--out', str(tmp_path/'out')]
    res = CliRunner().invoke(main, args)
    assert res.exit_code == 0, res.output
    pred = ad.read_h5ad(tmp_path/'out'/'predictions.h5ad')
    assert 'counts' not in pred.layers and set(pred.obs.condition) == {'IFNB+drugA', 'control'} and pred.X.min() >= 0

def test_version_and_help():
    assert 'version' in CliRunner().invoke(main, ['--version']).output
    assert '--holdout' in CliRunner().invoke(main, ['run', '--help']).output

def test_a_protocol_refuses_before_it_starts_and_says_why_a_fold_failed(tmp_path):
    refused(['demo', '--holdout', 'each', '--target', 'nothing'], "'nothing'", tmp_path)
    refused(['demo', '--holdout', 'pairs', '--likelihood', 'zinb'], 'likelihood', tmp_path)
    a = study(); a.obs['cell_type'] = 'B'; a.write_h5ad(tmp_path/'one.h5ad')
    refused([tmp_path/'one.h5ad', *keys, '--holdout', 'each'], 'too few to leave out', tmp_path)
    (tmp_path/'out').mkdir(); (tmp_path/'out'/'thesis.txt').write_text('years of work')
    res = CliRunner().invoke(main, ['run', 'demo', '--holdout', 'pairs', '--out', str(tmp_path/'out')])
    assert res.exit_code == 1 and 'thesis.txt' in res.output

def test_seeds_and_resuming(tmp_path, warm_folds):
    study().write_h5ad(tmp_path/'my.h5ad')
    args = ['run', str(tmp_path/'my.h5ad'), *keys, *quick, '--seeds', '2', '--out', str(tmp_path/'out')]
    first = CliRunner().invoke(main, args)
    assert first.exit_code == 0, first.output
    assert 'Mean over 2 folds' in first.output and len(first.output.split('\n\n')[-1].splitlines())<=11 and 'zeros off' not in first.output
    whole = CliRunner().invoke(main, [*args, '--verbose']).output
    assert 'sd over seeds' in whole and 'zeros off' in whole and whole.count('mode C')>=3
    assert {'cells-seed0','cells-seed1','summary.csv','scoreboards.csv','report.html','folds.png','folds.svg'} == {o.name for o in (tmp_path/'out').iterdir()}
    stamp = (tmp_path/'out'/'cells-seed0'/'run.json').stat().st_mtime_ns
    assert CliRunner().invoke(main, args).output == first.output and (tmp_path/'out'/'cells-seed0'/'run.json').stat().st_mtime_ns == stamp
    other = CliRunner().invoke(main, [*args, '--n-latent', '3'])
    assert other.exit_code == 1 and 'n_latent: 10, now 3' in other.output

# other people's predictions: (how to make the file, further arguments, a word that the message must hold)
flawed = {
    'missing genes':      (lambda a: a[:, 5:].copy(), [], '5 of'),
    'unknown condition':  (lambda a: a.obs.assign(condition='IFNb'), [], "'IFNB'"),
    'only controls':      (lambda a: a.obs.assign(condition='control'), [], 'hold only'),
    'negative':           (lambda a: dense(a, put(-1)), [], 'negative'),
    'NaN':                (lambda a: dense(a, put(np.nan)), [], 'NaN'),
    'no such column':     (lambda a: a, ['--condition-key', 'pert'], "'pert'"),
    'no such control':    (lambda a: a, ['--control', 'ctrl'], "'control'"),
}

@pytest.mark.parametrize('what', flawed)
@pytest.mark.filterwarnings('ignore')
def test_flawed_predictions_are_refused_in_one_line(what, tmp_path):
    make, more, word = flawed[what]
    real = only(study(), condition=['control','IFNB'])
    pred = only(real, condition=['IFNB']); made = make(pred)
    if isinstance(made, pd.DataFrame): pred.obs = made
    else: pred = made
    real.write_h5ad(tmp_path/'real.h5ad'); pred.write_h5ad(tmp_path/'pred.h5ad')
    res = CliRunner().invoke(main, ['score', str(tmp_path/'pred.h5ad'), str(tmp_path/'real.h5ad'), '--condition-key', 'condition', '--out', str(tmp_path/'b.csv'), *more])
    assert res.exit_code == 1 and res.output.count('\n') == 1 and word in res.output, res.output
    assert not (tmp_path/'b.csv').exists()

def test_score_takes_counts_or_log_values_in_any_gene_order(tmp_path):
    a = only(study(), condition=['control','IFNB'])
    real, pred = a[::2].copy(), only(a[1::2], condition=['IFNB'])
    per = sp.diags(1e4/np.asarray(pred.X.sum(1)).ravel())
    logged_ = pred.copy(); logged_.X = sp.csr_matrix(per @ pred.X).log1p(); logged_ = logged_[:, ::-1].copy()
    del real.obs['total_counts'], pred.obs['total_counts']
    real.write_h5ad(tmp_path/'real.h5ad'); boards = []
    for k,p in dict(counts=pred, log=logged_).items():
        p.write_h5ad(tmp_path/f'{k}.h5ad')
        res = CliRunner().invoke(main, ['score', str(tmp_path/f'{k}.h5ad'), str(tmp_path/'real.h5ad'), '--condition-key', 'condition', '--cell-type-key', 'cell_type', '--out', str(tmp_path/f'{k}.csv'), '--verbose'])
        assert res.exit_code == 0, res.output
        boards.append(pd.read_csv(tmp_path/f'{k}.csv'))
    assert np.allclose(boards[0].value.fillna(-9), boards[1].value.fillna(-9), atol=1e-3)
    assert 'r vs mean: there is only one perturbation' in res.output

def test_completion():
    import os
    env = os.environ | dict(_PERTNB_COMPLETE='bash_complete', COMP_WORDS='pertnb in', COMP_CWORD='1')
    assert subprocess.run([sys.executable, '-c', "from pertnb.cli import main; main(prog_name='pertnb')"], env=env, capture_output=True, text=True).stdout=='plain,inspect\n'

def test_progress_in_a_terminal(tmp_path):
    import os, pty, re, termios
    study().write_h5ad(tmp_path/'cells.h5ad')
    ours, theirs = pty.openpty(); termios.tcsetwinsize(theirs, (24, 100))
    shown = []
    def read():
        try:
            while part := os.read(ours, 4096): shown.append(part)
        except OSError: pass # the other end is closed
    reader = Thread(target=read); reader.start()
    code, *_ = in_process(command, 'run', tmp_path/'cells.h5ad', *keys, *quick, '--size-key', 'total_counts', '--out', tmp_path/'b', err=os.ttyname(theirs))
    os.close(theirs); reader.join(); os.close(ours)
    shown = b''.join(shown).decode(errors='replace')
    assert code==0 and 'training' in shown and 'scoring IFNB' in shown and 'nan' not in shown and re.search(r'\d\d:\d\d<\d\d:\d\d', shown) # elapsed < left

"Independent judges agree with our scoreboard: cell-eval, cell-eval2 and dcor, in an environment of their own."
import hashlib, json, os, shutil, subprocess, sys
from pathlib import Path
import anndata as ad
import child
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from pertnb.judge import load_for_scoring, score
from pertnb.board import fit_pcs
from pertnb.datasets import demo

required = bool(os.environ.get('PERTNB_JUDGES')) # set in CI: there, judges that cannot be installed are a failure

keys = ['--condition-key', 'condition', '--cell-type-key', 'cell_type', '--size-key', 'total_counts']
lock = Path(__file__).parent/'judges.txt'

def uv(*args): return subprocess.run([sys.executable, '-m', 'uv', *map(str, args)], capture_output=True, text=True)

@pytest.fixture(scope='session')
def judges():
    "A Python that has the judges: made once for a lock file and a version of Python, and kept in the user's cache"
    key = hashlib.sha256(lock.read_bytes()+sys.version.encode()).hexdigest()[:16]
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache')/'pertnb'/f'judges-{key}'
    python = folder/'bin'/'python'
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        if (folder/'complete').exists() and python.exists(): return python
        shutil.rmtree(folder, ignore_errors=True)
        done = uv('venv', '-q', '--python', sys.executable, folder)
        if not done.returncode: done = uv('pip', 'install', '-q', '--python', python, '-r', lock)
        if done.returncode and not required: pytest.skip('the judges cannot be installed here: '+(done.stderr.strip() or '?').splitlines()[-1])
        assert done.returncode == 0, done.stderr
        (folder/'complete').touch()
    return python

# Their imports and their compilers take longer than their work: one process does it all, a request a line.
serving = """
import contextlib, io, json, runpy, sys, traceback
for request in map(json.loads, sys.stdin):
    code, out, err, args = 0, io.StringIO(), io.StringIO(), request['args']
    sys.argv = [request.get('program', '-c'), *args]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if 'code' in request: exec(request['code'], {})
            elif 'module' in request: runpy.run_module(request['module'], run_name='__main__')
            else: runpy.run_path(request['program'], run_name='__main__')
        except SystemExit as e: code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException: code = 1; traceback.print_exc()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""

@pytest.fixture(scope='module')
def ask(judges, tmp_path_factory):
    "A function that has the judges' process run a program, a module or some code with these arguments; what it printed"
    with open(tmp_path_factory.mktemp('judges')/'err', 'w') as err, subprocess.Popen([judges, '-c', serving], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True) as process:
        def run(*args, **what):
            print(json.dumps(dict(what, args=list(map(str, args)))), file=process.stdin, flush=True)
            code, out, wrong = json.loads(process.stdout.readline())
            assert code==0, wrong[-3000:]
            return out
        yield run
        process.stdin.close(); process.wait()

@pytest.fixture(scope='module')
def screen(tmp_path_factory):
    "The folder of a run of all targets, and beside it the same with each prediction under the next one's name"
    d = tmp_path_factory.mktemp('screen')
    demo(1500).write_h5ad(d/'cells.h5ad')
    failed, _, err = child.in_process(child.command_without_figures, 'run', d/'cells.h5ad', *keys, '--target', 'all', '--epochs', '3', '--n-genes', '200', '--embedding', 'pca', '--out', d/'right')
    assert not failed, err
    (d/'wrong').mkdir()
    a = ad.read_h5ad(d/'right'/'predictions.h5ad')
    names = sorted(set(a.obs.condition)-{'control'}); following = dict(zip(names, names[1:]+names[:1]))
    a.obs['condition'] = a.obs.condition.astype(str).replace(following).astype('category')
    a.write_h5ad(d/'wrong'/'predictions.h5ad')
    return d, names

def judged(pred, real):
    "Our values per perturbation, all modes as one prediction, as the others see them"
    board = score(pred, real, 'condition', by='nothing', progress=False)
    board = board[(board.prediction=='prediction') & (board.cell_type=='all') & (board.condition!='mean')]
    return board.pivot(index='condition', columns='metric', values='value')

def agree(ours, theirs, r, discrimination):
    for k,name in dict(r=r, discrimination=discrimination).items(): np.testing.assert_allclose(ours[k], theirs.loc[ours.index, name], rtol=0, atol=1e-6, err_msg=k)

def cell_eval(ask, pred, real, out):
    "Its scores per perturbation"
    ask('run', '-ap', pred, '-ar', real, '--pert-col', 'condition', '--control-pert', 'control', '--num-threads', '1', '--profile', 'minimal', '-o', out, module='cell_eval')
    return pd.read_csv(Path(out)/'results.csv').set_index('perturbation')

def test_cell_eval_takes_our_predictions_as_they_are_and_agrees(ask, saved_run, tmp_path):
    pred, real = (saved_run[1]/f'{o}.h5ad' for o in ('predictions','real'))
    theirs = cell_eval(ask, pred, real, tmp_path/'judged')
    ours = score(pred, real, 'condition', by='nothing') # both modes as one prediction, as cell-eval sees them
    r = ours[(ours.metric=='r') & (ours.prediction=='prediction')].value.item()
    assert abs(r-theirs.loc['IFNB','pearson_delta']) < 1e-6

@pytest.mark.parametrize('labels', ['right', 'wrong'])
def test_cell_eval_takes_a_screen_as_it_is_and_agrees(ask, screen, labels, tmp_path):
    d, names = screen
    pred, real = d/labels/'predictions.h5ad', d/'right'/'real.h5ad'
    ours, theirs = judged(pred, real), cell_eval(ask, pred, real, tmp_path)
    assert list(ours.index)==names and (ours.discrimination.eq(1).all() if labels=='right' else ours.discrimination.lt(1).any())
    agree(ours, theirs, 'pearson_delta', 'discrimination_score_l1')

def cell_eval2(ask, judges, pred, real, out, *more):
    "Its scores per perturbation; ranks among all perturbations, as cell-eval counts them"
    options = ['discrimination.rank_denominator=n', 'num_threads=1', 'device=cpu', 'control_source=real']
    ask('run', '-ap', pred, '-ar', real, '--pert-col', 'condition', '--control', 'control', '--no-target-genes', '--profile', 'anndata', '-o', out,
        *more, *(word for o in options for word in ('--set', o)), program=str(judges.parent/'cell-eval2'))
    return pd.read_csv(Path(out)/'results.csv').pivot(index='perturbation', columns='metric', values='value')

@pytest.mark.parametrize('labels', ['right', 'wrong'])
def test_cell_eval2_takes_a_screen_as_it_is_and_agrees(ask, judges, screen, labels, tmp_path):
    pred, real = screen[0]/labels/'predictions.h5ad', screen[0]/'right'/'real.h5ad'
    agree(judged(pred, real), cell_eval2(ask, judges, pred, real, tmp_path, '--input-type', 'lognorm'), 'delta_pearson', 'pds_l1')

@pytest.mark.parametrize('labels', ['right', 'wrong'])
def test_cell_eval2_agrees_on_counts(ask, judges, screen, labels, tmp_path):
    "Counts in: at our scale, log1p(1e4) of each cell, both agree; its own default, log1p of 5e4 of summed cells, is another number, and takes our counts, too"
    files = {'pred': screen[0]/labels/'predictions.h5ad', 'real': screen[0]/'right'/'real.h5ad'}
    for name,path in files.items():
        a = ad.read_h5ad(path)
        ad.AnnData(a.layers['counts'], a.obs[['condition']], a.var[[]]).write_h5ad(tmp_path/f'{name}.h5ad')
    pred, real = (tmp_path/f'{name}.h5ad' for name in files)
    theirs = cell_eval2(ask, judges, pred, real, tmp_path/'cells', '--input-type', 'counts', '--version', 'v1', '--set', 'target_sum=10000', '--set', 'allow_discrete=true')
    agree(ours := judged(pred, real), theirs, 'pearson_delta', 'discrimination_score_l1')
    sums = cell_eval2(ask, judges, pred, real, tmp_path/'sums', '--input-type', 'counts')
    assert list(sums.index)==list(ours.index) and sums.delta_pearson.notna().all()

def test_cell_eval_agrees_on_several_perturbations(ask, tmp_path):
    a = demo(1500); del a.varm['true_mean'], a.uns['demo']
    x, *_ = load_for_scoring(a, 'condition', size_key='total_counts')
    x.obs['condition'] = x.obs.condition.astype(str).str.replace('IFNB+drugA', 'both', regex=False).astype('category')
    real, pred = x[::2].copy(), x[1::2].copy()
    pred = ad.concat([pred[pred.obs.condition!='control'], real[real.obs.condition=='control']])
    real.write_h5ad(tmp_path/'real.h5ad'); pred.write_h5ad(tmp_path/'pred.h5ad')
    theirs = cell_eval(ask, tmp_path/'pred.h5ad', tmp_path/'real.h5ad', tmp_path/'judged')
    board = score(tmp_path/'pred.h5ad', tmp_path/'real.h5ad', 'condition')
    ours = board[board.prediction=='prediction'].pivot_table(index='condition', columns='metric', values='value')
    for p in ('IFNB','drugA','drugB','both'):
        assert abs(ours.loc[p,'r']-theirs.loc[p,'pearson_delta']) < 1e-6
        assert abs(ours.loc[p,'discrimination']-theirs.loc[p,'discrimination_score_l1']) < 1e-6

def test_dcor_agrees_on_the_energy_distance(judges, tmp_path):
    from pertnb.metrics import energy_distance
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(120,10)), rng.normal(.5, 1, (80,10))
    np.savez(tmp_path/'x.npz', a=a, b=b)
    code = ("import sys, json, numpy as np, dcor; d = np.load(sys.argv[1]); a, b = d['a'], d['b']; m = lambda x,y: dcor.distances.pairwise_distances(x, y);"
            "u = dcor.energy_distance(a, b, estimation_stat='U_STATISTIC'); print(json.dumps([float(u)]))")
    done = subprocess.run([judges, '-c', code, tmp_path/'x.npz'], capture_output=True, text=True, env=os.environ|dict(NUMBA_DISABLE_JIT='1')) # it compiles 8 s long what this does not need
    assert done.returncode == 0, done.stderr
    assert abs(json.loads(done.stdout)[0]-energy_distance(a, b, None)) < 1e-6

def test_cell_eval_agrees_on_differential_expression(ask, tmp_path):
    "Its definitions of overlap, direction and Spearman, on our tables"
    from pertnb.tables import de_agreement
    rng = np.random.default_rng(0)
    def table(noise):
        lfc = effect + rng.normal(0, noise, effect.shape)
        rows = pd.DataFrame(lfc, ['T1','T2'], genes).stack().rename_axis(['target','names']).rename('logfoldchanges').reset_index()
        p = np.exp(-2*rows.logfoldchanges.abs())*rng.random(len(rows))
        return rows.assign(cell_type='all', pvals=p, pvals_adj=p)
    genes, effect = [f'g{i}' for i in range(80)], rng.normal(0, 1, (2,80))
    pred, real = table(.7), table(.3)
    for name,t in dict(pred=pred, real=real).items(): t.rename(columns=dict(names='feature', pvals='p_value', pvals_adj='fdr')).assign(fold_change=2**t.logfoldchanges, log2_fold_change=t.logfoldchanges, abs_log2_fold_change=t.logfoldchanges.abs()).to_csv(tmp_path/f'{name}.csv', index=False)
    code = ("import sys, json, polars as pl; from cell_eval._types import initialize_de_comparison; from cell_eval.metrics._de import DEDirectionMatch, DESpearmanLFC;"
            "real, pred = (pl.read_csv(f'{sys.argv[1]}/{k}.csv') for k in ('real','pred')); d = initialize_de_comparison(real, pred);"
            "print(json.dumps([d.compute_overlap(k=10, metric='overlap', fdr_threshold=.05), DEDirectionMatch()(d), DESpearmanLFC()(d)]))")
    said = ask(tmp_path, code=code)
    ours = de_agreement(pred, real, k=10).set_index('target')
    assert (ours.significant_real>10).all() and ours.overlap.between(.1, .95).all() and ours.spearman.lt(.999).all() # it could fail
    for column,theirs in zip(('overlap','sign','spearman'), json.loads(said)):
        for t in ours.index: assert abs(ours.loc[t,column]-theirs[t]) < 1e-5, column

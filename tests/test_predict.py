"A trained model on somebody else's control cells, and a run opened again: as a new user does both."
import json, os
import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import InputError, Note
from pertnb.data import PertData, choose_genes
from pertnb.datasets import demo
from pertnb.generation import generate
from pertnb.run import Run
from pertnb.saving import load_model, save_model
from pertnb.speedrun import predict
from pertnb.training import fit

def call(*args): return CliRunner().invoke(main, [str(o) for o in args])

def controls(seed=5):
    "Another study's control cells, with the model's columns"
    a = demo(600, seed=seed)
    a = a[a.obs.condition=='control'].copy()
    del a.varm['true_mean'], a.uns['demo']
    return a

@pytest.fixture(scope='module')
def study(saved_run, tmp_path_factory):
    "A saved run, a file of control cells, and what generate makes of them"
    _, out = saved_run
    folder = tmp_path_factory.mktemp('theirs')
    controls().write_h5ad(folder/'controls.h5ad')
    return out, folder/'controls.h5ad', generate(load_model(out/'model'), folder/'controls.h5ad', 'IFNB', progress=False)

def same(a, b):
    assert list(a.obs_names)==list(b.obs_names) and list(a.var_names)==list(b.var_names)
    assert (a.X!=b.X).nnz==0 and (a.layers['counts']!=b.layers['counts']).nnz==0
    pd.testing.assert_frame_equal(a.obs, b.obs, check_categorical=False)

@pytest.mark.parametrize('more', [[], ['--backed']])
@pytest.mark.parametrize('model', ['', 'model'])
def test_from_a_demo_to_predicted_cells(study, model, more, tmp_path):
    out, file, expected = study
    res = call('predict', out/model, file, '--target', 'IFNB', '--out', tmp_path/'p.h5ad', *more)
    assert res.exit_code==0, res.output
    same(ad.read_h5ad(tmp_path/'p.h5ad'), expected)
    assert f'IFNB ({len(expected)})' in res.output and 'mode B' in res.output
    assert os.listdir(tmp_path)==['p.h5ad']

def test_the_options_reach_generate(study, tmp_path):
    out, file, _ = study
    args = ['--target', 'IFNB', '--mode', 'A', '--prior', 'type', '--n', 70, '--seed', 3, '--shrinkage', .5]
    assert call('predict', out, file, *args, '--out', tmp_path/'p.h5ad').exit_code==0
    same(ad.read_h5ad(tmp_path/'p.h5ad'), generate(load_model(out/'model'), file, 'IFNB', 'A', 70, 3, 'type', .5, progress=False))

def test_several_targets_are_one_file(study, tmp_path):
    out, file, expected = study
    assert call('predict', out, file, '--target', 'drugA, IFNB', '--out', tmp_path/'p.h5ad').exit_code==0
    both = ad.read_h5ad(tmp_path/'p.h5ad')
    assert both.obs.condition.value_counts().to_dict()=={'IFNB': len(expected), 'drugA': len(expected)} and both.obs_names.is_unique
    same(both[both.obs.condition=='IFNB'], expected)
    same(both, predict(out, file, ['drugA','IFNB'], progress=False))

def test_missing_genes_are_named_or_taken_as_zero(study, tmp_path):
    out, file, expected = study
    a, genes = ad.read_h5ad(file), load_model(out/'model').genes
    a[:, [g for g in a.var_names if g not in genes[3:5]]].copy().write_h5ad(tmp_path/'less.h5ad')
    command = ['predict', out, tmp_path/'less.h5ad', '--target', 'IFNB', '--out', tmp_path/'p.h5ad', '--mode', 'C']
    res = call(*command)
    assert res.exit_code==1 and f'2 of {len(genes)} genes' in res.output and genes[3] in res.output and '--missing-genes' in res.output
    assert call(*command, '--missing-genes', .001).exit_code==1 and os.listdir(tmp_path)==['less.h5ad']
    allowed = call(*command, '--missing-genes', .01)
    assert allowed.exit_code==0 and 'Note: ' in allowed.output and genes[4] in allowed.output
    zero = a.copy(); zero.X = sp.csr_matrix(a.X.toarray()*~a.var_names.isin(genes[3:5]))
    same(ad.read_h5ad(tmp_path/'p.h5ad'), generate(load_model(out/'model'), zero, 'IFNB', 'C', progress=False))
    assert call(*command[:-4], '--out', tmp_path/'q.h5ad', '--mode', 'C', '--missing-genes', .01, '--backed').exit_code==0
    same(ad.read_h5ad(tmp_path/'q.h5ad'), ad.read_h5ad(tmp_path/'p.h5ad'))

def test_library_sizes_that_are_sums_over_missing_genes(tmp_path):
    a = demo(600); data = PertData(a, 'condition', cell_type_key='cell_type')
    model, _ = fit(data.to_genes(choose_genes(data, 50)), epochs=1, progress=False)
    other = [g for g in a.var_names if g not in model.genes]
    few = controls()[:, [g for g in a.var_names if g!=other[0]]].copy()
    with pytest.raises(InputError, match=f"1 of 1000 genes that the model's library sizes are sums over.*{other[0]}"): predict(model, few, 'IFNB')
    with pytest.warns(Note, match='taken as zero'): res = predict(model, few, 'IFNB', missing_genes=.01, progress=False)
    assert np.allclose(res.obs.library_size, few.X.sum(1).A1)

def test_controls_alone_need_no_condition_column(study, tmp_path):
    out, file, expected = study
    a = ad.read_h5ad(file); del a.obs['condition']; a.write_h5ad(tmp_path/'c.h5ad')
    for more in ([], ['--backed']):
        res = call('predict', out, tmp_path/'c.h5ad', '--target', 'IFNB', '--out', tmp_path/'p.h5ad', '--force', *more)
        assert res.exit_code==0 and 'taken to be control' in res.output, res.output
        same(ad.read_h5ad(tmp_path/'p.h5ad'), expected)

def test_other_names_other_cells_other_depth(study, tmp_path):
    "Columns and labels of their own, treated cells among them, a type never seen, half the depth"
    out, _, _ = study
    a = demo(600, seed=5); a.X = sp.csr_matrix(np.floor(a.X.toarray()/2))
    a.obs['given'] = a.obs.condition.astype(str).replace('control', 'PBS'); a.obs['kind'] = a.obs.cell_type.astype(str).replace('NK', 'Mast')
    a.obs['total'] = a.obs.total_counts//2
    a.obs = a.obs[['given','kind','total']]; a.layers['raw_counts'] = a.X.copy(); a.X = a.X*.37
    a.write_h5ad(tmp_path/'a.h5ad')
    keys = ['--condition-key', 'given', '--control', 'PBS', '--cell-type-key', 'kind', '--size-key', 'total', '--layer', 'raw_counts']
    res = call('predict', out, tmp_path/'a.h5ad', '--target', 'IFNB', '--out', tmp_path/'p.h5ad', *keys)
    assert res.exit_code==0, res.output
    p, theirs = ad.read_h5ad(tmp_path/'p.h5ad'), a[a.obs.given=='PBS']
    assert f'{a.n_obs-theirs.n_obs} of {a.n_obs} cells are not' in res.output and 'Mast' in res.output
    assert list(p.obs.source)==list(theirs.obs_names) and set(p.obs.given)=={'IFNB'} and list(p.obs.kind)==list(theirs.obs.kind)
    assert np.allclose(p.obs.library_size, theirs.obs.total)

wrong = { # what is wrong: (arguments instead of, a word that the message must hold)
    'unknown target':    (dict(target='IFNb'), "'IFNB'"),
    'one unknown':       (dict(target='IFNB,drugZ'), 'drugZ'),
    'no target':         (dict(target=None), 'target'),
    'unknown mode':      (dict(mode='D'), 'mode'),
    'no model':          (dict(model='nowhere'), 'holds no model'),
    'no controls':       (dict(controls='none.h5ad'), 'no file'),
    'no cell types':     (dict(cell_type_key='kind'), 'kind'),
    'no such column':    (dict(condition_key='given'), 'given'),
    'no such control':   (dict(control='PBS'), 'PBS'),
    'not a share':       (dict(missing_genes=2), 'share'),
    'no cells':          (dict(n=0), '1 or more'),
    'other ending':      (dict(out='p.csv'), '.h5ad'),
    'no folder':         (dict(out='no/where/p.h5ad'), 'no folder'),
    'taken':             (dict(out='taken.h5ad'), '--force'),
    'its own':           (dict(out='mine.h5ad', controls='mine.h5ad', force=True), 'control cells')}

@pytest.mark.parametrize('what', wrong)
def test_refused_in_one_line_and_nothing_written(what, study, tmp_path, monkeypatch):
    out, file, _ = study
    monkeypatch.chdir(tmp_path)
    (tmp_path/'taken.h5ad').write_text('years of work'); (tmp_path/'mine.h5ad').write_bytes(file.read_bytes())
    change, word = wrong[what]
    options = dict(model=out, controls=file, target='IFNB', out='p.h5ad') | change
    args = [options.pop('model'), options.pop('controls')]
    for k,v in options.items(): args += [] if v is None else ['--'+k.replace('_','-')] + ([] if v is True else [v])
    res = call('predict', *args)
    assert res.exit_code==1 and word in res.output and res.output.count('\n')==1, res.output
    assert sorted(os.listdir(tmp_path))==['mine.h5ad','taken.h5ad'] and (tmp_path/'taken.h5ad').read_text()=='years of work'

def test_cells_without_types_are_refused_by_name(study, tmp_path):
    out, file, _ = study
    a = ad.read_h5ad(file); del a.obs['cell_type']
    with pytest.raises(InputError, match="no obs column 'cell_type'.*--cell-type-key"): predict(out, a, 'IFNB')
    b = ad.read_h5ad(file); del b.obs['total_counts']
    with pytest.raises(InputError, match="obs\\['total_counts'\\].*--size-key"): predict(out, b, 'IFNB')

def test_nothing_is_written_when_it_fails_midway(study, tmp_path, monkeypatch):
    out, file, _ = study
    (tmp_path/'p.h5ad').write_text('before')
    import pertnb.speedrun as page
    real = page.generate
    def full(model, cells, target, *args):
        if target=='drugA': raise OSError(28, 'No space left on device')
        return real(model, cells, target, *args)
    monkeypatch.setattr(page, 'generate', full)
    res = call('predict', out, file, '--target', 'IFNB,drugA', '--out', tmp_path/'p.h5ad', '--force')
    assert res.exit_code==1 and 'cannot be written' in res.output
    assert os.listdir(tmp_path)==['p.h5ad'] and (tmp_path/'p.h5ad').read_text()=='before'

def test_a_run_is_shown_as_it_was(saved_run, tmp_path):
    run, out = saved_run
    assert call('show', out, '--verbose').output==f'{run}\n'
    short = call('show', out).output
    assert short.startswith(run.sentences['verdict'][:40]) and 'zeros off' not in short
    again = Run.load(out)
    pd.testing.assert_frame_equal(again.scoreboard, run.scoreboard, check_exact=True)
    pd.testing.assert_frame_equal(again.shifts, run.shifts, check_exact=True)
    pd.testing.assert_frame_equal(again.history, run.history, check_exact=True)
    assert again.sentences==run.sentences and again.settings==run.settings
    again.save(tmp_path/'copy')
    assert str(Run.load(tmp_path/'copy'))==str(run)

@pytest.mark.parametrize('ending,start', [('png', b'\x89PNG'), ('svg', b'<?xml'), ('pdf', b'%PDF')])
def test_its_figure_is_drawn_again(ending, start, saved_run, tmp_path):
    _, out = saved_run
    file = tmp_path/f'f.{ending}'
    assert call('show', out, '--out', file).exit_code==0 and file.read_bytes().startswith(start)
    stamp = file.stat().st_mtime_ns
    assert call('show', out, '--out', file).exit_code==1 and file.stat().st_mtime_ns==stamp
    assert os.listdir(tmp_path)==[file.name]

def test_what_is_no_run_is_refused(saved_run, tmp_path):
    _, out = saved_run
    def refused(folder, word, *more):
        res = call('show', folder, *more)
        assert res.exit_code==1 and word in res.output and res.output.count('\n')==1, res.output
    refused(tmp_path, 'holds no run'); refused(out, '.png', '--out', tmp_path/'f.gif')
    run = Run.load(out); run.save(tmp_path/'folds'/'one'); refused(tmp_path/'folds', 'runs below it: one')
    (tmp_path/'folds'/'one'/'run.json').write_text('{"a":'); refused(tmp_path/'folds'/'one', 'not hold a whole run')
    (tmp_path/'folds'/'one'/'shifts.csv').unlink(); refused(tmp_path/'folds'/'one', 'shifts.csv is missing')

def test_controls_of_another_depth_are_noted(study, tmp_path):
    "Each molecule counted eight times"
    out, file, _ = study
    deep = ad.read_h5ad(file); deep.X = sp.csr_matrix(deep.X*8); deep.obs['total_counts'] = deep.obs.total_counts*8
    deep.write_h5ad(tmp_path/'deep.h5ad')
    res = call('predict', out, tmp_path/'deep.h5ad', '--target', 'IFNB', '--out', tmp_path/'p.h5ad')
    assert res.exit_code==0 and 'times deeper than the training cells' in res.output, res.output
    usual = call('predict', out, file, '--target', 'IFNB', '--out', tmp_path/'q.h5ad')
    assert usual.exit_code==0 and 'times deeper' not in usual.output and 'less deep' not in usual.output

"What stays when the condition is flipped: donors and batches."
import os
import warnings
from pathlib import Path
import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from pertnb.core import InputError, Note
from pertnb.data import PertData, choose_genes
from pertnb.datasets import known_datasets, simulate_study
from pertnb.effects import Effects, profile, profiles
from pertnb.generation import generate
from pertnb.saving import load_model, save_model
from pertnb.training import fit

keys = known_datasets['demo'][1]

def confounded(seed=0):
    "A study without any effect, in two batches: most treated cells are in batch b, where half of 200 genes' molecules are lost"
    a = simulate_study('none', n_types=2, n_cells=300, seed=seed)
    rng = np.random.default_rng(seed)
    in_b = rng.random(a.n_obs)<np.where(a.obs.condition=='control', .3, .7)
    a.obs['batch'] = pd.Categorical(np.where(in_b, 'b', 'a'))
    lost = np.argsort(-np.asarray(a.layers['counts'].mean(0) if 'counts' in a.layers else a.X.mean(0)).ravel())[:200]
    counts = (a.layers['counts'] if 'counts' in a.layers else a.X).toarray()
    counts[np.ix_(in_b, lost)] = rng.binomial(counts[np.ix_(in_b, lost)].astype(int), .5)
    if 'counts' in a.layers: a.layers['counts'][:] = counts
    else: a.X = counts.astype(np.float32)
    return a, a.var_names[lost]

@pytest.fixture(scope='module')
def shifts():
    a, lost = confounded()
    res = {}
    for covariate in (None, 'batch'):
        data = PertData(a, **keys, covariate=covariate)
        data = data.to_genes(choose_genes(data, 500))
        model, _ = fit(data, epochs=30, progress=False)
        controls = data[data.is_control]
        res[covariate] = model, controls, {k: profile(generate(model, controls, 'drug 1', k, progress=False).X)-profile(controls.x) for k in 'BC'}, data.genes.isin(lost)
    return res

def test_a_batch_effect_is_not_taken_for_the_perturbation(shifts):
    for mode in 'BC':
        off = {k: np.sqrt((shift[mode][lost]**2).mean()) for k,(_,_,shift,lost) in shifts.items()}
        assert off['batch']<.6*off[None], (mode, off)

def test_cells_keep_their_batch(shifts):
    model, controls, *_ = shifts['batch']
    b = controls.batch()
    flipped = model.flip(b.c, controls.batch(slice(0, 1)).c.new_tensor(model.conditions(['drug 1'])[0]))
    n = len(model.conditions.names)
    assert (flipped[:,n:]==b.c[:,n:]).all() and (flipped[:,:n]!=b.c[:,:n]).any()
    assert b.c.shape[1]==n+2

def test_saved_with_the_model_and_new_levels_are_noted(shifts, tmp_path):
    model, controls, *_ = shifts['batch']
    save_model(model, tmp_path/'model')
    again = load_model(tmp_path/'model')
    first, second = (generate(m, controls, 'drug 1', progress=False).X for m in (model, again))
    assert (first!=second).nnz==0
    a = controls.to_adata(); a.obs['batch'] = 'c'; a.obs[keys['size_key']] = a.obs.library_size
    a.X = a.layers['counts'].astype(np.float32)
    with pytest.warns(Note, match="c in obs\\['batch'\\]"): generate(again, a, 'drug 1', progress=False)

def test_bad_columns_and_confounding():
    a, _ = confounded(1)
    with pytest.raises(InputError, match="'plate'"): PertData(a, **keys, covariate='plate')
    a.obs['donor'] = np.where(a.obs.condition=='control', 'D1', 'D2')
    assert any('cannot be told' in note for note in PertData(a, **keys, covariate='donor, batch').notes)
    a.obs['batch'] = a.obs.batch.astype(object); a.obs.iloc[0, a.obs.columns.get_loc('batch')] = None
    with pytest.raises(InputError, match='no covariate'): PertData(a, **keys, covariate='batch')

def test_each_donor_in_turn(tmp_path, warm_folds):
    from click.testing import CliRunner
    from pertnb.cli import main
    a = simulate_study('shared', n_types=1, n_cells=240, seed=0)
    a.obs['donor'] = pd.Categorical(np.resize(['D1','D2','D3'], a.n_obs))
    a.write_h5ad(tmp_path/'donors.h5ad')
    call = ['run', str(tmp_path/'donors.h5ad'), '--condition-key', 'condition', '--size-key', keys['size_key'], '--target', 'drug 1', '--covariate', 'donor',
            '--epochs', '1', '--n-genes', '60', '--embedding', 'pca', '--jobs', '1', '--out', str(tmp_path/'out')]
    res = CliRunner().invoke(main, [*call, '--holdout', 'plate=each'])
    assert res.exit_code==1 and "'plate'" in res.output and not (tmp_path/'out').exists()
    res = CliRunner().invoke(main, [*call, '--holdout', 'donor=each'])
    assert res.exit_code==0, res.output
    assert {o.name for o in (tmp_path/'out').iterdir() if o.is_dir()}=={'donor_D1','donor_D2','donor_D3'}

norman = Path(os.environ.get('PERTNB_DATA', ''))/'norman19_mini.h5ad'

def norman_in_two_batches(seed=0):
    "Norman's cells, and the same with a batch of most perturbed cells where half of 150 genes' molecules are lost"
    a = ad.read_h5ad(norman)
    a = a[a.obs.condition.isin(['control','KLF1','CEBPE+RUNX1T1','HK2','FOXO4']).to_numpy()].copy()
    rng = np.random.default_rng(seed)
    in_b = rng.random(a.n_obs)<np.where(a.obs.condition=='control', .2, .8)
    a.obs['batch'] = np.where(in_b, 'b', 'a')
    counts = np.asarray(a.X.todense()).astype(int)
    lost = np.argsort(-counts.mean(0))[:150]
    counts[np.ix_(in_b, lost)] = rng.binomial(counts[np.ix_(in_b, lost)], .5)
    b = a.copy(); b.X = sp.csr_matrix(counts.astype(np.float32))
    return a, b, lost

@pytest.mark.skipif(not norman.is_file(), reason='no Norman data')
def test_a_batch_changes_no_predicted_shift_of_norman_beyond_noise():
    clean, batched, lost = norman_in_two_batches()
    def shifts(adata, covariate=None, seed=0):
        data = PertData(adata, condition_key='condition', size_key='n_counts_all_genes', cell_type_key='cell_type', covariate=covariate)
        model, _ = fit(data, epochs=30, seed=seed, progress=False)
        controls = data[data.is_control & (adata.obs.batch=='a').to_numpy()] # those without the batch effect
        made = {k: profile(generate(model, controls, 'KLF1', k, progress=False).X)-profile(controls.x) for k in 'BC'}
        table = model.effects.table
        return made | dict(rules=(table.loc[('K562','KLF1')]-table.loc[('K562','control')]).to_numpy())
    true, again, confused, corrected = shifts(clean), shifts(clean, seed=1), shifts(batched), shifts(batched, 'batch')
    off = lambda found, k: np.sqrt(((found[k]-true[k])[lost]**2).mean())
    for k in 'BC': # what another seed changes is noise
        assert off(corrected, k)<1.5*off(again, k) and off(confused, k)>2*off(again, k), (k, off(corrected, k), off(again, k), off(confused, k))
    assert off(corrected, 'rules')<.5*off(confused, 'rules')

def test_the_rules_profiles_lose_the_batch():
    "The shift of the genes whose molecules were lost, where batches are unbalanced and the drug does nothing"
    a, lost = confounded(2)
    off = {}
    for covariate in (None, 'batch'):
        data = PertData(a, **keys, covariate=covariate)
        table, rows = profiles(data), data.genes.isin(lost)
        shifts = [table.loc[(t, 'drug 1')]-table.loc[(t, 'control')] for t in ('type 1','type 2')]
        off[covariate] = abs(np.mean([shift.to_numpy()[rows].mean() for shift in shifts]))
    assert off[None]>.05 and off['batch']<.25*off[None], off

def test_without_covariates_profiles_are_plain_means():
    a, _ = confounded(3)
    data = PertData(a, **keys)
    table = profiles(data)
    for t,k in table.index: assert np.allclose(table.loc[(t, k)], profile(data.x, (data.types==t)&(data.condition==k)), atol=1e-5)

"What stays when the condition is flipped: donors and batches."
import warnings
import numpy as np
import pandas as pd
import pytest
from pertnb.core import InputError, Note
from pertnb.data import PertData, choose_genes
from pertnb.datasets import known_datasets, simulate_study
from pertnb.effects import profile
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

def test_each_donor_in_turn(tmp_path):
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

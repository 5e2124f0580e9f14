"Doses: labels with a dose, a dose held out whole, any dose predicted, and times alike."
import json
import warnings
import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import InputError, Note
from pertnb.data import PertData
from pertnb.datasets import known_datasets, simulate_doses
from pertnb.effects import profile
from pertnb.generation import generate
from pertnb.saving import load_model, save_model
from pertnb.task import Task
from pertnb.training import fit

keys = known_datasets['demo'][1]
held = 'drug 1@10'

@pytest.fixture(scope='module')
def study(): return simulate_doses(n_cells=80)

@pytest.fixture(scope='module')
def trained(study):
    task = Task.split(PertData(study, **keys, dose_key='dose'), held, held, n_genes=300)
    return task, fit(task.train, progress=False)[0]

def true_shift(study, task):
    "The true mean shift of the task's genes and types"
    means, types = study.varm['true_mean'].loc[list(task.train.genes)], pd.Series(task.controls.types)
    return sum(share*(means[f'{t} | {held}']-means[f'{t} | control']).to_numpy() for t,share in types.value_counts(normalize=True).items())

def test_a_held_out_dose_is_nearer_to_the_truth_than_its_neighbours(study, trained):
    task, model = trained
    real, start = true_shift(study, task), profile(task.controls.x)
    assert held not in set(task.train.condition)
    error = lambda x: ((profile(x)-start-real)**2).sum()
    nearest = error(task.baselines['nearest dose'].X)
    for mode in 'BC':
        made = generate(model, task.controls, held, mode, progress=False)
        assert np.corrcoef(profile(made.X)-start, real)[0,1]>.9
        assert error(made.X)<.5*nearest

def test_a_dose_no_cell_had_lies_between_its_neighbours(trained):
    task, model = trained
    size = {k: np.linalg.norm(profile(generate(model, task.controls, k, 'C', progress=False).X)-profile(task.controls.x))
            for k in ('drug 1@3','drug 1@7','drug 1@30')}
    assert size['drug 1@3']<size['drug 1@7']<size['drug 1@30']

def test_control_and_dose_zero_are_the_zero_vector(trained):
    _, model = trained
    assert not model.conditions(['control','drug 1@0','drug 2@0']).any()
    f = model.conditions(['drug 1@1','drug 1@5','drug 1@30','drug 1@60']).sum(1)
    assert (np.diff(f)>0).all() and f[0]>0

def test_a_saved_model_predicts_the_same_cells(trained, tmp_path):
    task, model = trained
    save_model(model, tmp_path/'model')
    again = load_model(tmp_path/'model')
    assert again.conditions.curves==model.conditions.curves
    a, b = (generate(m, task.controls, 'drug 1@5', 'C', n=50, progress=False) for m in (model, again))
    assert (a.X!=b.X).nnz==0
    config = json.loads((tmp_path/'model'/'config.json').read_text())
    config['doses']['drug 1']['k'] = -1.
    (tmp_path/'model'/'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match='curve'): load_model(tmp_path/'model')

@pytest.mark.parametrize('bad', [-2., np.nan, np.inf, '5 nM'])
def test_what_is_no_dose_is_refused_by_name(study, bad):
    wrong = study.copy()
    given = np.flatnonzero(wrong.obs.condition!='control')[:2]
    column = wrong.obs.dose.astype(object).to_numpy(); column[given] = bad
    wrong.obs['dose'] = pd.Series(column, wrong.obs_names, dtype=object)
    with pytest.raises(InputError) as e: PertData(wrong, **keys, dose_key='dose')
    assert "obs['dose']" in str(e.value) and str(bad) in str(e.value) and '2 cell(s)' in str(e.value)

def test_a_column_that_is_not_there(study):
    with pytest.raises(InputError, match='obs column'): PertData(study, **keys, dose_key='concentration')

def test_controls_need_no_dose_and_few_doses_make_a_line(study):
    some = study[study.obs.dose.isin([0,1,10])].copy()
    some.obs['dose'] = some.obs.dose.where(some.obs.condition!='control')
    data = PertData(some, **keys, dose_key='dose')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always', Note)
        model, _ = fit(data.to_genes(data.genes[:40]), epochs=1, progress=False)
    assert any('Too few training doses' in str(o.message) and 'drug 1 (2)' in str(o.message) for o in said)
    f = lambda d: model.conditions([f'drug 1@{d}'])[0].max()
    assert np.isclose(f(10), 1) and np.isclose(f(1), np.log(2)/np.log(11))

def test_dose_zero_is_control(study):
    zero = study.copy()
    cells = np.flatnonzero(zero.obs.condition=='drug 1')[:30]
    zero.obs.iloc[cells, zero.obs.columns.get_loc('dose')] = 0
    data = PertData(zero, **keys, dose_key='dose')
    assert data.is_control[cells].all() and any('30 cell(s) with dose 0' in note for note in data.notes)

def test_pairs_have_the_dose_in_both_parts(study):
    pair = study.copy()
    pair.obs['condition'] = pair.obs.condition.astype(str).replace('drug 2', 'drug 1+drug 2')
    data = PertData(pair, **keys, dose_key='dose')
    assert 'drug 1@10+drug 2@10' in set(data.condition)
    assert data.conditions.label('drug 2@10.0+drug 1@10')=='drug 1@10+drug 2@10'

def call(*words): return CliRunner().invoke(main, [str(o) for o in words])

def test_the_commands(study, tmp_path):
    file, out = tmp_path/'doses.h5ad', tmp_path/'out'
    timed = ad.AnnData(study.X, study.obs.rename(columns={'dose': 'hours'}), study.var) # times are doses
    timed.write_h5ad(file)
    names = ['--condition-key','condition','--size-key',keys['size_key'],'--cell-type-key','cell_type']
    quick = ['--epochs',1,'--n-genes',60,'--embedding','pca','--max-cells',80]
    res = call('run', file, *names, *quick, '--dose', 'hours', '--target', held, '--holdout', held, '--out', out)
    assert res.exit_code==0, res.output
    board = pd.read_csv(out/'scoreboard.csv')
    assert {'nearest dose','linear between doses'} <= set(board.prediction)
    assert json.loads((out/'run.json').read_text())['dose_key']=='hours'
    controls = timed[(timed.obs.condition=='control').to_numpy()].copy()
    controls.obs = controls.obs.drop(columns='hours'); controls.write_h5ad(tmp_path/'controls.h5ad')
    res = call('predict', out, tmp_path/'controls.h5ad', '--target', 'drug 1@5,drug 2@7', '--out', tmp_path/'p.h5ad')
    assert res.exit_code==0, res.output
    assert set(ad.read_h5ad(tmp_path/'p.h5ad').obs.condition)=={'drug 1@5','drug 2@7'}
    res = call('predict', out, tmp_path/'controls.h5ad', '--target', 'drug 1', '--out', tmp_path/'q.h5ad')
    assert res.exit_code==1 and 'without a dose' in res.output and not (tmp_path/'q.h5ad').exists()
    res = call('run', file, *names, '--dose', 'hours', '--target', 'drug 1@5', '--out', tmp_path/'no')
    assert res.exit_code==1 and 'pertnb predict' in res.output and not (tmp_path/'no').exists()
    res = call('inspect', file, '--condition-key', 'hours')
    assert res.exit_code==1 and '--dose hours' in res.output
    res = call('inspect', file, *names, '--dose', 'hours')
    assert res.exit_code==0 and '--dose hours' in res.output and '@' in res.output

def test_each_dose_in_turn_and_all_targets(study):
    from pertnb.protocols import folds
    from pertnb.task import choose_targets
    data = PertData(study, **keys, dose_key='dose')
    for each in ('dose=each','condition=each'):
        arms = folds(data, None, each)
        assert len(arms)==8 and all(arm['target']==arm['holdout'] for arm in arms.values())
    assert choose_targets(data, 'all', 'dose=3')[0]==['drug 1@3','drug 2@3']

def test_without_doses_nothing_changes(study):
    "The dose column is read only when it is named: the same cells, and the same model, with or without it"
    some = study[study.obs.dose.isin([0,10])].copy()
    plain = ad.AnnData(some.X, some.obs.drop(columns='dose'), some.var)
    made = []
    for a in (some, plain):
        data = PertData(a, **keys); data = data.to_genes(data.genes[:40])
        model, _ = fit(data, epochs=1, progress=False)
        made.append(generate(model, data[data.is_control], 'drug 1', 'C', progress=False).X)
        assert model.conditions(['control'])[0].tolist()==[1,0,0]
    assert (made[0]!=made[1]).nnz==0

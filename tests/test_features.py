"Perturbations nobody tried, known by a table of features."
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import InputError
from pertnb.data import PertData
from pertnb.datasets import known_datasets, simulate_screen
from pertnb.effects import profile
from pertnb.generation import generate
from pertnb.saving import load_model, save_model
from pertnb.task import Task
from pertnb.training import fit

keys = known_datasets['demo'][1]

@pytest.fixture(scope='module')
def screen(): return simulate_screen(16, n_cells=80, seed=1)

def question(screen, features, target='drug 1'):
    "r of mode C's shift of a perturbation held out whole, that of the mean of all perturbations, and the model"
    task = Task.split(PertData(screen, **keys, features=features), target, target)
    model, _ = fit(task.train, progress=False)
    real, start = task.observed[task.observed.condition==target], profile(task.controls.x)
    shift = lambda x: profile(x)-start
    r = lambda x: np.corrcoef(shift(x), profile(real.x)-start)[0,1]
    made = generate(model, task.controls, target, 'C', progress=False)
    return r(made.X), r(task.baselines['mean of perturbations'].X), model, task, made

def test_an_untried_perturbation_is_predicted_from_its_features(screen, tmp_path):
    told, mean, model, task, made = question(screen, screen.uns['features'])
    assert told>.7 and told>mean+.1
    save_model(model, tmp_path/'model')
    again = generate(load_model(tmp_path/'model'), task.controls, 'drug 1', 'C', progress=False)
    assert (again.X!=made.X).nnz==0

def test_features_that_say_nothing_shrink_the_prediction(screen):
    wrong = screen.uns['features'].sample(frac=1, random_state=1).set_index(screen.uns['features'].index)
    sizes = {}
    for name,features in (('known', screen.uns['features']), ('wrong', wrong)):
        *_, model, task, made = question(screen, features)
        sizes[name] = np.linalg.norm(profile(made.X)-profile(task.controls.x))
        if name=='wrong': assert model.effects.amplitude('drug 1')<.5
    assert sizes['wrong']<.7*sizes['known']

def test_the_command(screen, tmp_path):
    screen.write_h5ad(tmp_path/'screen.h5ad'); screen.uns['features'].to_csv(tmp_path/'features.csv')
    call = ['run', str(tmp_path/'screen.h5ad'), '--condition-key', 'condition', '--size-key', keys['size_key'], '--epochs', '1', '--n-genes', '60', '--embedding', 'pca',
            '--features', str(tmp_path/'features.csv'), '--holdout', 'drug 3']
    res = CliRunner().invoke(main, [*call, '--out', str(tmp_path/'out')])
    assert res.exit_code==0, res.output
    assert {'mean of perturbations','nearest perturbation','linear in features'} <= set(pd.read_csv(tmp_path/'out'/'scoreboard.csv').prediction)

def test_bad_tables_are_refused(screen, tmp_path):
    features = screen.uns['features']
    with pytest.raises(InputError, match='no row for drug 2'): PertData(screen, **keys, features=features.drop(index='drug 2'))
    with pytest.raises(InputError, match='gaps'): PertData(screen, **keys, features=features.replace(features.iloc[0,0], np.nan))
    with pytest.raises(InputError, match='no file'): PertData(screen, **keys, features='nowhere.csv')
    with pytest.raises(InputError, match="'drug 99'"): question(screen, features, 'drug 99')

def test_loadings_are_made_from_the_control_cells_that_may_be_learned_from(screen):
    a = screen.copy(); often = a.var_names[np.argsort(-np.asarray(a.X.mean(0)).ravel())]
    a.obs['condition'] = a.obs.condition.astype(str).replace(dict(zip(screen.uns['features'].index, often)))
    data = PertData(a, **keys, features='loadings')
    some = data[np.arange(len(data))%2==0].learn_features()
    assert (some.conditions([often[0]])!=data.conditions([often[0]])).any()
    with pytest.raises(InputError, match='drug 1.*--gene-key'): PertData(screen, **keys, features='loadings')

def test_perturbations_of_equal_features_are_told_apart_once_seen(screen):
    a = screen[screen.obs.condition.isin(['control','drug 1','drug 2'])].copy()
    same = pd.DataFrame(1., ['drug 1','drug 2'], ['family'])
    data = PertData(a, **keys, features=same)
    model, _ = fit(data, progress=False)
    start = profile(data.x, data.is_control)
    real, made = ({k: profile(x)-start for k,x in cells.items()} for cells in (
        {k: data[data.condition==k].x for k in same.index},
        {k: generate(model, data[data.is_control], k, 'B', progress=False).X for k in same.index}))
    r = lambda a, b: np.corrcoef(made[a], real[b])[0,1]
    assert min(r('drug 1','drug 1'), r('drug 2','drug 2'))>max(r('drug 1','drug 2'), r('drug 2','drug 1'))+.2

"Donors as replicates: the intervals count that the next donor may respond otherwise."
import copy
import warnings
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from pertnb.core import Note
from pertnb.data import PertData
from pertnb.datasets import known_datasets, simulate_study
from pertnb.effects import profile
from pertnb.generation import shift_interval
from pertnb.saving import load_model, save_model
from pertnb.task import Task
from pertnb.training import fit

keys = known_datasets['demo'][1]

def with_donors(n_donors=8, sd=.5, seed=0):
    "A study in which each donor's treated cells have a factor of their own on every gene"
    a, rng = simulate_study('shared', n_types=2, n_cells=800, seed=seed), np.random.default_rng(seed)
    donor, treated = rng.integers(0, n_donors, a.n_obs), (a.obs.condition!='control').to_numpy()
    a.obs['donor'] = pd.Categorical([f'D{i}' for i in donor])
    counts, factor = a.X.toarray(), np.exp(rng.normal(0, sd, (n_donors, a.n_vars)))
    counts[treated] = rng.poisson(counts[treated]*factor[donor[treated]])
    a.X = sp.csr_matrix(counts.astype(np.float32))
    return a

def trained(adata, holdout, seed=0, epochs=15, covariate='donor'):
    task = Task.split(PertData(adata, **keys, covariate=covariate), 'drug 1', holdout=holdout, n_genes=300, seed=seed)
    return task, fit(task.train, epochs=epochs, seed=seed, progress=False)[0]

def without_donors(model):
    res = copy.copy(model); res.replicates = None
    return res

def held(model, task):
    "Share of expressed genes whose real shift is inside 90 % intervals"
    x, real = task.observed.x, task.observed.condition=='drug 1'
    control = profile(x, task.observed.is_control)
    shift = profile(x, real)-control
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Note)
        t = shift_interval(model, task.controls, 'drug 1', n=real.sum())
    return shift[control>.2].size, ((t.low<=shift)&(shift<=t.high)).to_numpy()[control>.2].mean()

@pytest.fixture(scope='module')
def new_donors(): return [trained(with_donors(seed=seed), 'donor=D0', seed) for seed in (0, 1, 2)]

def test_a_new_donors_shift_is_held_with_donors_as_replicates_only(new_donors):
    (n, donors), (_, cells) = (np.mean([held(f(model), task) for task,model in new_donors], 0) for f in (lambda m: m, without_donors))
    assert n>20 and abs(donors-.9)<.06 and cells<.8, (n, donors, cells)

def test_the_same_donors_need_no_more(new_donors):
    task, model = trained(with_donors(seed=3), None)
    wide, narrow = (shift_interval(m, task.controls, 'drug 1') for m in (model, without_donors(model)))
    ratio = (wide.high-wide.low)/(narrow.high-narrow.low)
    assert 1<=ratio.median()<1.1
    truth = [(o.high-o.low).mean() for o in (shift_interval(m, task.controls, 'drug 1', n=np.inf) for m in (model, without_donors(model)))]
    assert truth[0]>1.05*truth[1] # of all donors there might be

def test_saved_with_the_model(new_donors, tmp_path):
    task, model = new_donors[0]
    save_model(model, tmp_path/'m')
    again = load_model(tmp_path/'m')
    assert again.replicates.shares==model.replicates.shares and again.replicates.column=='donor'
    a, b = (shift_interval(m, task.controls, 'drug 1') for m in (model, again))
    assert np.allclose(a, b, atol=1e-5)

def test_two_donors_are_too_few_and_it_is_said():
    task, model = trained(with_donors(2, seed=4), None, epochs=1)
    assert model.replicates is None
    with pytest.warns(Note, match='count cells, not donors'): shift_interval(model, task.controls, 'drug 1')

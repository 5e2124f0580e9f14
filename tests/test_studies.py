"The benchmark of several studies: what it holds out, how it counts, and that its checks can fail."
import importlib.util
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from pertnb.data import PertData
from pertnb.datasets import known_datasets, simulate_study

spec = importlib.util.spec_from_file_location('bench_studies', Path(__file__).parents[1]/'bench'/'studies.py')
bench = importlib.util.module_from_spec(spec); spec.loader.exec_module(bench)
mode_c, rule = 'mode C · count transfer', 'mean shift'

def rows(study='mine', noise=.01, **E):
    "Folds of one study: six contexts, E as named plus a little"
    rng = np.random.default_rng(0)
    made = [dict(study=study, context=f'c{i}', target='drug', seed=0, prediction=name, metric=m, value=v+noise*rng.standard_normal() if m=='E' else .5, error=.1)
            for i in range(6) for name,v in E.items() for m in ('r','J50','E')]
    return pd.DataFrame(made)

def verdicts(**E): return [passed for passed,_ in bench.checks(bench.summarise(rows(**E)))]

def test_checks_can_fail():
    assert verdicts(control=1., **{mode_c: .5, rule: .8})==[True, True]
    assert verdicts(control=1., **{mode_c: .9, rule: .8})==[True, False]
    assert verdicts(control=1., **{mode_c: 1.1, rule: 1.2})==[False, False] # doing nothing is the best rule
    assert verdicts(control=1., noise=1., **{mode_c: 1.1, rule: 1.2})==[True, True] # not told apart

def test_relative_to_controls():
    table = bench.summarise(rows(noise=0, control=1., **{mode_c: .34})).set_index('prediction')
    assert table.relative['control']==1 and table.relative[mode_c]==pytest.approx((.34+.1)/(1+.1))

def test_parts():
    assert [bench.part('kang', o, 0) for o in ('B','CD14 Mono')]==['selection','test']
    assert [bench.part('none', 'type 1', o) for o in (0, 100)]==['selection','test'] and bench.part('norman', 'a+b', 0)=='all'

def test_contexts_have_enough_cells():
    a = simulate_study('specific', n_types=3, n_perturbations=2, n_cells=12)
    few = (a.obs.cell_type=='type 1') & (a.obs.condition=='drug 1') # rare in one type: not asked there
    cells = PertData(a[~few | (few.cumsum()<=3)].copy(), **known_datasets['demo'][1])
    assert list(bench.contexts('mine', cells, least=10))==[('type 1','type 1',('drug 2',)), *((t, t, ('drug 1','drug 2')) for t in ('type 2','type 3'))]
    assert list(bench.contexts('mine', cells, 'cell_type', 10))[0][1]=='cell_type=type 1' and not list(bench.contexts('mine', cells, least=13))

def test_a_fold():
    "No perturbed cell of the context is in the training; each prediction is scored for each perturbation"
    bench.study_cells.cache_clear()
    try:
        res = pd.DataFrame(bench.one_fold('none', 'type 1', 'type 1', ('drug 1',), 0, ()))
        E = res[res.metric=='E'].set_index('prediction')
        assert {'control','ceiling',mode_c,rule,'mode A · prior, by type'}<=set(E.index) and (E.error>0).all() and E.value['control']<.3
    finally: bench.study_cells.cache_clear()

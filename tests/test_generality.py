"Studies of other shapes than Kang's: many conditions, many genes, no cell types or few."
import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from pertnb.data import PertData
from pertnb.files import dense
from pertnb.generation import generate, shift_interval
from pertnb.training import fit
from pertnb.saving import load_model, save_model


def study(conditions, genes, types=None, each=20, seed=0):
    "Poisson counts; each condition raises its own tenth of the genes fourfold, each type has its own base rates"
    rng = np.random.default_rng(seed)
    rows = [(c, t) for c in conditions for t in (types or ['x']) for _ in range(each*(3 if c=='control' else 1))]
    base = {t: rng.gamma(.5, .4, genes) for t in (types or ['x'])}
    up = {c: 1+3*(rng.random(genes)<.1) for c in {p for o in conditions for p in o.split('+')}-{'control'}}
    mean = np.stack([base[t]*np.prod([up[p] for p in c.split('+') if p!='control'], axis=0) for c,t in rows])
    obs = pd.DataFrame(rows, columns=['condition','cell_type'], index=[f'c{i}' for i in range(len(rows))])
    a = ad.AnnData(sp.csr_matrix(rng.poisson(mean).astype(np.float32)), obs, pd.DataFrame(index=[f'g{i}' for i in range(genes)]))
    return PertData(a, 'condition', cell_type_key='cell_type' if types else None)


@pytest.mark.parametrize('conditions,genes,types', [
    (['control', *(f'p{i}' for i in range(199))], 500, None),  # 200 conditions, no types
    (['control', 'a'], 8000, ['T','B']),                       # many genes, two types
    (['control', 'a', 'b'], 600, ['T','B','NK','DC','Mono'])])
def test_shapes(conditions, genes, types, tmp_path):
    data, target = study(conditions, genes, types), conditions[1]
    left_out = (data.condition==target) & (data.cell_type=='T') if types else np.zeros(len(data), bool)
    model, _ = fit(data[~left_out], epochs=3, progress=False)
    save_model(model, tmp_path/'m')
    model = load_model(tmp_path/'m')
    ctrl = data[data.is_control & ((data.cell_type=='T') if types else True)]
    for mode in 'ABC':
        p = generate(model, ctrl, target, mode, progress=False)
        assert p.shape==(len(ctrl), genes) and np.isfinite(dense(p)).all()
    i = shift_interval(model, ctrl, target)
    assert np.isfinite(i).all(axis=None) and (i.low<=i['shift']).all() and (i['shift']<=i.high).all()
    n_seen = len(types)-1 if types else 0 # the level that holds: asked for, highest that so few types allow, or none
    assert i.coverage.iloc[0]==pytest.approx(.9 if not types else n_seen/(n_seen+1) if n_seen>2 else 0)


def test_pair_without_types_adds_up():
    data = study(['control','a','b','c','a+c'], 400, each=60)
    model, _ = fit(data, epochs=3, progress=False)
    ctrl = data[data.is_control]
    both = dense(generate(model, ctrl, 'a+b', 'C', shrinkage=1., progress=False)).mean(0)-ctrl.x.toarray().mean(0)
    parts = sum(np.asarray(data[data.condition==o].x.mean(0)).ravel()-ctrl.x.toarray().mean(0) for o in 'ab')
    assert np.corrcoef(both, parts)[0,1]>.9


def test_an_unseen_type_learns_from_the_others():
    data = study(['control','a'], 400, list('TUVWX'), each=200)
    away = (data.condition=='a') & (data.cell_type=='T')
    model, _ = fit(data[~away], progress=False)
    ctrl, real = (data[(data.cell_type=='T') & (data.condition==o)] for o in ('control','a'))
    shift = dense(generate(model, ctrl, 'a', 'C', progress=False)).mean(0)-ctrl.x.toarray().mean(0)
    assert np.corrcoef(shift, real.x.toarray().mean(0)-ctrl.x.toarray().mean(0))[0,1]>.8

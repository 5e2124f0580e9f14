"The files of a run are ordinary AnnData: scanpy works on them, and says nothing about them."
import warnings
import anndata as ad
import matplotlib; matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

@pytest.fixture(scope='module')
def folder(saved_run): return saved_run[1]

files = pytest.mark.parametrize('name', ['predictions', 'real'])

@pytest.fixture
def strict():
    "What anndata and scanpy warn of is an error; deprecations, and what other libraries say of this machine, are not about the cells"
    with warnings.catch_warnings():
        warnings.filterwarnings('error', module='(anndata|scanpy|test_interop)')
        for o in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning): warnings.simplefilter('ignore', o)
        yield

def same(a, b):
    "Are two AnnData equal, to the bit?"
    def eq(x, y): return x.dtype==y.dtype and x.shape==y.shape and (x!=y).nnz==0
    pd.testing.assert_frame_equal(a.obs, b.obs); pd.testing.assert_frame_equal(a.var, b.var)
    assert eq(a.X, b.X) and set(a.layers)==set(b.layers) and all(eq(a.layers[k], b.layers[k]) for k in a.layers)
    assert all(np.array_equal(a.varm[k], b.varm[k]) for k in a.varm)

@files
def test_is_tidy(folder, name, strict):
    a = ad.read_h5ad(folder/f'{name}.h5ad')
    assert a.obs_names.is_unique and a.var_names.is_unique
    assert sp.issparse(a.X) and a.X.format=='csr' and a.X.dtype==np.float32
    assert np.isfinite(a.X.data).all() and (a.X.data>0).all() and a.X.has_sorted_indices # log-normalised: no negative value, no stored zero
    Y = a.layers['counts']
    assert Y.dtype==np.int32 and Y.format=='csr' and ((Y>0)!=(a.X>0)).nnz==0
    for k in a.obs: # no column that mixes types
        assert isinstance(a.obs[k].dtype, pd.CategoricalDtype) or pd.api.types.is_numeric_dtype(a.obs[k]), k
        if isinstance(a.obs[k].dtype, pd.CategoricalDtype): assert all(isinstance(o, str) for o in a.obs[k].cat.categories), k
    assert {'condition','cell_type'} <= {k for k in a.obs if isinstance(a.obs[k].dtype, pd.CategoricalDtype)}

def test_every_prediction_has_its_control_cell(folder):
    a = ad.read_h5ad(folder/'predictions.h5ad')
    controls = a.obs_names[a.obs['mode'].isna()]
    assert set(a.obs['mode'].cat.categories)=={'A','B','C'}
    assert len(controls) and set(a.obs.source)<=set(controls) and (a.obs.condition[controls]=='control').all()

@files
def test_round_trip(folder, name, tmp_path, strict):
    a = ad.read_h5ad(folder/f'{name}.h5ad')
    a.write_h5ad(tmp_path/'again.h5ad'); same(a, ad.read_h5ad(tmp_path/'again.h5ad'))

def test_joins_real_cells(folder, strict):
    "Predicted and real cells in one object: the same genes, in the same order, no name twice among predicted and treated"
    pred, real = (ad.read_h5ad(folder/f'{o}.h5ad') for o in ('predictions','real'))
    assert list(pred.var_names)==list(real.var_names)
    both = ad.concat([pred[pred.obs['mode'].notna()], real[real.obs.condition!='control']])
    assert both.obs_names.is_unique and both.n_vars==pred.n_vars

@files
def test_scanpy(folder, name, strict, tmp_path):
    a = ad.read_h5ad(folder/f'{name}.h5ad')
    sc.pl.embedding(a, 'X_pca', color='condition', show=False) # as it comes
    sc.pp.pca(a, n_comps=10); sc.pp.neighbors(a, n_neighbors=10)
    assert np.isfinite(a.obsm['X_pca']).all()
    by = 'mode' if name=='predictions' else 'condition'
    if by=='mode': a.obs['mode'] = a.obs['mode'].cat.add_categories('control').fillna('control')
    sc.tl.rank_genes_groups(a, by, method='wilcoxon')
    sc.pl.violin(a, list(a.var_names[:2]), groupby=by, show=False)
    sc.pl.embedding(a, 'X_pca', color=['condition','cell_type', a.var_names[0]], show=False)
    plt.close('all')
    a.write_h5ad(tmp_path/'viewed.h5ad') # as a viewer wants it
    again = ad.read_h5ad(tmp_path/'viewed.h5ad')
    shown = [k for k in again.obsm if k.startswith('X_')]
    assert shown and all(np.isfinite(again.obsm[k]).all() for k in shown)

def test_pcs_are_the_boards(folder):
    "The components in real.h5ad place predicted cells as the board does"
    pred, real = (ad.read_h5ad(folder/f'{o}.h5ad') for o in ('predictions','real'))
    for a in (pred, real):
        Z = (a.X.toarray()-real.var['PC_mean'].to_numpy())@real.varm['PCs']
        assert a.obsm['X_pca'].dtype==np.float32 and np.allclose(a.obsm['X_pca'], Z, atol=1e-3) and Z.std(0).min()>0

"From a file as from memory: the same weights, the same cells, the same run; and what cannot be read in place is said."
import warnings
import anndata as ad
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import *
from pertnb.files import *
from pertnb.datasets import *
from pertnb.data import *
from pertnb.files import read_subsample
from pertnb.judge import score
from pertnb.generation import generate
from pertnb.training import fit

keys = known_datasets['demo'][1]

@pytest.fixture(scope='module')
def study(tmp_path_factory):
    d, a = tmp_path_factory.mktemp('disk'), demo(800)
    a.write_h5ad(d/'cells.h5ad'); a.write_zarr(d/'cells.zarr')
    b = a.copy(); b.X = b.X.toarray(); b.layers['counts'] = a.X; b.write_h5ad(d/'dense.h5ad')
    b.X = a.X.tocsc(); b.write_h5ad(d/'by_gene.h5ad')
    (d/'cut.h5ad').write_bytes((d/'cells.h5ad').read_bytes()[:100_000])
    return d, a

def equal(a, b): return all(torch.equal(x, y) for x,y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

@pytest.mark.parametrize('file', ['cells.h5ad', 'cells.zarr', 'dense.h5ad'])
def test_same_model_and_cells(study, file):
    d, a = study
    here, there = PertData(a, **keys), PertData(d/file, **keys, backed=True)
    held = split_cells(here); genes = choose_genes(here[~held], 300)
    assert list(choose_genes(there[~held], 300))==list(genes)
    model, other = (fit(o[~held].to_genes(genes), epochs=3, block=64, progress=False, val_frac=.1)[0] for o in (here, there))
    assert equal(model, other) and model.effects.table.equals(other.effects.table)
    for m in 'ABC':
        x, y = (generate(model, o[held & here.is_control], 'IFNB', m, progress=False) for o in (here, there))
        assert (x.X!=y.X).nnz==0 and x.obs.equals(y.obs)

def test_log_values_and_backed_views(study):
    d, a = study
    logs = PertData(a, **keys).to_adata(); logs.write_h5ad(d/'log.h5ad')
    here, there = (PertData(o, 'condition', cell_type_key='cell_type', backed=b).to_genes(a.var_names[::4]) for o,b in ((logs, False), (d/'log.h5ad', True)))
    assert there.kind=='log-normalised'
    assert equal(*(fit(o, 'gaussian', epochs=2, block=64, progress=False)[0] for o in (here, there)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        view = ad.read_h5ad(d/'cells.h5ad', backed='r')[::3, 100:200]
        assert (PertData(view, **keys).to_memory().values!=PertData(a, **keys)[::3].to_genes(a.var_names[100:200]).values).nnz==0
    assert (PertData(d/'dense.h5ad', **keys, layer='counts', backed=True).to_memory().values!=PertData(a, **keys).values).nnz==0

def test_mixed_index_types(study):
    "More than 2^31 values need 64-bit row ends, beside 32-bit columns"
    d, a = study
    X = a.X.copy(); X.indptr = X.indptr.astype(np.int64); b = ad.AnnData(X, a.obs, a.var); b.write_h5ad(d/'long.h5ad')
    for o in (PertData(b, **keys), PertData(d/'long.h5ad', **keys), PertData(d/'long.h5ad', **keys, backed=True).to_memory()): assert (o.values!=PertData(a, **keys).values).nnz==0

@pytest.mark.parametrize('file, why', [('by_gene.h5ad', 'tocsr'), ('cut.h5ad', 'cut short'), ('none.h5ad', 'no file')])
def test_refused(study, file, why):
    with pytest.raises(InputError, match=why) as e: PertData(study[0]/file, **keys, backed=True)
    print(e.value)

def test_bad_values_on_disk(study):
    d, a = study
    for value, why in ((np.nan, 'NaN'), (-1, 'negative'), (.5, 'fractions')):
        b = a.copy(); b.X = np.minimum(b.X.toarray(), 9).astype(np.float32); b.X[0,0] = 40; b.X[-1,-1] = value
        b.write_h5ad(d/'bad.h5ad')
        with pytest.raises(InputError, match=why): scan_backed(open_on_disk(d/'bad.h5ad')[2], size=500)

def test_run_and_score(study, tmp_path):
    "`pertnb run --backed` makes what `pertnb run` makes; `score` may read a sample"
    d, _ = study
    said = {}
    for b in ([], ['--backed']):
        out = tmp_path/f'out{len(b)}'
        res = CliRunner().invoke(main, ['run', str(d/'cells.h5ad'), '--condition-key', 'condition', '--cell-type-key', 'cell_type', '--size-key', 'total_counts', '--target', 'IFNB',
                                        '--n-genes', '100', '--epochs', '2', '--embedding', 'pca', '--max-cells', '20', '--out', str(out), *b], catch_exceptions=False)
        assert not res.exit_code, res.output
        assert not out.with_name(out.name+'.checkpoint').exists()
        said[len(b)] = ad.read_h5ad(out/'real.h5ad')
    assert said[0].obs.equals(said[1].obs) and (said[0].X!=said[1].X).nnz==0 and (said[0].obs.condition=='IFNB').sum()==20
    board = score(out/'predictions.h5ad', out/'real.h5ad', 'condition', max_cells=15)
    assert set(board.prediction)>={'mode A · prior','mode B · counterfactual','mode C · count transfer'} and ' 30 real cells' in board.attrs['said'], board.attrs['said']
    sample = read_subsample(out/'predictions.h5ad', ('condition','mode'), 7)
    assert sample.obs.groupby(['condition','mode'], observed=True).size().eq(7).all() and sample.n_obs==21+7

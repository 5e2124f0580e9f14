"Files of other packages: 10x, MuData, and R's, which a few lines here write as R does; labels from a table."
import gzip, struct
from types import SimpleNamespace
import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import InputError, Note
from pertnb.datasets import demo
from pertnb.files import read_cells, read_subsample
from pertnb.speedrun import speedrun

keys = ['--condition-key', 'condition', '--cell-type-key', 'cell_type']
quick = ['--epochs', '2', '--n-genes', '60', '--embedding', 'pca']

def call(*words): return CliRunner().invoke(main, [str(o) for o in words])

def study(n=600):
    a = demo(n)[:,:300].copy(); del a.varm['true_mean'], a.uns['demo']
    a = ad.AnnData(sp.csr_matrix(a.X), a.obs[['condition','cell_type']].astype(str), pd.DataFrame(index=a.var_names))
    return a[a.obs.condition.isin(['control','IFNB']).to_numpy() & (np.asarray(a.X.sum(1)).ravel()>0)].copy()

def same(a, b):
    assert list(a.obs_names)==list(b.obs_names) and list(a.var_names)==list(b.var_names) and (a.X!=b.X).nnz==0
    for k in ('condition','cell_type'): assert list(a.obs[k].astype(str))==list(b.obs[k])

# ---- writers: an .rds is R's serialization (XDR, version 2), https://cran.r-project.org/doc/manuals/r-release/R-ints.html#Serialization-Formats
class S4:
    def __init__(self, kind, package, **slots): self.kind, self.package, self.slots = kind, package, slots

class Matrix:
    "A matrix of truth values with names, of a class that holds one (LogMap)"
    def __init__(self, rows, columns): self.rows, self.columns = rows, columns

def rds(path, x):
    "Write `x`: S4, DataFrame, dict (named list), list, Matrix, strings, numbers, factors or None"
    out, symbols = [], {}
    def i32(*v): out.append(struct.pack(f'>{len(v)}i', *v))
    def char(s): i32(0x40009, len(s.encode())); out.append(s.encode())
    def sym(s):
        if s in symbols: return i32(symbols[s]<<8 | 255)
        symbols[s] = len(symbols)+1; i32(1); char(s)
    def attributes(attrs):
        for k,v in attrs.items(): i32(0x402); sym(k); put(v)
        i32(254)
    def vector(kind, n, write, attrs, gp=0):
        i32(kind | 0x200*bool(attrs) | 0x100*('class' in attrs) | gp, n); write()
        if attrs: attributes(attrs)
    def put(x, attrs={}):
        if x is None: i32(254)
        elif isinstance(x, S4):
            i32(25 | 0x100 | 0x200 | 0x10000)
            attributes({k: ('\x01NULL\x01' if v is None else v) for k,v in x.slots.items()} | {'class': [x.kind, x.package]})
        elif isinstance(x, Matrix):
            values = np.ones((len(x.rows), len(x.columns)), int)
            more = dict(dim=np.array(values.shape), dimnames=[np.array(x.rows), np.array(x.columns)])
            vector(10, values.size, lambda: i32(*values.ravel('F')), {**more, 'class': ['LogMap', 'SeuratObject']}, 0x10000)
        elif isinstance(x, pd.DataFrame):
            put({k: x[k] for k in x}, {'row.names': np.array(x.index), 'class': np.array(['data.frame'])})
        elif isinstance(x, pd.Series) and x.dtype=='category':
            vector(13, len(x), lambda: i32(*(x.cat.codes+1)), {'levels': np.array(x.cat.categories), 'class': np.array(['factor'])})
        elif isinstance(x, pd.Series): put(x.to_numpy(), attrs)
        elif isinstance(x, str): sym(x)
        elif isinstance(x, list) and len(x)==2 and all(isinstance(o, str) for o in x): put(np.array(x[:1]), {'package': np.array(x[1:])})
        elif isinstance(x, dict): put(list(x.values()), {'names': np.array(list(x), dtype=object), **attrs})
        elif isinstance(x, list): vector(19, len(x), lambda: [put(o) for o in x], attrs)
        elif x.dtype.kind=='f': vector(14, len(x), lambda: out.append(x.astype('>f8').tobytes()), attrs)
        elif x.dtype.kind in 'iu': vector(13, len(x), lambda: i32(*x), attrs)
        else: vector(16, len(x), lambda: [char(str(o)) for o in x], attrs)
    out.append(b'X\n'); i32(2, 0x40201, 0x20300); put(x)
    path.write_bytes(gzip.compress(b''.join(out)))

def dgc(a, named=True, kind='dgCMatrix'):
    m = sp.csr_matrix(a.X).astype(float); m.sort_indices() # cells as rows are the columns of genes × cells
    names = [np.array(a.var_names), np.array(a.obs_names)] if named else [None, None]
    return S4(kind, 'Matrix', i=m.indices, p=m.indptr, Dim=np.array(a.shape[::-1]), Dimnames=names, x=m.data, factors=[])

def sce(a, counts=None):
    frame = lambda table: S4('DFrame', 'S4Vectors', rownames=np.array(table.index), nrows=np.array([len(table)]), listData={k: table[k] for k in table})
    ranges = S4('CompressedGRangesList', 'GenomicRanges', partitioning=S4('PartitioningByEnd', 'IRanges', NAMES=np.array(a.var_names)), elementMetadata=frame(pd.DataFrame({'Symbol': 'S'+a.var_names}, a.var_names)))
    assays = S4('SimpleAssays', 'SummarizedExperiment', data=S4('SimpleList', 'S4Vectors', listData={'counts': counts or dgc(a, False), 'logcounts': dgc(a, False)}))
    return S4('SingleCellExperiment', 'SingleCellExperiment', rowRanges=ranges, colData=frame(a.obs), assays=assays, NAMES=None)

def seurat(a, version, layers=('counts','data')):
    if version<5: assay = S4('Assay', 'SeuratObject', counts=dgc(a), data=dgc(a), key=np.array(['rna_']))
    else: assay = S4('Assay5', 'SeuratObject', layers={k: dgc(a, False) for k in layers}, cells=Matrix(a.obs_names, layers), features=Matrix(a.var_names, layers), default=np.array([1]))
    obs = a.obs.assign(cell_type=a.obs.cell_type.astype('category'))
    return S4('Seurat', 'SeuratObject', **{'assays': {'RNA': assay, 'ADT': assay}, 'meta.data': obs, 'active.assay': np.array(['RNA'])})

def ten_x(path, a, kinds='Gene Expression', names=None):
    m = sp.csr_matrix(a.X)
    with h5py.File(path, 'w') as f:
        g = f.create_group('matrix'); text = lambda v: np.array(list(v), dtype='S')
        g['barcodes'], g['data'], g['indices'], g['indptr'], g['shape'] = text(a.obs_names), m.data.astype('i4'), m.indices, m.indptr, a.shape[::-1]
        g = g.create_group('features')
        g['name'], g['id'], g['feature_type'], g['genome'] = text(a.var_names if names is None else names), text('ENSG'+a.var_names), text([kinds]*a.n_vars if isinstance(kinds, str) else kinds), text(['hg']*a.n_vars)

def mudata(path, **modalities):
    package = pytest.importorskip('mudata')
    package.MuData(modalities).write(path)

# ---- R
@pytest.mark.parametrize('make', [sce, lambda a: seurat(a, 4), lambda a: seurat(a, 5)], ids=['SingleCellExperiment','Seurat 4','Seurat 5'])
def test_objects_of_r(make, tmp_path):
    pytest.importorskip('rdata')
    a = study(); rds(tmp_path/'cells.rds', make(a))
    found = read_cells(tmp_path/'cells.rds')
    same(found, a)
    if make is sce: assert list(found.var.Symbol)==list('S'+a.var_names)
    else:
        assert read_cells(tmp_path/'cells.rds', 'ADT').shape==a.shape
        with pytest.raises(InputError, match="'RNB'.*RNA"): read_cells(tmp_path/'cells.rds', 'RNB')

@pytest.mark.parametrize('make,word', [(lambda a: sce(a, dgc(a, False, 'dgTMatrix')), 'dgTMatrix'), (lambda a: seurat(a, 5, ('counts.1','counts.2')), 'JoinLayers'), (dgc, 'class dgCMatrix'), (lambda a: None, 'NoneType'),
                                       (lambda a: sce(a, S4('DelayedMatrix', 'DelayedArray', seed=None)), 'DelayedMatrix')], ids=['triplets','layers','matrix','NULL','on disk'])
def test_what_cannot_be_read_is_converted_by_a_line(make, word, tmp_path):
    pytest.importorskip('rdata')
    rds(tmp_path/'cells.rds', make(study(100)))
    for command in ('run', 'inspect'):
        res = call(command, tmp_path/'cells.rds', *keys)
        assert res.exit_code==1 and res.output.count('\n')==1 and word in res.output and 'zellkonverter::writeH5AD' in res.output, res.output
    assert [o.name for o in tmp_path.iterdir()]==['cells.rds']

def test_without_rdata_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'rdata', None)
    rds(tmp_path/'cells.rds', None)
    with pytest.raises(InputError, match=r'pertnb\[rds\].*writeH5AD'): read_cells(tmp_path/'cells.rds')

# ---- 10x
def test_ten_x_takes_labels_from_a_table(tmp_path):
    a = study(); ten_x(tmp_path/'cells.h5', a)
    res = call('run', tmp_path/'cells.h5', *keys, '--out', tmp_path/'out')
    assert res.exit_code==1 and '--obs labels.csv' in res.output and a.obs_names[0] in res.output and res.output.count('\n')==1
    a.obs[5:].to_csv(tmp_path/'labels.csv')
    res = call('inspect', tmp_path/'cells.h5', '--obs', tmp_path/'labels.csv')
    assert res.exit_code==0 and f'--obs {tmp_path}/labels.csv' in res.output and f'5 of {len(a)} cells have no row' in res.output, res.output
    res = call('run', tmp_path/'cells.h5', *keys, *quick, '--obs', tmp_path/'labels.csv', '--out', tmp_path/'out')
    assert res.exit_code==0, res.output
    a[5:].write_h5ad(tmp_path/'cells.h5ad')
    assert call('run', tmp_path/'cells.h5ad', *keys, *quick, '--out', tmp_path/'same').exit_code==0
    x, y = (ad.read_h5ad(tmp_path/o/'predictions.h5ad') for o in ('out','same'))
    assert (x.X!=y.X).nnz==0 and list(x.obs_names)==list(y.obs_names)
    res = call('run', tmp_path/'cells.h5', *keys, '--obs', tmp_path/'labels.csv', '--backed', '--out', tmp_path/'no')
    assert res.exit_code==1 and '--backed' in res.output and not (tmp_path/'no').exists()
    res = call('predict', tmp_path/'out', tmp_path/'cells.h5', '--obs', tmp_path/'labels.csv', '--target', 'IFNB', '--out', tmp_path/'p.h5ad')
    assert res.exit_code==0 and len(ad.read_h5ad(tmp_path/'p.h5ad'))==(a[5:].obs.condition=='control').sum(), res.output

def test_ten_x_holds_several_kinds_and_names_twice(tmp_path):
    a = study(100); kinds = ['Gene Expression']*290+['Antibody Capture']*10
    ten_x(tmp_path/'cells.h5', a, kinds, [*a.var_names[:-1], a.var_names[1]])
    assert list(read_cells(tmp_path/'cells.h5').var_names)==list(a.var_names[:290])
    assert read_cells(tmp_path/'cells.h5', 'Antibody Capture').n_vars==10
    with pytest.raises(InputError, match='Antibody Capture'): read_cells(tmp_path/'cells.h5', 'protein')
    ten_x(tmp_path/'twice.h5', a, names=[*a.var_names[:-1], a.var_names[1]])
    with pytest.warns(Note, match='--gene-key'): assert read_cells(tmp_path/'twice.h5').var_names[-1]==f'{a.var_names[1]}-1'

# ---- MuData
def test_mudata_needs_a_modality_if_it_has_several(tmp_path):
    a = study(); protein = a[:,:5].copy(); protein.var_names = 'p'+protein.var_names
    mudata(tmp_path/'two.h5mu', rna=a, protein=protein); mudata(tmp_path/'one.h5mu', rna=a)
    same(read_cells(tmp_path/'one.h5mu'), a); same(read_cells(tmp_path/'two.h5mu', 'rna'), a)
    for command in (['inspect'], ['run', '--out', tmp_path/'out'], ['score', tmp_path/'two.h5mu']):
        res = call(*command, tmp_path/'two.h5mu', '--condition-key', 'condition')
        assert res.exit_code==1 and 'rna' in res.output and 'protein' in res.output and '--modality' in res.output and res.output.count('\n')==1, res.output
    look = call('inspect', tmp_path/'two.h5mu', '--modality', 'rna')
    assert look.exit_code==0 and '--modality rna' in look.output
    res = call('new', tmp_path/'study', '--data', tmp_path/'two.h5mu', '--modality', 'rna')
    assert res.exit_code==0 and "modality='rna'" in (tmp_path/'study'/'study.ipynb').read_text(), res.output
    assert read_subsample(tmp_path/'two.h5mu', ['condition'], 5, modality='rna').obs.condition.value_counts().eq(5).all()
    board = call('score', tmp_path/'two.h5mu', tmp_path/'two.h5mu', '--modality', 'rna', '--condition-key', 'condition', '--max-cells', '50')
    assert board.exit_code==0, board.output

def test_a_protocol_takes_a_modality(tmp_path, warm_folds):
    a = study(1400); a = a[a.obs.cell_type.isin(['CD14 Mono','CD4 Naive T']).to_numpy()].copy() # two folds
    mudata(tmp_path/'two.h5mu', rna=a, other=a[:,:5].copy())
    res = call('run', tmp_path/'two.h5mu', '--modality', 'rna', *keys, *quick, '--holdout', 'each', '--jobs', '1', '--out', tmp_path/'out')
    assert res.exit_code==0, res.output
    assert {o.parent.name for o in (tmp_path/'out').glob('*/report.html')}=={'CD14_Mono','CD4_Naive_T'}

def test_an_h5ad_has_no_modality(tmp_path):
    study(100).write_h5ad(tmp_path/'a.h5ad')
    with pytest.raises(InputError, match='--modality'): speedrun(tmp_path/'a.h5ad', modality='rna', condition_key='condition')

# ---- genes by a column of var
def test_score_takes_genes_by_a_column(tmp_path):
    a = study(); half = np.arange(len(a))%2==0
    a[half].write_h5ad(tmp_path/'pred.h5ad'); a.write_h5ad(tmp_path/'real.h5ad')
    a.var = pd.DataFrame({'symbol': a.var_names}, 'ENSG'+a.var_names); a.write_h5ad(tmp_path/'ids.h5ad')
    args = ['--condition-key', 'condition']
    plain = call('score', tmp_path/'pred.h5ad', tmp_path/'real.h5ad', *args)
    named = call('score', tmp_path/'pred.h5ad', tmp_path/'ids.h5ad', *args, '--gene-key', 'symbol')
    assert plain.exit_code==0 and named.output==plain.output, named.output
    for more,word in (([], 'no gene name in common'), (['--gene-key', 'name'], "'name'")):
        res = call('score', tmp_path/'pred.h5ad', tmp_path/'ids.h5ad', *args, *more)
        assert res.exit_code==1 and word in res.output and res.output.count('\n')==1, res.output

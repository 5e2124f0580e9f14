"Which genes change: the table of a run, against scanpy; and genes named by a column."
import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import InputError
from pertnb.data import PertData
from pertnb.datasets import demo, known_datasets
from pertnb.generation import generate
from pertnb.saving import load_model
from pertnb.tables import de_agreement, differential_expression
from pertnb.template import inspect_dataset

names = known_datasets['demo'][1]
args = ['--condition-key', 'condition', '--cell-type-key', 'cell_type', '--size-key', 'total_counts', '--target', 'IFNB']
quick = ['--epochs', '2', '--n-genes', '100', '--embedding', 'pca']

def by_id(n=800):
    "The demo, its genes named by identifiers, their symbols in a column of `var`"
    a = demo(n)
    del a.varm['true_mean'], a.uns['demo']
    a.var = pd.DataFrame({'symbol': a.var_names}, index=[f'ENSG{i:011}' for i in range(a.n_vars)])
    return a

def call(*words): return CliRunner().invoke(main, [str(o) for o in words])

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run on such a file: the file, the folder, what was printed"
    d = tmp_path_factory.mktemp('differential')
    by_id().write_h5ad(d/'ids.h5ad')
    res = call('run', d/'ids.h5ad', *args, *quick, '--gene-key', 'symbol', '--out', d/'out', '--verbose')
    assert res.exit_code==0, res.output
    return d/'ids.h5ad', d/'out', res.output

def test_a_run_writes_what_scanpy_finds_in_its_cells(run):
    _, out, said = run
    table = pd.read_csv(out/'differential.csv')
    pred, real = ad.read_h5ad(out/'predictions.h5ad'), ad.read_h5ad(out/'real.h5ad')
    for cells,suffix in ((pred[pred.obs['mode']=='C'], ''), (real[real.obs.condition=='IFNB'], '_real')):
        both = ad.concat([cells, real[real.obs.condition=='control']])
        both.obs['condition'] = both.obs.condition.astype('category')
        with np.errstate(invalid='ignore'): sc.tl.rank_genes_groups(both, 'condition', groups=['IFNB'], reference='control', method='wilcoxon', tie_correct=True)
        want = sc.get.rank_genes_groups_df(both, 'IFNB').set_index('names')
        ours = table[table.cell_type=='all'].set_index('names').loc[want.index]
        for name in ('logfoldchanges','pvals_adj'): np.testing.assert_allclose(ours[name+suffix], want[name], rtol=1e-3, atol=1e-5)
    assert 'differential.csv' in said and 'Differential expression (FDR < .05)' in said
    report = (out/'report.html').read_text()
    assert 'Differential expression' not in report

def test_its_agreement_stands_in_the_table(run):
    table = pd.read_csv(run[1]/'differential.csv')
    by_hand = table[table.cell_type=='all']
    real = by_hand[by_hand.pvals_adj_real<.05]
    assert len(real)>2
    assert by_hand['sign'].iloc[0]==pytest.approx((np.sign(real.logfoldchanges)==np.sign(real.logfoldchanges_real)).mean(), abs=1e-5)
    assert by_hand.spearman.iloc[0]==pytest.approx(real.logfoldchanges.corr(real.logfoldchanges_real, 'spearman'), abs=1e-5)
    again = de_agreement(table).set_index('cell_type')
    for t,rows in table.groupby('cell_type'): assert rows.overlap.nunique()<=1 and rows.overlap.iloc[0]==pytest.approx(again.overlap[t], abs=1e-5, nan_ok=True)

def test_genes_have_the_names_of_the_column(run):
    file, out, _ = run
    symbols = set(ad.read_h5ad(file).var.symbol)
    for name in ('predictions.h5ad','real.h5ad'): assert set(ad.read_h5ad(out/name).var_names)<=symbols
    assert set(pd.read_csv(out/'differential.csv').names)<=symbols
    same = call('run', file, *args, *quick, '--gene-key', 'symbol', '--backed', '--out', out.parent/'backed')
    assert same.exit_code==0, same.output
    a, b = (ad.read_h5ad(o/'predictions.h5ad') for o in (out, out.parent/'backed'))
    assert list(a.var_names)==list(b.var_names)

def test_control_cells_for_a_saved_model_are_read_alike(run):
    file, out, _ = run
    model, cells = load_model(out/'model'), ad.read_h5ad(file)
    controls = cells[cells.obs.condition=='control'].copy()
    made = generate(model, controls, 'IFNB', progress=False)
    assert set(made.var_names)<=set(cells.var.symbol)
    del controls.var['symbol']
    with pytest.raises(InputError, match="var column 'symbol'"): generate(model, controls, 'IFNB', progress=False)

@pytest.mark.parametrize('change,word', [(lambda s: s.where(np.arange(len(s))!=1, s.iloc[0]), 'Duplicate gene names in var'), (lambda s: s.where(np.arange(len(s))!=1, None), '1 gene(s) have no name'),
                                         (lambda s: s.rename('other'), "'symbol'")])
def test_bad_names_are_refused_in_one_line(change, word, tmp_path):
    a = by_id()
    new = change(a.var.symbol.astype(object))
    a.var = new.to_frame()
    a.write_h5ad(tmp_path/'bad.h5ad')
    for more in ([], ['--backed']):
        res = call('run', tmp_path/'bad.h5ad', *args, *quick, '--gene-key', 'symbol', *more, '--out', tmp_path/'out')
        assert res.exit_code==1 and res.output.count('\n')==1 and word in res.output, res.output
        assert [o.name for o in tmp_path.iterdir()]==['bad.h5ad']
    if 'Duplicate' in word: assert a.var.symbol.iloc[0] in res.output and '--gene-key' in res.output

def test_inspect_proposes_a_run_with_the_column():
    look = inspect_dataset(by_id(), gene_key='symbol')
    assert not look.refused and look.keys['gene_key']=='symbol' and '--gene-key symbol' in repr(look)

def test_backed_subsets_have_their_own_names(tmp_path):
    by_id().write_h5ad(tmp_path/'a.h5ad')
    a = ad.read_h5ad(tmp_path/'a.h5ad', backed='r')[:, ::3]
    assert list(PertData(a, **names, gene_key='symbol').genes)==list(by_id().var.symbol[::3])

def test_other_peoples_cells():
    "Two targets, controls as an AnnData, types too small left out"
    rng = np.random.default_rng(0)
    X = np.log1p(rng.poisson(1, (180,6))*1.5)
    X[60:120,2] += 2
    obs = pd.DataFrame({'drug': ['no']*60+['x']*60+['y']*60, 'type': (['a']*52+['b']*8)*3}, index=[f'c{i}' for i in range(180)])
    cells = ad.AnnData(X, obs, pd.DataFrame(index=[*'ABCDEF']))
    table = differential_expression(cells[60:], cells[:60], 'drug', 'type', method='t-test')
    assert table.groupby(['target','cell_type'], sort=False).size().to_dict()=={('x','all'): 6, ('x','a'): 6, ('y','all'): 6, ('y','a'): 6}
    assert table[table.target=='x'].groupby('cell_type').names.first().to_dict()=={'all': 'C', 'a': 'C'}
    assert (table[table.target=='y'].pvals_adj>.05).all()

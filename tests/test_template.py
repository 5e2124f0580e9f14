"`pertnb new`: the study it writes runs top to bottom, on the demo, on real files, on odd names."
import json, os
from pathlib import Path
import anndata as ad
import pytest
import matplotlib
from pertnb.datasets import demo
from pertnb.template import new_dataset

real = Path(os.environ.get('PERTNB_DATA', '.'))

def odd(path):
    a = demo(800)
    a.obs = a.obs.rename(columns={'condition': 'Given (24 h)', 'cell_type': 'my "cell type"'})
    a.obs['Given (24 h)'] = a.obs['Given (24 h)'].astype(str).replace({'control': 'PBS', 'IFNB': "IFN-β 'high'"})
    a.layers['raw counts'], a.X = a.X, a.X.log1p()
    del a.varm['true_mean'], a.uns['demo']
    a.write_h5ad(path)
    return path

known_datasets = {'demo': (lambda d: 'demo', {}), 'odd': (lambda d: odd(d/"odd 'names'.h5ad"), {}),
           'kang': (lambda d: real/'kang18_ifnb_2800.h5ad', {}), 'norman': (lambda d: real/'norman19_mini.h5ad', {})}

@pytest.mark.parametrize('name', [pytest.param(o, marks=[pytest.mark.real]*(o in ('kang','norman'))) for o in known_datasets])
def test_a_new_study_runs_top_to_bottom(name, tmp_path, monkeypatch):
    make, said = known_datasets[name]
    data = make(tmp_path)
    if name in ('kang','norman') and not data.exists(): pytest.skip(f'{data.name} is not here (PERTNB_DATA)')
    monkeypatch.chdir(tmp_path); matplotlib.use('Agg')
    look = new_dataset(tmp_path/'study', data, **said)
    monkeypatch.chdir(tmp_path/'study')
    cells = json.loads((tmp_path/'study'/'study.ipynb').read_text())['cells']
    assert len(cells)<20 and all(len(c['source'].splitlines())<=10 for c in cells)
    code = '\n'.join(c['source'] for c in cells if c['cell_type']=='code').replace('seed=0)', "seed=0, epochs=2, n_genes=200, embedding='pca', progress=False)")
    names = {}
    exec(code, names)
    assert names['run'].settings['target']==look.keys['target'] and (tmp_path/'study'/'results'/'report.html').exists()
    board = names['run'].scoreboard
    assert {'mode B · counterfactual','mode C · count transfer','control','ceiling'} <= set(board.prediction)

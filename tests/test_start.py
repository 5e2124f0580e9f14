"A run that goes on from a trained model."
import json
import pytest
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.datasets import demo, known_datasets
from pertnb.run import command_of
from pertnb.saving import load_model

@pytest.fixture(scope='module')
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp('data')/'cells.h5ad'
    demo(800).write_h5ad(path)
    return path

def call(cells, out, *more):
    given = {k: v for k,v in known_datasets['demo'][1].items() if k!='separator'}
    keys = [word for k,v in given.items() for word in ('--'+k.replace('_','-'), v)]
    return CliRunner().invoke(main, ['run', str(cells), *keys, '--target', 'IFNB', '--epochs', '1', '--n-genes', '80', '--embedding', 'pca', '--out', str(out), *more])

@pytest.fixture(scope='module')
def first(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp('start')/'first'
    res = call(cells, out, '--n-latent', '6')
    assert res.exit_code==0, res.output
    return out

def test_goes_on_from_a_run(cells, first, tmp_path):
    import pandas as pd
    outs = {k: tmp_path/k for k in ('again','nothing')}
    for k,more in (('again', ['--start', str(first)]), ('nothing', ['--n-latent', '6'])):
        res = call(cells, outs[k], *more)
        assert res.exit_code==0, res.output
    fit = {k: pd.read_csv(out/'history.csv').reconstruction.iloc[-1] for k,out in outs.items()}
    assert fit['again']>fit['nothing'], fit
    run = json.loads((outs['again']/'run.json').read_text())
    assert run['n_latent']==6 and run['start']==str(first) and f'--start {first}' in command_of(run)
    assert load_model(outs['again']/'model').sizes['n_latent']==6

@pytest.mark.parametrize('more, word', [(['--start', 'nowhere'], 'nowhere'), (['--n-latent', '7'], 'n_latent=7, there 6')])
def test_refused_in_a_line(cells, first, tmp_path, more, word):
    res = call(cells, tmp_path/'out', '--start', str(first), *more)
    assert res.exit_code==1 and word in res.output and not (tmp_path/'out').exists(), res.output

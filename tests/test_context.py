"The context: what effects are pooled by, and what is held out together."
import json
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.datasets import known_datasets, simulate_study
from pertnb.run import command_of
from pertnb.speedrun import predict

size_key = known_datasets['demo'][1]['size_key']

@pytest.fixture(scope='module')
def path(tmp_path_factory):
    a = simulate_study('shared', n_types=3, n_cells=400, seed=0)
    a.obs['donor'] = pd.Categorical(np.resize(['D1','D2','D3'], a.n_obs))
    a.write_h5ad(path := tmp_path_factory.mktemp('context')/'donors.h5ad')
    return path

def call(path, out, *more):
    return CliRunner().invoke(main, ['run', str(path), '--condition-key', 'condition', '--size-key', size_key,
        '--target', 'drug 1', '--epochs', '1', '--n-genes', '60', '--embedding', 'pca', '--out', str(out), *more])

@pytest.fixture(scope='module')
def out(path, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs')/'both'
    res = call(path, out, '--context', 'donor,cell_type', '--covariate', 'donor', '--holdout', 'D2 · type 1')
    assert res.exit_code==0, res.output
    return out

def test_donor_and_type_are_one_context(out):
    run, config = (json.loads((out/name).read_text()) for name in ('run.json','model/config.json'))
    assert config['keys']['cell_type_key']=='donor,cell_type'
    assert {t for t,_ in config['groups']}<={f'D{i} · type {j}' for i in (1,2,3) for j in (0,1,2,3)}
    assert ['D2 · type 1','drug 1'] not in config['groups'] and ['D2 · type 1','control'] in config['groups']
    command = command_of(run)
    assert '--context-key donor,cell_type' in command and '--cell-type-key' not in command
    assert set(pd.read_csv(out/'scoreboard.csv').cell_type)-{'all','mean'}<={'D2 · type 1'}

def test_its_model_reads_new_cells_by_the_same_columns(out, path):
    import anndata as ad
    a = ad.read_h5ad(path)
    cells = predict(out, a, 'drug 1', progress=False)
    assert set(cells.obs['donor,cell_type'])=={f'{d} · {t}' for d,t in zip(a.obs.donor, a.obs.cell_type)}

def test_columns_held_out_together(path, tmp_path):
    res = call(path, tmp_path/'out', '--cell-type-key', 'cell_type', '--holdout', 'donor=D2,cell_type=type 1')
    assert res.exit_code==0, res.output
    assert 'held-out cells of donor D2 and cell_type type 1' in ' '.join(res.output.split())
    import anndata as ad
    a, real = ad.read_h5ad(path), ad.read_h5ad(tmp_path/'out/real.h5ad')
    assert len(real) and set(a.obs.loc[real.obs_names, 'donor'])=={'D2'} and set(real.obs.cell_type)=={'type 1'}

@pytest.mark.parametrize('more, word', [
    (['--context', 'donor,plate'], "'plate'"), (['--context', 'donor', '--cell-type-key', 'cell_type'], 'leaves out'),
    (['--holdout', 'donor=D2,cell_type=no'], "'no'"), (['--context', 'donor,condition'], 'at once')])
def test_refused_in_a_line(path, tmp_path, more, word):
    res = call(path, tmp_path/'out', *more)
    assert res.exit_code==1 and word in res.output and len(res.output.splitlines())==1, res.output
    assert not (tmp_path/'out').exists()

def test_scores_and_coverage_by_context_and_donor(out):
    table = pd.read_csv(out/'scoreboard_by_context.csv')
    assert list(table.columns[:5])==['by','context','cells','prediction','metric']
    found = set(zip(table.by, table.context))
    assert found=={('donor,cell_type','D2 · type 1'), ('donor','D2')}, found
    held = table[table.metric=='coverage']
    assert held.value.between(0, 1).all() and set(zip(held.by, held.context))==found
    assert held.note.str.match(r'\d+% intervals').all()
    r = table[(table.metric=='r') & table.prediction.str.startswith('mode C')].set_index('by').value
    assert abs(r['donor']-r['donor,cell_type'])<1e-6 # the same cells, whatever they are known by
    report = (out/'report.html').read_text(encoding='utf-8')
    assert 'Each cell type and donor by itself' in report and '<details>' in report and 'D2 · type 1' in report

"Many perturbations at once: one command, one training, all targets in one folder."
import re
from html import unescape
import anndata as ad
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pertnb.cli import main
from pertnb.core import InputError, Note
from pertnb.data import PertData
from pertnb.datasets import demo, known_datasets, simulate_study
from pertnb.speedrun import speedrun
from pertnb.task import choose_targets, read_targets, Task
from test_report import Page, needs_browser

names = ['drug 1', 'drug 2', 'drug, third']
keys = ['--condition-key', 'condition', '--cell-type-key', 'cell_type']
quick = ['--epochs', '2', '--embedding', 'pca', '--n-genes', '120']

def study():
    "A simulated study of three targets, one of whose labels holds a comma"
    a = simulate_study('shared', n_types=2, n_perturbations=3, n_cells=60, seed=1)
    a.obs['condition'] = a.obs.condition.astype(str).replace({'drug 3': names[2]})
    return a

def run(*args): return CliRunner().invoke(main, ['run', *map(str, args)])

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "The study as a file, a run of all its targets, and what the command said"
    d = tmp_path_factory.mktemp('targets')
    study().write_h5ad(d/'study.h5ad')
    done = run(d/'study.h5ad', *keys, *quick, '--target', 'all', '--out', d/'out', '--verbose')
    assert done.exit_code==0, done.output
    return d, done.output

def test_the_folder(folder, saved_run):
    "The files of a run of one target but the scores by context, and three more"
    d, _ = folder
    one, several = ({o.name for o in place.iterdir()} for place in (saved_run[1], d/'out'))
    assert several-one=={'targets.csv','targets.png','targets.svg'} and one-{'scoreboard_by_context.csv'}<=several
    pred, real = (ad.read_h5ad(d/'out'/f'{o}.h5ad') for o in ('predictions','real'))
    assert set(pred.obs.condition)==set(real.obs.condition)=={'control', *names} and pred.obs_names.is_unique
    counts = pd.crosstab(pred.obs.condition, pred.obs['mode'])
    assert counts.loc[names].nunique().eq(1).all() and (counts.loc[names]>0).all(axis=None) # as many of each
    board = pd.read_csv(d/'out'/'scoreboard.csv')
    assert board.condition.iloc[0]=='mean' and set(board.condition)=={'mean', *names}
    assert board[(board.metric=='discrimination') & (board.condition=='mean')].value.notna().any()
    shifts = pd.read_csv(d/'out'/'shifts.csv')
    assert list(shifts.columns)==['gene','condition','shift','low','high','coverage','real'] and len(shifts)==3*real.n_vars

def test_the_table(folder):
    d, said = folder
    table, board = pd.read_csv(d/'out'/'targets.csv', index_col='target'), pd.read_csv(d/'out'/'scoreboard.csv')
    assert set(table.index)==set(names) and table.effect.is_monotonic_decreasing and set(table.verdict)<={'better','not told apart','worse'}
    real = ad.read_h5ad(d/'out'/'real.h5ad')
    assert table.cells.to_dict()==real.obs.condition.value_counts()[names].to_dict()
    for k,mode in dict(B='mode B · counterfactual', C='mode C · count transfer').items():
        rows = board[(board.prediction==mode) & (board.cell_type=='all')].pivot(index='condition', columns='metric')
        for o in ('r','J50','E'):
            np.testing.assert_allclose(table[f'{k}_{o}'], rows['value'][o][table.index])
            np.testing.assert_allclose(table[f'{k}_{o}_calibrated'], rows['calibrated'][o][table.index])
    rules = board[(board.cell_type=='all') & (board.metric=='r') & board.prediction.isin(['mean shift','mean shift, pooled'])]
    assert (table.rule_r>=rules.groupby('condition').value.max()[table.index]-1e-9).all()
    lines = said.split('\n')
    assert all(sum(o.startswith(k) for o in lines)==1 for k in names) and 'Mean over 3 targets' in said and 'targets.csv' in said

def test_the_report(folder):
    "All names, nothing from elsewhere, not heavy; labels are text"
    page = (folder[0]/'out'/'report.html').read_text()
    assert not re.search(r'(?:src|href)="(?!data:)|url\(|@import|fetch\(|https?://(?!www.w3.org)', page) and len(page)<5e6
    body = re.search('<tbody>(.*?)</tbody>', page[page.index('id="targets"'):])[1]
    assert [unescape(o) for o in re.findall('data-target="([^"]*)"', body)]==list(pd.read_csv(folder[0]/'out'/'targets.csv').target)
    assert all(re.search('alt="[^"]{20,}"', o) for o in re.findall('<img[^>]*>', page)) and page.count('</script>')==1
    assert 'pertnb run' in page and '--target all' in page

@needs_browser
def test_the_table_sorts_and_filters_by_keyboard(folder):
    table = pd.read_csv(folder[0]/'out'/'targets.csv', index_col='target')
    with Page((folder[0]/'out'/'report.html').as_uri()) as page:
        order = lambda: page.js("[...document.querySelectorAll('#targets tbody tr')].filter(o => !o.hidden).map(o => o.cells[0].textContent).join('|')").split('|')
        enter = lambda: [page('Input.dispatchKeyEvent', type=o, key='Enter', code='Enter', windowsVirtualKeyCode=13, text='\r') for o in ('keyDown','keyUp')]
        assert order()==list(table.index)
        column = [o.split(',')[0] for o in page.js("[...document.querySelectorAll('#targets th button')].map(o => o.textContent).join('|')").split('|')].index('genes shifted')
        page.js(f"document.querySelectorAll('#targets thead button')[{column}].focus()")
        enter(); assert [table.genes_shifted[k] for k in order()]==sorted(table.genes_shifted, reverse=True)
        enter(); assert [table.genes_shifted[k] for k in order()]==sorted(table.genes_shifted)
        page.js("document.querySelector('#targets thead button').focus()"); enter(); assert order()==sorted(names)
        page.js("byId('filter').value = 'DRUG third'; byId('filter').dispatchEvent(new Event('input'))")
        assert order()==[names[2]] and page.js("byId('shown').textContent")=='1 of 3'
        page.js("document.querySelector(`[data-target='drug, third']`).focus()"); enter()
        assert page.js('target.value')==names[2]==page.js("byId('panels').alt.match(/of (.*):/)[1]")
        assert page.js("byId('words').textContent").startswith('Mode B') and page.js("byId('picture').querySelectorAll('polyline').length")==3

def test_one_target_is_as_in_the_joint_run(folder, tmp_path):
    "Held-out cells, genes, model and controls are the same, so the predicted cells are, to the bit; its command is the one the run names"
    d, _ = folder
    done = run(d/'study.h5ad', *keys, *quick, '--target', names[2], '--out', tmp_path/'out') # the label itself, comma and all
    assert done.exit_code==0, done.output
    assert not (tmp_path/'out'/'targets.csv').exists()
    alone, joint = (ad.read_h5ad(o/'out'/'predictions.h5ad') for o in (tmp_path, d))
    assert set(alone.obs.condition)=={'control', names[2]}
    joint = joint[alone.obs_names]
    assert (alone.X!=joint.X).nnz==0 and (alone.layers['counts']!=joint.layers['counts']).nnz==0
    boards = [pd.read_csv(o/'out'/'scoreboard.csv') for o in (tmp_path, d)]
    one, of_all = (b[(b.condition==names[2]) & (b.cell_type!='mean') & ~b.metric.isin(['r vs mean','discrimination'])].reset_index(drop=True) for b in boards)
    pd.testing.assert_frame_equal(one, of_all)
    one, of_all = (pd.read_csv(o/'out'/'differential.csv') for o in (tmp_path, d))
    assert set(one.target)=={names[2]} and set(of_all.target)==set(names) and set(of_all.cell_type)==set(one.cell_type)>{'all'}
    pd.testing.assert_frame_equal(one, of_all[of_all.target==names[2]].reset_index(drop=True), check_dtype=False) # a column of ones is read as int

def test_a_target_of_the_run_is_a_run(folder, tmp_path):
    several = speedrun(study(), 'condition', cell_type_key='cell_type', target=names[:2], epochs=2, n_genes=120, embedding='pca', progress=False)
    several['drug 2'].save(tmp_path/'one')
    assert 'targets.csv' not in {o.name for o in (tmp_path/'one').iterdir()} and 'drug 2' in (tmp_path/'one'/'report.html').read_text()
    assert several.settings['targets']==names[:2] and several.settings['target']==names[:2]
    with pytest.raises(InputError, match='drug 2'): several['drug 3']

def test_names(tmp_path):
    data = PertData(study(), 'condition', cell_type_key='cell_type')
    (tmp_path/'names.txt').write_text('drug 2\n\n drug, third \ndrug 2\n')
    assert read_targets(data, f'@{tmp_path}/names.txt')==['drug 2', names[2]]
    assert read_targets(data, names[2])==[names[2]] and read_targets(data, 'drug 1,"drug, third"')==['drug 1', names[2]]
    assert choose_targets(data, 'all')[0]==names
    from pertnb.run import command_of
    assert command_of(dict(source='x', target=names)).endswith("""--target 'drug 1,drug 2,"drug, third"'""")

@pytest.mark.parametrize('target, word', [('drug 1,drug 9', 'drug 9'), ('drug 1,control', 'control'), ('@no/such', 'no/such'), (',', 'names no condition'), ('drug 1,drug 2 --holdout drug 1', 'one target')])
def test_wrong_names_end_in_a_line(folder, tmp_path, target, word):
    target, *more = target.split(' --holdout ')
    done = run(folder[0]/'study.h5ad', *keys, *quick, '--target', target, *(['--holdout', *more] if more else []), '--out', tmp_path/'out')
    assert done.exit_code==1 and word in done.output and done.output.strip().count('\n')==0 and not list(tmp_path.iterdir()), done.output

def test_those_left_out_are_named():
    data = PertData(demo(240), **known_datasets['demo'][1])
    targets, left = choose_targets(data, 'all')
    assert set(targets)=={'IFNB','drugB'} and '2 of 4' in left and 'drugA' in left
    with pytest.raises(InputError, match='drugA'): Task.split(data, ['IFNB','drugA'])      # by name it is refused
    with pytest.warns(Note, match='left out'): few = speedrun(demo(240), 'condition', cell_type_key='cell_type', target='all', epochs=1, n_genes=100, embedding='pca', progress=False)
    assert left in few.settings['notes'] and f'Note: {left}' in str(few)

def test_a_cell_type_held_out():
    "All targets of a type that was not seen under any"
    several = speedrun(study(), 'condition', cell_type_key='cell_type', target='drug 1,drug 2', holdout=study().obs.cell_type.iloc[0], epochs=2, n_genes=120, embedding='pca', progress=False)
    assert set(several.real.obs.cell_type)=={study().obs.cell_type.iloc[0]} and set(several.targets.index)=={'drug 1','drug 2'}

def test_max_cells_is_of_each_target():
    data = PertData(study(), 'condition', cell_type_key='cell_type')
    n = pd.Series(Task.split(data, names, n_genes=50, max_cells=12).observed.condition).value_counts()
    assert n.to_dict()=={k: 12 for k in ('control', *names)}

"Names and sentences use the field's words: none that was retired comes back, in code, prose or messages."
import re
from pathlib import Path
import pytest
from execnb.nbio import read_nb

root = Path(__file__).parents[1]
pages = sorted(p for p in (root/'nbs').rglob('[!_]*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts))
files = [*pages, *sorted((root/'bench').rglob('*.py')), root/'README.md', root/'llms.txt']

retired = { # what it was: what it is
    'must_have': 'check_choice', 'listed(': 'shorten(', 'whole_file': 'atomic_path', 'whole_folder': 'atomic_dir', 'write_aside': 'atomic_write', 'take_along': 'attach_training_stats',
    'OnFabric': 'FabricEngine', 'Alone()': 'SingleProcess()', 'Refused': 'NotApplicable', 'half_the_error': 'squared_error_at_2n', 'less_of_it': 'error_at_2n', 'nearer_to_one': 'similarity_at_2n',
    'each_from_the_rest': 'leave_one_out', 'start_at(': 'init_output_bias(', 'Ask(': 'GenerationInput(', 'about_cells': 'prediction_obs', 'values_of': 'prediction_layers', 'joined(': 'concat_blocks(',
    'side_by_side': 'thread_map', 'few_cells': 'read_subsample', 'cells_of(': 'load_for_scoring(', 'put_pcs': 'attach_pca', 'place_cells': 'attach_coordinates', 'as_found': 'controls_adata',
    'start_cells': 'source_controls', 'analogues': 'leave_group_out', 'Miss(': 'ConformalWidth(', 'deal(': 'random_halves(', 'deals': 'n_splits', 'survey(': 'scan_backed(', '.loaded()': '.to_memory()',
    'price of z': 'KL', 'full price': 'final KL weight', 'cells that judge': 'validation cells', 'cells for which you would like to know': 'cells whose response you want to predict',
    'find the forgeries': 'separate predicted from real cells', 'What pays': 'Unseen cell types: benchmark and ablation', 'owned to': 'leave it out', 'nothing is left behind': 'leave no files',
    'Nothing to mend': 'needs no action', 'no word why': 'no error message', 'of no use': 'invalid', 'one to rely on': 'robust', 'control as it is': 'untouched control', 'rivals': 'baseline predictions',
    'usual_target': 'default_target', 'open_study': 'open_dataset', 'inspect_study': 'inspect_dataset', 'new_study': 'new_dataset', 'Study(': 'PerturbationMeans(', 'studies[': 'known_datasets[',
    'lean=': 'shrinkage=', 'leaning on': 'shrinkage towards', 'towards_expected': 'expected_profile', 'shrink_to_expected': 'expected_profile', 'expected_changes': 'expected_profile', 'kernel_weights': 'nearness', 'align=': 'latent_alignment=', '.align(': '.prepare_data(', 'members=': 'n_models=', '--members': '--n-models',
    'target_lines': 'target_rows', 'ceiling_lines': 'ceiling_rows', 'chance=': 'weights=', 'part=(': 'shard=(', 'between()': 'on_step()', 'now:TrainState': 'state:TrainState', 'SimpleNamespace(**{k': 'TrainConfig',
    'change of level': 'log fold change', 'changes of level': 'log fold changes', 'whole or not at all': 'atomically', 'foretold': 'predicted'}

old_words = {'renamed(', 'moved('} # lines that know the old words, so that they still work

def text(path):
    said = path.read_text() if path.suffix!='.ipynb' else '\n'.join(c.source for c in read_nb(path).cells)
    return '\n'.join(line for line in said.split('\n') if not any(word in line for word in old_words))

@pytest.mark.parametrize('path', files, ids=lambda o: str(o.relative_to(root)))
def test_no_retired_word(path):
    said = text(path)
    found = [f'{k} (now: {v})' for k,v in retired.items() if re.search(r'(?<![\w.])'*k[0].isalpha() + re.escape(k), said)]
    assert not found


def test_old_words_still_work():
    "For one version, and with a note that says the new word"
    from pertnb.core import Note
    from pertnb.data import PertData, choose_genes
    from pertnb.datasets import demo, known_datasets
    from pertnb.generation import generate
    from pertnb.training import fit
    data = PertData(demo(600), **known_datasets['demo'][1])
    train = data.to_genes(choose_genes(data, 50))
    with pytest.warns(Note, match='latent_alignment'): model, _ = fit(train, epochs=1, align=0., progress=False)
    with pytest.warns(Note, match='shrinkage'): old = generate(model, data[data.is_control], 'IFNB', 'C', lean=.1, progress=False)
    assert (old.X!=generate(model, data[data.is_control], 'IFNB', 'C', shrinkage=.1, progress=False).X).nnz==0
    with pytest.warns(Note, match='pertnb.saving'): from pertnb.training import save_model
    with pytest.warns(Note, match='pertnb.judge'): from pertnb.board import score

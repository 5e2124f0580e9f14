"What holds for the package as a whole: layers, light imports, exports in step with the notebooks."
import ast, re, subprocess, sys
from pathlib import Path
import pytest

root = Path(__file__).parents[1]
notebooks = sorted((root/'nbs').glob('[0-9]*.ipynb'))
layer = {o.stem.split('_', 1)[1]: int(o.stem.split('_', 1)[0]) for o in notebooks if 'default_exp' in o.read_text()} # the others are pages only

def imported(module):
    "Our own modules that a module imports"
    for node in ast.walk(ast.parse((root/'pertnb'/f'{module}.py').read_text())):
        if isinstance(node, ast.ImportFrom): # nbdev writes `from .data import *`
            if node.level: yield (node.module or '').split('.')[0]
            elif node.module and node.module.startswith('pertnb.'): yield node.module.split('.')[1]

@pytest.mark.parametrize('module', layer)
def test_imports_only_from_lower_numbers(module):
    above = [o for o in imported(module) if layer[o] >= layer[module]]
    assert not above, f'{module} ({layer[module]}) imports {above}'

def test_every_module_has_its_notebook():
    assert {o.stem for o in (root/'pertnb').glob('[!_]*.py')} == set(layer)

def loaded_after(statement, *names):
    code = f'import sys; {statement}; print([o for o in {names!r} if o in sys.modules])'
    return ast.literal_eval(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)

def test_import_is_light():
    assert loaded_after('import pertnb', 'torch', 'numpy', 'anndata', 'scanpy', 'umap', 'matplotlib') == []
    assert loaded_after('import pertnb.cli', 'scanpy', 'umap', 'pooch', 'sklearn', 'matplotlib.pyplot', 'ot') == []
    assert loaded_after('import pertnb.speedrun', 'torch') == ['torch'] # the check itself works

def test_export_is_in_step(tmp_path):
    from nbdev.export import nb_export
    before = {o.name: o.read_text() for o in (root/'pertnb').glob('*.py')}
    for o in notebooks: nb_export(o, lib_path=root/'pertnb')
    after = {o.name: o.read_text() for o in (root/'pertnb').glob('*.py')}
    for name,text in before.items(): (root/'pertnb'/name).write_text(text)
    assert before == after, 'run nbdev_export'

@pytest.mark.parametrize('path', notebooks, ids=lambda o: o.stem)
def test_page_opens_and_closes_and_each_equation_has_its_code(path):
    from execnb.nbio import read_nb
    cells = [c for c in read_nb(path).cells if not c.source.startswith('#| default_exp')]
    assert re.match(r'# .+\n\n> .+', cells[0].source) and cells[-1].cell_type=='markdown'
    text, code = ('\n'.join(c.source for c in cells if c.cell_type==k) for k in ('markdown','code'))
    without = [o for o in re.findall(r'\{#(eq-[\w-]+)\}', text) if f'@{o}' not in code]
    assert not without, f'equations that no code names: {without}'
    assert text.count('$$')//2==len(re.findall(r'\{#eq-', text)), 'an equation without a name'

def test_notebooks_are_executed_and_clean():
    from execnb.nbio import read_nb
    for o in sorted((root/'nbs').rglob('[!_]*.ipynb')):
        code = [c for c in read_nb(o).cells if c.cell_type=='code']
        outputs = [out for c in code for out in c.outputs]
        bare = [c.source for c in code if any('image/png' in out.get('data', {}) for out in c.outputs) and not (c.get('directives_') or {}).get('fig-cap:') and 'fig-cap' not in c.source]
        assert not bare, f'{o.name}: a picture without a caption'
        assert outputs, f'{o.name} was committed without outputs'
        assert not [out for out in outputs if out.output_type=='error'], o.name
        assert o.stat().st_size < 400_000, f'{o.name} is heavy'

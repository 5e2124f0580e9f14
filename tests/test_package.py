"What holds for the package as a whole: layers, light imports, exports in step with the notebooks."
import ast, os, re, shutil, subprocess, sys
from importlib.metadata import PathDistribution
from pathlib import Path
import pytest
from fastcore.xtras import Config
from packaging.requirements import Requirement

root = Path(__file__).parents[1]
sys.path.insert(0, str(root/'tools'))
from execute import code_of
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

def loaded_after(*steps):
    "Of the packages named with each statement, those that are there after it and those before it"
    lines = '; '.join(f'{statement}; print([o for o in {names!r} if o in sys.modules])' for statement,*names in steps)
    done = subprocess.run([sys.executable, '-c', f'import sys; {lines}'], capture_output=True, text=True, check=True)
    return [ast.literal_eval(o) for o in done.stdout.splitlines()]

def test_import_is_light():
    slow = 'scanpy', 'umap', 'pooch', 'sklearn', 'matplotlib.pyplot', 'ot'
    found = loaded_after(('import pertnb', 'torch', 'numpy', 'anndata', 'scanpy', 'umap', 'matplotlib'), ('import pertnb.template', 'torch', *slow),
                         ('import pertnb.protocols', *slow), ('import pertnb.speedrun', 'torch'))
    assert found==[[], [], [], ['torch']] # the last: the check itself works

def packages_of(code, **env):
    "Packages, beside Python's own, that this code imports; and what it prints"
    done = subprocess.run([sys.executable, '-X', 'importtime', '-c', code], capture_output=True, text=True, env=os.environ|env, check=True)
    lines = [o.split('|')[-1].strip() for o in done.stderr.splitlines() if o.startswith('import time:')]
    return {o.split('.')[0] for o in lines[1:]}-sys.stdlib_module_names, done.stdout

light, call = {'click','fastcore','pertnb'}, 'from pertnb.cli import main; main({!r}, prog_name="pertnb", standalone_mode=False)'
completion = dict(_PERTNB_COMPLETE='bash_complete', COMP_WORDS='pertnb run --hold', COMP_CWORD='2')

@pytest.mark.parametrize('args, env, said', [(['--help'], {}, 'inspect'), (['--version'], {}, 'version'), (['run','--help'], {}, '--holdout'),
                                             (['predict','--help'], {}, '--shrinkage'), ([], completion, 'plain,--holdout')], ids=['help','version','run','predict','completion'])
def test_what_comes_at_once_imports_next_to_nothing(args, env, said):
    before, _ = packages_of('import pickle') # what the installation itself imports, and Python's own try
    code = f'import contextlib\nwith contextlib.suppress(SystemExit): {call.format(args)}'
    found, printed = packages_of(code, **env)
    assert said in printed and 'pertnb' in found and found-before<=light, found-before-light

def test_inspect_imports_anndata_and_nothing_else_that_is_slow(tmp_path):
    from pertnb.datasets import demo
    demo(600).write_h5ad(tmp_path/'cells.h5ad')
    found, printed = packages_of(call.format(['inspect', str(tmp_path/'cells.h5ad')]))
    needed, _ = packages_of('import anndata, anndata.io')
    assert 'A run can start' in printed and 'anndata' in found and found-needed<=light, found-needed-light
    assert not found & {'torch','scanpy','sklearn','matplotlib','umap','numba','distributed'}, found

def in_copy(folder, code, *names):
    "Run code where these files of ours, and only these, are"
    for o in names:
        (to := folder/o).parent.mkdir(parents=True, exist_ok=True); shutil.copy2(root/o, to)
    env = {k: v for k,v in os.environ.items() if k!='IN_TEST'} # set by nbdev's tests, and its exporter then does nothing
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode==0, done.stderr[-2000:]

def test_export_is_in_step(tmp_path):
    in_copy(tmp_path, 'from nbdev.doclinks import nbdev_export; nbdev_export()', 'settings.ini', 'pertnb/__init__.py', *(o.relative_to(root) for o in notebooks))
    here, there = ({o.name: o.read_text() for o in (d/'pertnb').glob('*.py')} for d in (root, tmp_path))
    assert set(here)==set(there) and not [o for o in here if here[o]!=there[o]], 'run nbdev_export'

def test_every_requirement_is_offered(tmp_path):
    "Each `X_requirements` of the settings is an extra X of the wheel"
    in_copy(tmp_path, "from setuptools.build_meta import prepare_metadata_for_build_wheel as f; f('.')", 'settings.ini', 'setup.py', 'README.md', 'pertnb/__init__.py')
    wheel, cfg = PathDistribution(next(tmp_path.glob('*.dist-info'))), Config(root, 'settings.ini')
    asked = {k.removesuffix('_requirements'): cfg[k].split() for k in cfg.d if k.endswith('_requirements')}
    assert {'dev','hub'} <= set(asked)==set(wheel.metadata.get_all('Provides-Extra'))
    assert {*map(Requirement, wheel.requires)}=={Requirement(f'{o}; extra == "{k}"') for k,v in asked.items() for o in v} | {*map(Requirement, cfg['requirements'].split())}

def test_nbdev_does_not_make_the_readme():
    "tools/readme.py does; nbdev leaves README.md alone where the page it would take is not there"
    cfg = Config(root, 'settings.ini')
    assert not (root/cfg['nbs_path']/cfg['readme_nb']).exists()

@pytest.mark.parametrize('path', notebooks+sorted((root/'nbs'/'evidence').glob('*.ipynb')), ids=lambda o: o.stem)
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
        assert read_nb(o).metadata.get('executed')==code_of(o), f'{o.name}: its code has changed since it ran; python tools/execute.py {o.relative_to(root)}'
        assert not [out for out in outputs if out.output_type=='error'], o.name
        assert o.stat().st_size < 400_000, f'{o.name} is heavy'

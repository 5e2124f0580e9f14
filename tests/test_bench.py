"The bench scripts say how they are called, from anywhere and without data."
import os, subprocess, sys
from pathlib import Path
import pytest

bench = Path(__file__).parents[1]/'bench'
files = sorted([*bench.glob('*.py'), *bench.glob('peers/*.py')])
scripts = [o for o in files if o.stem!='folds'] # what the others share

@pytest.mark.parametrize('script', scripts, ids=lambda o: str(o.relative_to(bench)))
def test_help(script, tmp_path):
    env = {k: v for k,v in os.environ.items() if k not in ('PERTNB_DATA','PYTHONPATH')}
    done = subprocess.run([sys.executable, script, '--help'], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode==0, done.stderr[-2000:]
    assert 'usage' in done.stdout and not [*tmp_path.iterdir()]

def test_no_name_of_the_standard_library():
    "A script's own folder comes first on the path: bench/types.py would be everybody's `types`"
    assert not [o.name for o in files if o.stem in sys.stdlib_module_names]

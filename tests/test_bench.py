"The bench scripts say how they are called, from anywhere and without data."
import os, sys
from pathlib import Path
import pytest
from child import in_process, script as run_script

bench = Path(__file__).parents[1]/'bench'
files = sorted([*bench.glob('*.py'), *bench.glob('peers/*.py')])
scripts = [o for o in files if o.stem!='folds'] # what the others share

@pytest.mark.parametrize('script', scripts, ids=lambda o: str(o.relative_to(bench)))
def test_help(script, tmp_path):
    code, out, err = in_process(run_script, script, tmp_path, '--help')
    assert code==0, err[-2000:]
    assert 'usage' in out and not [*tmp_path.iterdir()]

def test_no_name_of_the_standard_library():
    "A script's own folder comes first on the path: bench/types.py would be everybody's `types`"
    assert not [o.name for o in files if o.stem in sys.stdlib_module_names]

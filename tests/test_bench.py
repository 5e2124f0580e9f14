"The bench scripts say how they are called, from anywhere and without data."
import os, runpy, sys
from pathlib import Path
import pytest
from child import in_fork

bench = Path(__file__).parents[1]/'bench'
files = sorted([*bench.glob('*.py'), *bench.glob('peers/*.py')])
scripts = [o for o in files if o.stem!='folds'] # what the others share

@pytest.mark.parametrize('script', scripts, ids=lambda o: str(o.relative_to(bench)))
def test_help(script, tmp_path):
    def call():
        for o in ('PERTNB_DATA','PYTHONPATH'): os.environ.pop(o, None)
        os.chdir(tmp_path)
        sys.argv, sys.path[0] = [str(script), '--help'], str(script.parent) # as Python does for a script
        runpy.run_path(str(script), run_name='__main__')
    code, out, err = in_fork(call)
    assert code==0, err[-2000:]
    assert 'usage' in out and not [*tmp_path.iterdir()]

def test_no_name_of_the_standard_library():
    "A script's own folder comes first on the path: bench/types.py would be everybody's `types`"
    assert not [o.name for o in files if o.stem in sys.stdlib_module_names]

"""Seconds until a command answers, each in a process of its own, beside the imports that it may not need.

    python bench/start.py [--runs 5]

Best of the runs: by the clock, and of the processor alone (which others on the machine do not change). The file that is
inspected is the demo's. Writes bench/records/start.csv.
"""
import argparse, os, subprocess, sys, tempfile, time
from pathlib import Path
import pandas as pd
from pertnb.datasets import demo
from pertnb.files import write_h5ad

COMPLETE = dict(_PERTNB_COMPLETE='bash_complete', COMP_WORDS='pertnb run --hold', COMP_CWORD='2')
answer = 'from pertnb.cli import main; main({!r}, prog_name="pertnb")'

def commands(file):
    "Name → code, environment"
    yield from ((f'import {module}', (f'import {module}', {})) for module in ('anndata','torch'))
    for args in (['--help'], ['--version'], ['run','--help'], ['inspect',file]):
        yield ' '.join(['pertnb', *args]).replace(file, 'demo.h5ad'), (answer.format(args), {})
    yield 'completion of pertnb run --hold', (answer.format([]), COMPLETE)

def seconds(code, env):
    "Clock and processor seconds of a fresh process"
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, '-c', code], env=os.environ|env, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return time.perf_counter()-start, sum(after[2:4])-sum(before[2:4])

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--runs', type=int, default=5); n = p.parse_args().runs
    with tempfile.TemporaryDirectory() as d:
        write_h5ad(demo(), file := f'{d}/demo.h5ad')
        rows = [(name, *map(min, zip(*(seconds(*call) for _ in range(n))))) for name,call in commands(file)]
    res = pd.DataFrame(rows, columns=['command','clock','processor']).round(2)
    res.to_csv(Path(__file__).parent/'records'/'start.csv', index=False)
    print(res.to_string(index=False))

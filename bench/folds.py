"What the benches share: one Kang fold with its score, a call in a process of its own, its peak memory, a table that grows."
import json, resource, subprocess
from pathlib import Path
import pandas as pd
from pertnb.files import *
from pertnb.datasets import *
from pertnb.data import *
from pertnb.metrics import metrics
from pertnb.task import Task

def kang_fold(held_out='cells', names=('r','J50','E')):
    "Training cells and control cells; and `score(P)`, a dict, for predicted cells. `held_out`: 'cells', a fifth of them, or a cell type"
    task = Task.split(PertData(kang18(), **known_datasets['kang18'][1]), 'IFNB', None if held_out=='cells' else held_out)
    train, controls, (mean, axes) = task.train, task.controls, task.pcs
    real = task.observed[~task.observed.is_control].x.toarray()
    project = lambda o: (o-mean)@axes
    control = controls.x.toarray()

    def score(predicted):
        sets = dict(genes=(dense(predicted), real, control))
        sets['pcs'] = tuple(map(project, sets['genes']))
        return {m: float(metrics[m](*sets[metrics[m].space])) for m in names}
    return train, controls, score

def own_process(*command):
    "Run a command; its last line of output, read as JSON"
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3 # MB

def keep(path, rows, key):
    "Write rows to a CSV, and return all it holds; those that are there stay, unless the new ones have the same `key`"
    path = Path(path); path.parent.mkdir(exist_ok=True)
    old = [pd.read_csv(path)] if path.exists() else []
    (res := pd.concat([rows, *old]).drop_duplicates(key)).to_csv(path, index=False)
    return res

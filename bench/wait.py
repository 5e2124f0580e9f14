"""What a user waits for: the stages of a run, each in a fresh process, idle and beside a busy neighbour.

    python bench/wait.py OUT [--runs 5] [--data demo kang] [--idle-only]

Writes OUT/wait.csv (medians over runs: seconds, and ratios to the training of the same run) and
OUT/wait.png. The neighbour keeps every core busy. Seconds mean nothing by themselves: the ratios do."""
import argparse, json, os, subprocess, sys, time
from pathlib import Path

import pandas as pd

KANG = 'kang18_ifnb_2800.h5ad'
# stage → the function that is the stage (module, name); a stage's time leaves out stages inside it
STAGES = {'reading': ('pertnb.speedrun','open_dataset'), 'genes': ('pertnb.task','choose_genes'),
          'training': ('pertnb.speedrun','fit'), 'generation': ('pertnb.run','generate_all'),
          'baselines': ('pertnb.task','baselines_for'), 'scoring': ('pertnb.task','scoreboard'),
          'intervals': ('pertnb.run','_all_shifts'), 'embedding': ('pertnb.figure','embed'),
          'figures': ('pertnb.speedrun','save_figure'), 'report': ('pertnb.speedrun','report'),
          'writing': ('pertnb.speedrun','write_h5ad')}

def run_once(data, out):
    "In a fresh process: seconds of every stage, as JSON on the last line"
    t0 = time.perf_counter()
    import importlib, resource, warnings
    warnings.simplefilter('ignore')
    from pertnb.speedrun import speedrun
    spent, inside = {'import': time.perf_counter()-t0}, [0.]
    def timed(stage, f):
        def g(*args, **kwargs):
            t = time.perf_counter(); inside.append(0.)
            try: return f(*args, **kwargs)
            finally:
                took = time.perf_counter()-t
                spent[stage] = spent.get(stage, 0.) + took-inside.pop()
                inside[-1] += took
        return g
    for stage,(module, name) in STAGES.items():
        module = importlib.import_module(module)
        setattr(module, name, timed(stage, getattr(module, name)))
    keys = {} if data=='demo' else dict(condition_key='condition', control='control',
                                        target='IFNB', cell_type_key='cell_type')
    path = 'demo' if data=='demo' else Path(os.environ['PERTNB_DATA'])/KANG
    speedrun(path, **keys, progress=False).save(out)
    spent['whole'] = time.perf_counter()-t0
    spent['other'] = 2*spent['whole']-sum(spent.values())
    spent['MB'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    print(json.dumps(spent))

def neighbour(): return [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(os.cpu_count())]

def measure(data, busy, out):
    spinning = neighbour() if busy else []
    try:
        done = subprocess.run([sys.executable, __file__, str(out), '--once', data], text=True,
                              capture_output=True, check=True)
    finally:
        for process in spinning: process.kill()
    return json.loads(done.stdout.splitlines()[-1])

def picture(table, path):
    import matplotlib; matplotlib.use('agg')
    import matplotlib.pyplot as plt
    whole = table.drop(columns=['whole','MB'])
    ax = whole.div(table.training, axis=0).plot.barh(stacked=True, figsize=(8, 1+.5*len(table)), colormap='tab20')
    ax.set(xlabel='time, in trainings of the same run'); ax.legend(fontsize=7, ncols=2, loc='center left', bbox_to_anchor=(1,.5))
    ax.figure.savefig(path, dpi=150, bbox_inches='tight')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path); parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--data', nargs='+', default=['demo','kang']); parser.add_argument('--once')
    parser.add_argument('--idle-only', action='store_true')
    asked = parser.parse_args()
    if asked.once: return run_once(asked.once, asked.out)
    asked.out.mkdir(parents=True, exist_ok=True)
    rows = [dict(data=data, busy=busy) | measure(data, busy, asked.out/f'{data}-{busy}-{i}')
            for i in range(asked.runs) for data in asked.data for busy in ((False,) if asked.idle_only else (False, True))]
    table = pd.DataFrame(rows).groupby(['data','busy']).median()
    table.to_csv(asked.out/'wait.csv', float_format='%.3f')
    picture(table, asked.out/'wait.png')
    print(table.T.round(2).to_string())
    print('\nwhole run / training:', (table.whole/table.training).round(2).to_dict())
    if not asked.idle_only: print('busy / idle:', table.whole.unstack('busy').pipe(lambda t: t[True]/t[False]).round(2).to_dict())

if __name__=='__main__': main()

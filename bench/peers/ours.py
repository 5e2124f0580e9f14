"pertnb on one fold: python ours.py FOLDER TARGET SEED [EPOCHS]; FOLDER holds train.h5ad and controls.h5ad"
import argparse, json, resource, time, warnings; warnings.simplefilter('ignore')
from pertnb.data import *
from pertnb.training import *
from pertnb.generation import *

def main(folder, target, seed, epochs):
    train = PertData(f'{folder}/train.h5ad', 'condition', cell_type_key='cell_type', layer='counts', size_key='library_size')
    start = time.perf_counter()
    model, history = fit(train, seed=seed, progress=False, **({'epochs': epochs} if epochs else {}))
    seconds = time.perf_counter()-start
    for mode in 'BC': generate(model, f'{folder}/controls.h5ad', target, mode, seed=seed, progress=False).write_h5ad(f'{folder}/pertnb mode {mode}.h5ad')
    print(json.dumps(dict(seconds=seconds, epochs=len(history), peak_MB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3)))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('folder'); p.add_argument('target'); p.add_argument('seed', type=int); p.add_argument('epochs', type=int, nargs='?')
    main(**vars(p.parse_args()))

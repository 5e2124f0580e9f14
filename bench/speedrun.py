"""Seconds of a whole run, part by part, on the processor or on a GPU.

    PERTNB_DATA=../shared/data python bench/speedrun.py [--accelerator cuda] [--data kang18] [--epochs 20] [--batch 128]

Trains the default model on the Kang study (or `--data demo`), predicts, and scores the held-out cells. With an accelerator
the training is Lightning Fabric's, on one device (`pip install 'pertnb[fabric]'`). Prints one line of JSON.
"""
import argparse, json, time, warnings

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--accelerator', default='', help='cpu, cuda, mps; by default no Fabric at all')
    p.add_argument('--precision', default='32-true'); p.add_argument('--data', default='kang18'); p.add_argument('--target', default='IFNB')
    p.add_argument('--epochs', type=int, default=20); p.add_argument('--batch', type=int, default=128); p.add_argument('--n-genes', type=int, default=2000); a = p.parse_args()
    warnings.simplefilter('ignore')
    from pertnb.generation import generate
    from pertnb.metrics import metrics
    from pertnb.files import dense
    from pertnb.speedrun import open_dataset
    from pertnb.state import launch_fabric
    from pertnb.task import Task
    from pertnb.training import fit
    fabric = launch_fabric(1, accelerator=a.accelerator, precision=a.precision) if a.accelerator else None
    task = Task.split(open_dataset(a.data), a.target, n_genes=a.n_genes)
    start = time.perf_counter(); fit(task.train, epochs=1, batch_size=a.batch, fabric=fabric, progress=False); warm_up = time.perf_counter()-start
    start = time.perf_counter(); model, history = fit(task.train, epochs=a.epochs, batch_size=a.batch, fabric=fabric, progress=False); trained = time.perf_counter()-start
    start = time.perf_counter(); predicted = generate(model, task.controls, a.target, progress=False); made = time.perf_counter()-start
    real = task.observed[~task.observed.is_control].x.toarray()
    r = metrics['r'](dense(predicted), real, task.controls.x.toarray())
    print(json.dumps(dict(accelerator=a.accelerator or 'none', precision=a.precision, warm_up_s=warm_up, training_s=trained, cells_trained_per_s=a.epochs*len(task.train)/trained,
                          generation_s=made, cells_made_per_s=predicted.n_obs/made, reconstruction=float(history.reconstruction.iloc[-1]), r=float(r))))

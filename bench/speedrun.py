"""The perturbation speedrun: seconds of training until held-out cells are predicted well.

    PERTNB_DATA=../shared/data python bench/speedrun.py [--recipes plain,default] [--seeds 5]

The track. Kang subset, a fifth of the cells held out (`split_cells`, seed 0), 2,000 genes chosen on the others.
Target: mode B, NB, sampled: r >= .97 and E <= .35 on the held-out cells, in every seed. Timed: training alone,
from cells in memory to the trained model; import and one warm-up epoch are printed, not counted. Recipes take
turns, seed by seed, so that what else the machine does hits them alike; read the ratios.
Writes bench/records/speedrun.json.
"""
import time; start = time.time()
import argparse, json, os, warnings
from pathlib import Path
import numpy as np
import pandas as pd
import torch
from torch import nn
from pertnb.board import fit_pcs
from pertnb.data import *
from pertnb.elbo import *
from pertnb.generation import generate
from pertnb.metrics import metrics
from pertnb.model import *
from pertnb.training import *
imports = time.time()-start

R, E = .97, .35

class DenseNB(NegativeBinomial):
    "The formula as the textbook has it: every term at every entry"
    def log_prob(self, y):
        theta, mu = 1/self.alpha, self.mean
        return (torch.lgamma(y+theta)-torch.lgamma(theta)-torch.lgamma(y+1) + theta*torch.log(theta/(theta+mu)) + y*torch.log(mu/(theta+mu)+1e-12)).sum(1)

def textbook(train, seed, epochs=100, dense=True, start=False, batch_size=128, lr=1e-3, fused=False, n_layers=2, one_cycle=False):
    "The plain recipe of a paper: two layers each way, a constant rate, KL annealed; the levers one by one"
    torch.manual_seed(seed); rng = np.random.default_rng(seed)
    model = CVAE(train.genes, train.conditions, n_latent=10, n_layers=n_layers); model.keys = train.keys
    if start: model.start_at(train)
    if dense: model.decode = lambda z, c, s=None: DenseNB(log_share(model.decoder(z, c))+s.log(), model.decoder.log_scale.exp())
    opt = torch.optim.Adam(model.parameters(), lr, fused=fused)
    per_epoch = len(train)//batch_size; total = epochs*per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=total) if one_cycle else None
    for step in range(total):
        if step%per_epoch==0: batches = train.batches(batch_size, rng)
        b = next(batches)
        mu, logvar = model.encode(b.x, b.c)
        p = model.decode(reparameterise(mu, logvar), b.c, b.s)
        loss = -elbo(p.log_prob(b.y), kl(mu, logvar), anneal(step, total, .2))
        opt.zero_grad(); loss.backward(); opt.step()
        if schedule: schedule.step()
    if dense: del model.decode
    return take_along(model.eval(), train)

recipes = {
    'plain':             lambda t, s: textbook(t, s),
    'sparse likelihood': lambda t, s: textbook(t, s, dense=False),
    'start at the mean': lambda t, s: textbook(t, s, dense=False, start=True),
    'one layer':         lambda t, s: textbook(t, s, dense=False, start=True, n_layers=1),
    'one cycle, 20':     lambda t, s: textbook(t, s, dense=False, start=True, n_layers=1, lr=4e-3, one_cycle=True, epochs=20),
    'default':           lambda t, s: fit(t, seed=s, progress=False)[0]}
for n in (6, 8, 10, 12, 15, 20, 25): recipes[f'fit, {n} epochs'] = lambda t, s, n=n: fit(t, seed=s, progress=False, epochs=n)[0]

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--recipes', default='plain,default'); p.add_argument('--seeds', type=int, default=5)
    p.add_argument('--log', default='speedrun')
    a = p.parse_args(); names = a.recipes.split(','); warnings.simplefilter('ignore')
    cells = PertData(kang18(), **studies['kang18'][1])
    test = split_cells(cells, seed=0)
    train = cells[~test].to_genes(choose_genes(cells[~test]))
    ctrl, real = (cells[test & (cells.condition==o)].to_genes(train.genes) for o in ('control','IFNB'))
    mean, axes = fit_pcs(train.to_adata())
    C, X = ctrl.x.toarray(), real.x.toarray()
    start = time.perf_counter(); fit(train, epochs=1, progress=False); warm = time.perf_counter()-start
    rows = []
    for seed in range(a.seeds):
        for name in names:
            start = time.perf_counter(); model = recipes[name](train, seed); seconds = time.perf_counter()-start
            P = dense(generate(model, ctrl, 'IFNB', 'B', seed=seed, progress=False))
            rows.append(dict(recipe=name, seed=seed, seconds=seconds, r=float(metrics['r'](P, X, C)), J50=float(metrics['J50'](P, X, C)),
                             E=float(metrics['E'](*((o-mean)@axes for o in (P, X, C)))), varR2=float(metrics['variance R2'](P, X, C))))
            print(json.dumps(rows[-1]), flush=True)
    res = pd.DataFrame(rows)
    t = res.groupby('recipe', sort=False).agg(median=('seconds','median'), worst=('seconds','max'), worst_r=('r','min'), worst_E=('E','max'), J50=('J50','mean'), varR2=('varR2','mean'))
    t.insert(1, 'ratio', t['median'].iloc[0]/t['median']); t['reached'] = (t.worst_r>=R) & (t.worst_E<=E)
    print(f'\nimport {imports:.1f} s, warm-up {warm:.1f} s, {torch.get_num_threads()} threads, torch {torch.__version__}\n{t.round(3).to_string()}')
    log = Path(__file__).parent/'records'; log.mkdir(exist_ok=True)
    (log/f'{a.log}.json').write_text(json.dumps(dict(date=time.strftime('%F'), torch=torch.__version__, threads=torch.get_num_threads(), rows=rows), indent=0))

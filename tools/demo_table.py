"""Make `pertnb/demo_genes.csv.gz`, the numbers behind the simulated demo study, from the real Kang cells.

    PERTNB_DATA=../shared/data python tools/demo_table.py

One row a gene. Columns: `log_mean:TYPE` log of the mean count per 1e4 in control cells, `IFNB:TYPE` the log fold change
under IFN-beta, `alpha` the negative binomial dispersion, `load:K` how the gene follows three hidden programmes;
and, invented here and not measured, the effects of two made-up drugs (`drugA:TYPE`, `drugB`).
The second table, `demo_types.csv`, has a row a cell type: its share of the cells and its log library sizes.
Only summary statistics leave the real data; no cell does.
"""
import os
from pathlib import Path
import anndata as ad, numpy as np, pandas as pd

types, n_genes, n_programmes, prior = ['CD14 Mono', 'CD4 Naive T', 'B', 'NK', 'CD8 T'], 1000, 3, 2000
rng = np.random.default_rng(0)
adata = ad.read_h5ad(Path(os.environ['PERTNB_DATA'])/'kang18_ifnb_2800.h5ad')
adata = adata[adata.obs.cell_type.isin(types)].copy()
Y = adata.X.toarray().astype(float)
size, cell_type, stim = Y.sum(1), adata.obs.cell_type.astype(str).values, (adata.obs.condition=='IFNB').values

def rate(mask, shrink_to, k): # counts per 1e4, pulled towards another profile as if by k of its counts
    return (Y[mask].sum(0) + k*shrink_to/1e4) / (size[mask].sum() + k) * 1e4

pooled = Y.sum(0)/size.sum()*1e4 + .002
ctrl_pool, stim_pool = rate(~stim, pooled, prior), rate(stim, pooled, prior)
log_mean, effect = {}, {}
for t in types:
    ctrl, pert = (cell_type==t)&~stim, (cell_type==t)&stim
    mean = rate(ctrl, ctrl_pool, 2*prior)
    log_mean[t] = np.log(mean)
    lfc = np.log(rate(pert, mean*stim_pool/ctrl_pool, 4*prior)/mean)
    effect[t] = np.sign(lfc)*np.maximum(np.abs(lfc)-.25, 0) # most genes do not respond

# dispersion and hidden programmes, from what is left within a type and condition
X = np.log1p(Y/size[:,None]*1e4)
resid, mom = np.zeros_like(X), []
for t in types:
    for c in (False, True):
        m = (cell_type==t)&(stim==c)
        resid[m] = X[m]-X[m].mean(0)
        mu = Y[m].sum(0)/size[m].sum()*size[m][:,None]
        mom.append((((Y[m]-mu)**2-mu).sum(0), (mu**2).sum(0)))
num, den = (sum(o) for o in zip(*mom))
alpha = np.clip((num+.3*10)/(den+10), .05, 3) # towards .3 where there is little to go by
sd = resid.std(0)+.1
U, S, Vt = np.linalg.svd(resid/sd, full_matrices=False)
load = np.clip(Vt[:n_programmes].T*np.sqrt(Y.shape[1])*.12, -.6, .6)

# genes: the most changed, the most expressed, and a sample of the rest
n_cells = (Y>0).sum(0)
change = np.max([np.abs(effect[t]) for t in types], 0)*pooled**.25
keep = set(np.argsort(-change)[:120]) | set(np.argsort(-pooled)[:15])
rest = np.array([g for g in range(len(n_cells)) if g not in keep and n_cells[g]>=6])
rare = n_cells[rest]**-.5 # most genes are seen in few cells
keep = sorted(keep | set(rng.choice(rest, n_genes-len(keep), replace=False, p=rare/rare.sum())))

def invent(n, sd, low=.3): # n genes move, half of them up, none expressed below `low` per 1e4
    e = np.zeros(len(keep))
    can = np.flatnonzero((pooled[keep]>low) & (pooled[keep]<20))
    g = rng.choice(can, n, replace=False)
    e[g] = np.abs(rng.normal(sd, sd/3, n))*np.where(rng.random(n)<.5, 1, -1)
    return e

table = pd.DataFrame(index=adata.var_names[keep].rename('gene'))
for t in types: table[f'log_mean:{t}'] = log_mean[t][keep]
for t in types: table[f'IFNB:{t}'] = effect[t][keep]
shared, own = invent(60, 1.2), invent(40, 1.2)
for t in types: table[f'drugA:{t}'] = shared*(1.3 if t=='CD14 Mono' else .8) + own*(t in ('B', 'CD14 Mono'))
table['drugB'] = np.abs(invent(60, 1.5, .8))
table['alpha'] = alpha[keep]
for k in range(n_programmes): table[f'load:{k+1}'] = load[keep,k]

dest = Path(__file__).parents[1]/'pertnb'
table.round(3).to_csv(dest/'demo_genes.csv.gz', compression=dict(method='gzip', mtime=0))
pd.DataFrame({t: dict(share=np.mean(cell_type==t), log_size_mean=np.log(size[cell_type==t]).mean(), log_size_sd=np.log(size[cell_type==t]).std())
              for t in types}).T.rename_axis('cell_type').round(3).to_csv(dest/'demo_types.csv')
print(f'{len(table)} genes; zeros in the same genes of the real cells {(Y[:,keep]==0).mean():.3f}; share of the library {pooled[keep].sum()/1e4:.2f}')

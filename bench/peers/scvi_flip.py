"""scVI on one task, in a venv of its own: the condition is the batch, control cells are decoded under the other one and sampled.

    python scvi_flip.py TRAIN.h5ad CONTROLS.h5ad TARGET OUT.h5ad [EPOCHS]

Its counts are divided by each cell's full library (obs `library_size`), as ours are. Prints seconds of training.
"""
import os; os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
import json, resource, sys, time
import anndata as ad, numpy as np, scipy.sparse as sp, scvi, torch

train, ctrl, target, out = ad.read_h5ad(sys.argv[1]), ad.read_h5ad(sys.argv[2]), sys.argv[3], sys.argv[4]
epochs = int(sys.argv[5]) if len(sys.argv)>5 else None
scvi.settings.seed = 0
torch.set_num_threads(os.cpu_count())
for a in (train, ctrl): a.X = sp.csr_matrix(a.layers['counts'])
scvi.model.SCVI.setup_anndata(train, batch_key='condition')
model = scvi.model.SCVI(train)
start = time.perf_counter(); model.train(max_epochs=epochs, enable_progress_bar=False, accelerator='cpu'); seconds = time.perf_counter()-start
y = model.posterior_predictive_sample(ctrl, n_samples=1, transform_batch=target) if 'transform_batch' in model.posterior_predictive_sample.__code__.co_varnames else None
if y is None: # this version samples under the cells' own batch only: hand the controls over as treated, encoded as control
    with torch.no_grad():
        m, k = model.module, list(model.adata_manager.get_state_registry('batch').categorical_mapping).index(target)
        rows = []
        for t in model._make_data_loader(model._validate_anndata(ctrl), batch_size=512):
            inf = m.inference(**m._get_inference_input(t))
            gen_in = m._get_generative_input(t, inf); gen_in['batch_index'] = torch.full_like(gen_in['batch_index'], k)
            rows.append(m.generative(**gen_in)['px'].sample())
        y = torch.cat(rows).numpy()
y = y.todense() if hasattr(y, 'todense') else np.asarray(y)
s = ctrl.obs.library_size.to_numpy()[:,None]
pred = ad.AnnData(sp.csr_matrix(np.log1p(y*1e4/s), dtype=np.float32), ctrl.obs.copy(), ctrl.var.copy())
pred.obs['condition'] = target
pred.write_h5ad(out)
print(json.dumps(dict(seconds=seconds, epochs=len(model.history['elbo_train']), peak_MB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3, version=scvi.__version__)))

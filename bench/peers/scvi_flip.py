"""scVI on one fold: python scvi_flip.py FOLDER TARGET SEED [EPOCHS]; FOLDER holds train.h5ad and controls.h5ad

The condition is the batch; control cells are encoded as what they are, decoded as the target, and counts are sampled.
They are divided by each cell's full library (obs `library_size`), as ours are. Its defaults, unless epochs are given.
"""
import os; os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # or its threads spin
import argparse, json, resource, time, warnings; warnings.simplefilter('ignore')

def main(folder, target, seed, epochs):
    import anndata as ad, numpy as np, scipy.sparse as sp, scvi, torch
    train, controls = (ad.read_h5ad(f'{folder}/{o}.h5ad') for o in ('train','controls'))
    scvi.settings.seed, scvi.settings.verbosity = seed, 40
    torch.set_num_threads(os.cpu_count())
    for a in (train, controls): a.X = sp.csr_matrix(a.layers['counts'])
    scvi.model.SCVI.setup_anndata(train, batch_key='condition')
    model = scvi.model.SCVI(train)
    start = time.perf_counter()
    model.train(max_epochs=epochs, enable_progress_bar=False, accelerator='cpu')
    seconds = time.perf_counter()-start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3

    module = model.module
    code = list(model.adata_manager.get_state_registry('batch').categorical_mapping).index(target)
    Y = []
    with torch.no_grad():
        for t in model._make_data_loader(model._validate_anndata(controls), batch_size=512):
            asked = module._get_generative_input(t, module.inference(**module._get_inference_input(t)))
            asked['batch_index'] = torch.full_like(asked['batch_index'], code)
            Y.append(module.generative(**asked)['px'].sample().numpy())
    X = np.log1p(np.concatenate(Y)*1e4/controls.obs.library_size.to_numpy()[:,None])
    predicted = ad.AnnData(sp.csr_matrix(X, dtype=np.float32), controls.obs, controls.var)
    predicted.obs['condition'] = target
    predicted.write_h5ad(f'{folder}/scVI.h5ad')
    print(json.dumps(dict(seconds=seconds, epochs=len(model.history['elbo_train']), peak_MB=peak)))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('folder'); p.add_argument('target'); p.add_argument('seed', type=int); p.add_argument('epochs', type=int, nargs='?')
    main(**vars(p.parse_args()))

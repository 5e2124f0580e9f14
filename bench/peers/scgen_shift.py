"""scGen (pertpy) on one fold: python scgen_shift.py FOLDER TARGET SEED [EPOCHS]; FOLDER holds train.h5ad and controls.h5ad

Its own recipe and defaults: a VAE of log-normalised expression; the difference of the conditions' centres in z,
cell types equally represented, is added to the control cells, and the decoder's mean is the prediction.
"""
import argparse, json, resource, time, warnings; warnings.simplefilter('ignore')

def main(folder, target, seed, epochs):
    import anndata as ad, numpy as np, scipy.sparse as sp, scvi, pertpy as pt
    train, controls = (ad.read_h5ad(f'{folder}/{o}.h5ad') for o in ('train','controls'))
    scvi.settings.seed, scvi.settings.verbosity = seed, 40
    for a in (train, controls): del a.layers['counts']
    pt.tl.Scgen.setup_anndata(train, batch_key='condition', labels_key='cell_type')
    model = pt.tl.Scgen(train)
    start = time.perf_counter()
    model.train(max_epochs=epochs or 100, batch_size=32, early_stopping=True, early_stopping_patience=25, accelerator='cpu', enable_progress_bar=False)
    seconds = time.perf_counter()-start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3

    predicted, _ = model.predict(ctrl_key='control', stim_key=target, adata_to_predict=controls)
    predicted = ad.AnnData(sp.csr_matrix(np.maximum(predicted.X, 0), dtype=np.float32), controls.obs, controls.var)
    predicted.obs['condition'] = target
    predicted.write_h5ad(f'{folder}/scGen.h5ad')
    print(json.dumps(dict(seconds=seconds, epochs=len(model.history['elbo_train']), peak_MB=peak)))

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('folder'); p.add_argument('target'); p.add_argument('seed', type=int); p.add_argument('epochs', type=int, nargs='?')
    main(**vars(p.parse_args()))

"Numbers at the edges: likelihood, gradients, sampling, the price of z, and training on cells that are badly scaled."
import functools
import mpmath as mp
import numpy as np
import pandas as pd
import pytest
import torch
from pertnb.core import InputError
from pertnb.data import PertData
from pertnb.datasets import demo
from pertnb.files import dense
from pertnb.elbo import kl
from pertnb.generation import generate
from pertnb.model import Gaussian, NegativeBinomial, sample_counts
from pertnb.training import TrainingError, fit

torch.set_num_threads(1)
counts, means, alphas = [0, 1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6], 10.**np.arange(-6, 7, 2), 10.**np.arange(-6, 7, 2)

def exact(k, log_mean, alpha):
    "log p, ∂/∂ log mean and ∂/∂ log alpha with 50 digits; scipy's `nbinom` takes the same differences of lgamma as we do, so it is no judge"
    with mp.workdps(50):
        k, m, a = mp.mpf(k), mp.exp(mp.mpf(log_mean)), mp.mpf(alpha)
        t, log_1 = 1/a, mp.log1p(a*m)
        log_p = mp.loggamma(k+t)-mp.loggamma(t)-mp.loggamma(k+1) + k*(mp.log(a*m)-log_1) - t*log_1
        d_mean = (k-m)/(1+a*m)
        return [float(o) for o in (log_p, d_mean, t*log_1 + d_mean - t*(mp.digamma(k+t)-mp.digamma(t)))]

@pytest.fixture(scope='module')
def grid():
    "A row per count, mean and alpha: those three, as float32 holds them, and the exact values"
    rows = [(k, float(np.float32(np.log(m))), float(np.float32(a))) for k in counts for m in means for a in alphas]
    return pd.DataFrame([(*o, *exact(*o)) for o in rows], columns=['k','log_mean','alpha','log_p','d_log_mean','d_log_alpha'])

@pytest.fixture(scope='module')
def ours(grid):
    "The same rows in float32, by autograd: one cell per row, one gene"
    res = []
    for k,m,a in grid[['k','log_mean','alpha']].to_numpy():
        k, m, a = (torch.tensor([o], dtype=torch.float32) for o in (k, m, a))
        m, a = m[:,None].requires_grad_(), a.requires_grad_()
        log_p = NegativeBinomial(m, a).log_prob(k[:,None])
        log_p.sum().backward()
        res.append((log_p.item(), m.grad.item(), a.grad.item()*a.item()))
    return pd.DataFrame(res, columns=['log_p','d_log_mean','d_log_alpha'])

def worst(grid, ours, what, scale):
    "The largest error in units of `scale`, with the row it is in"
    off = (ours[what]-grid[what]).abs()/scale
    return off.max(), grid.assign(ours=ours[what]).loc[off.idxmax(), ['k','log_mean','alpha',what,'ours']].to_dict()

def test_everything_is_finite(ours):
    assert np.isfinite(ours).all(axis=None)

def test_log_prob_is_accurate(grid, ours):
    "To 1e-5 of its value"
    off, where = worst(grid, ours, 'log_p', grid.log_p.abs())
    assert off<1e-5, (off, where)

def test_gradient_of_the_mean_is_accurate(grid, ours):
    "(k-μ)/(1+αμ), to 1e-5 of itself or 1e-6 of the larger of its two parts where they cancel"
    parts = np.maximum(grid.k, np.exp(grid.log_mean))/(1+grid.alpha*np.exp(grid.log_mean))
    off, where = worst(grid, ours, 'd_log_mean', grid.d_log_mean.abs()+.1*parts)
    assert off<1e-5, (off, where)

def test_gradient_of_alpha_is_accurate(grid, ours):
    "∂/∂ log α, what the optimiser sees, to 1e-5 of itself or 1e-6 of the mean (zeros) or of the count"
    off, where = worst(grid, ours, 'd_log_alpha', grid.d_log_alpha.abs()+.1*np.where(grid.k==0, np.exp(grid.log_mean), 1e-2))
    assert off<1e-5, (off, where)

def test_many_genes_at_once_add_up(grid):
    "All rows as one gene each of a single cell, beside a thousand zeros: the sum is as accurate as its parts"
    g = grid[grid.log_p>-1e3]
    k, m, a = (torch.tensor(g[o].to_numpy(), dtype=torch.float32) for o in ('k','log_mean','alpha'))
    log_p = NegativeBinomial(torch.cat([m, torch.zeros(1000)])[None], torch.cat([a, torch.ones(1000)])).log_prob(torch.cat([k, torch.zeros(1000)])[None])
    assert abs(log_p.item()/(g.log_p.sum()-1000*np.log(2))-1) < 1e-5

@pytest.mark.parametrize('scale', [1e-3, 1, 1e3])
def test_gradcheck(scale):
    "Autograd's own check in float64, for small and large means and dispersions"
    torch.manual_seed(0)
    y, log_mean = torch.poisson(torch.full((3,5), 1.)).double(), torch.randn(3, 5, dtype=torch.double)+np.log(scale)
    y[0,0] = 1000
    alpha = scale*(torch.rand(5, dtype=torch.double)+.1)
    assert torch.autograd.gradcheck(lambda m,a: NegativeBinomial(m, a).log_prob(y), (log_mean.requires_grad_(), alpha.requires_grad_()), rtol=1e-3)

def test_a_poisson_is_the_limit():
    "With alpha 1e-6 a small count has the Poisson's log probability, to 1e-4"
    k, log_mean = torch.tensor([[0., 1., 3., 10.]]), torch.tensor([[0., 0., 1., 2.]])
    each = [NegativeBinomial(log_mean[:,[i]], torch.tensor([1e-6])).log_prob(k[:,[i]]).item() for i in range(4)]
    assert np.allclose(each, torch.distributions.Poisson(log_mean.exp()).log_prob(k)[0], atol=1e-4)


# --- sampling ---

@pytest.mark.parametrize('alpha', alphas)
@pytest.mark.parametrize('mean', means)
def test_samples_are_counts_with_the_right_zeros_and_mean(mean, alpha):
    "Whole and finite; the share of zeros and, where the spread allows, the mean lie within 6 standard errors"
    n = 20_000
    p = NegativeBinomial(torch.full((n,1), float(np.log(mean))), torch.tensor([alpha], dtype=torch.float32))
    y = p.sample(torch.Generator().manual_seed(0)).to_dense().double()
    assert torch.isfinite(y).all() and (y>=0).all() and (y==y.round()).all()
    zero, spread = np.exp(-np.log1p(alpha*mean)/alpha), np.sqrt((mean+alpha*mean**2)/n)
    assert abs((y==0).double().mean().item()-zero) < 6*np.sqrt(zero*(1-zero)/n)+6/n
    if spread<.2*mean: assert abs(y.mean().item()-mean) < 6*spread

def test_a_rate_of_nothing_gives_nothing():
    y = sample_counts(torch.zeros(3, 4), torch.ones(4)).to_dense()
    assert (y==0).all()

@pytest.mark.parametrize('broken', [np.nan, np.inf])
def test_a_rate_that_is_no_number_is_refused(broken):
    "Neither quietly zero, nor a negative count"
    am = torch.ones(3, 4); am[1,2] = broken
    with pytest.raises(InputError): sample_counts(am, torch.ones(4))

def test_a_rate_beyond_the_whole_numbers_gives_no_negative_count():
    "torch.poisson answers rates above 9e18 with -9.2e18"
    y = sample_counts(torch.full((100,1), 1e30), torch.ones(1), torch.Generator().manual_seed(0)).to_dense()
    assert (y>=0).all() and torch.isfinite(y).all()

def test_gaussian_at_the_edges():
    "Widths from 1e-6 to 1e6 agree with torch's normal"
    x, sigma = torch.tensor([[0., 1., 5., 10., 0.]]), torch.tensor([1e-6, 1e-3, 1., 1e3, 1e6])
    ours = Gaussian(torch.zeros(1, 5), sigma).log_prob(x)
    assert torch.allclose(ours, torch.distributions.Normal(torch.zeros(5), sigma).log_prob(x).sum(1), rtol=1e-5)


# --- the price of z ---

def test_kl_at_extreme_variances():
    "Finite up to exp(80), and to 1e-5 of its value in float64"
    logvar = torch.tensor([-1e4, -100, -10, -1, 0, 1, 10, 80])
    exact = ((logvar.double().exp()-logvar.double()-1)/2)
    assert torch.allclose(kl(torch.zeros(8), logvar).double(), exact, rtol=1e-5)

def test_kl_near_the_prior():
    "Small, not negative, and accurate to 1e-3 of its value: logvar²/4"
    logvar = torch.tensor([-1e-2, -1e-3, -1e-4, 1e-4, 1e-3, 1e-2])
    v = logvar.double()
    got = kl(torch.zeros(6), logvar)
    assert (got>=0).all() and torch.allclose(got.double(), (v.expm1()-v)/2, rtol=1e-3, atol=0)


# --- training on cells that are badly scaled ---

@functools.cache
def cells():
    a = demo(300)[:, :50].copy()
    return a[np.asarray(a.X.sum(1)).ravel()>0].copy()

def study(change):
    "Demo cells with 50 genes, their values changed"
    a, X = cells().copy(), cells().X.toarray()
    new = change(X)
    a.X = X if new is None else new
    return PertData(a, 'condition', cell_type_key='cell_type', min_cells=1)

def logged(X): return np.log1p(1e4*X/X.sum(1, keepdims=True))
def huge_gene(X): X[:,3] *= 1e4; X[:,3] += 1
def huge_cell(X): X[3] *= 1e6
def both_ends(X): X[::2] = 0; X[::2,0] = 1; X[1::2,1] = 1e6
def one_gene_logged(X): X = logged(X); X[:,3] = 14.9; return X
def one_value_logged(X): X = logged(X); X[5,3] = 14.99; return X

scalings = {'times 1e4': lambda X: X*1e4, 'huge gene': huge_gene, 'huge cell': huge_cell, 'sizes of 1 and 1e6': both_ends, 'logged, times 1e4': lambda X: logged(X)*1e4,
            'logged, a huge gene': one_gene_logged, 'logged, a huge value': one_value_logged, 'tiny': lambda X: logged(X)*1e-6, 'counts near the end of float32': lambda X: X*1e30}

def all_finite(model, history): return all(torch.isfinite(p).all() for p in model.parameters()) and np.isfinite(history[['reconstruction','kl']]).all(axis=None)

@pytest.mark.parametrize('likelihood', ['nb','gaussian'])
@pytest.mark.parametrize('what', scalings)
def test_badly_scaled_cells_train_or_are_refused(what, likelihood):
    "A model of finite weights that predicts finite cells, or a reason why not"
    try:
        data = study(scalings[what])
        model, history = fit(data, likelihood, n_hidden=16, n_latent=4, epochs=3, batch_size=32, progress=False)
    except (InputError, TrainingError) as e: assert len(str(e))>40; return
    assert all_finite(model, history)
    for mode in 'ABC':
        try: assert np.isfinite(dense(generate(model, data[data.is_control], 'IFNB', mode, progress=False))).all(), mode
        except InputError as e: assert ('a count of' in str(e) or 'not finite' in str(e)) and what=='counts near the end of float32'

@pytest.mark.parametrize('likelihood', ['nb','gaussian'])
@pytest.mark.parametrize('lr', [1., 100., 1e8, 1e30])
@pytest.mark.parametrize('batch_size', [32, 10_000])
def test_steps_too_large_are_said(lr, likelihood, batch_size):
    "With an absurd learning rate training ends with finite weights or a `TrainingError`, also if the step that spoils it is the last"
    try: model, history = fit(study(lambda X: X), likelihood, n_hidden=16, n_latent=4, epochs=2, batch_size=batch_size, lr=lr, progress=False)
    except TrainingError as e: assert 'lr=' in str(e) or 'step' in str(e); return
    assert all_finite(model, history)
    assert all(torch.isfinite(o).all() for prior in model.priors.values() for o in prior)

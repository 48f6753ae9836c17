"""Kernel maps: expected kernels against draws, leave-one-out against refits, slopes against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rec_transfer.maps.kernels import (
    condition,
    expected_covariance,
    expected_kernel,
    fit_gaussian_process_map,
    fit_kernel_ridge_map,
    kernel_ridge,
    log_normal_density,
)
from rec_transfer.maps.linear import fit_ridge_map
from rec_transfer.types import Gaussian, Pairs

FITS = [fit_kernel_ridge_map, fit_gaussian_process_map]


def gaussian(mean, covariance):
    mean = np.asarray(mean, np.float32)
    return Gaussian(*map(jnp.asarray, (mean, np.broadcast_to(covariance, (*mean.shape, mean.shape[1])).astype("f4"))))


def bent(source):
    return 0.8 * np.stack([np.sin(2 * source[:, 0]), source[:, 0] - 0.5 * source[:, 1] ** 2], axis=1)


def pairs_of(users, seed=0, spread=0.01, noise=0.1):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(users, 2)) * [1.0, 1.5]
    target = bent(source) + noise * rng.normal(size=source.shape)
    return Pairs(gaussian(source, spread * np.eye(2)), gaussian(target, spread * np.eye(2)), jnp.ones((users, 3)))


@pytest.fixture(scope="module")
def pairs():
    return pairs_of(80)


@pytest.fixture(scope="module", params=FITS)
def fitted(request, pairs):
    return request.param(pairs)


def plain_kernel(x, y, length, amplitude):
    apart = np.sum((x[:, None] - y) ** 2, axis=-1)
    return x @ y.T / x.shape[1] + amplitude * np.exp(-0.5 * apart / length**2)


def test_the_expected_kernel_is_the_mean_over_draws():
    rng = np.random.default_rng(0)
    one, other = (gaussian(rng.normal(size=(1, 2)), np.diag(rng.uniform(0.2, 1.0, 2))) for _ in range(2))
    draws = [
        rng.normal(np.asarray(side.mean[0]), np.sqrt(np.diagonal(side.covariance[0])), size=(40_000, 2))
        for side in (one, other)
    ]
    values = [plain_kernel(x[None], y[None], 0.8, 2.0)[0, 0] for x, y in zip(draws[0][:4000], draws[1], strict=False)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(expected_kernel(one, other, 0.8, 2.0)[0, 0] - np.mean(values)) < 4 * error
    # The same user twice: its own draw stands on both sides.
    twice = np.sum(draws[0] ** 2, axis=1) / 2 + 2.0
    error = np.std(twice) / np.sqrt(len(twice))
    assert abs(expected_covariance(one, 0.8, 2.0)[0, 0] - twice.mean()) < 4 * error


def test_without_input_covariance_the_expected_kernel_is_the_kernel(pairs):
    x = np.asarray(pairs.source.mean, float)
    certain = gaussian(x, np.zeros((2, 2)))
    expected = plain_kernel(x, x, 1.3, 0.7)
    np.testing.assert_allclose(expected_kernel(certain, certain, 1.3, 0.7), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected_covariance(certain, 1.3, 0.7), expected, rtol=1e-4, atol=1e-5)


def test_a_prior_with_uncertain_inputs_is_a_covariance(pairs):
    vague = gaussian(pairs.source.mean, 0.8 * np.eye(2))
    assert np.linalg.eigvalsh(expected_covariance(vague, 1.0, 1.0)).min() > 0.1


def test_kernel_ridge_left_out_is_what_a_refit_without_the_row_predicts():
    data = pairs_of(15)
    x, y = (np.asarray(side.mean, float) for side in (data.source, data.target))
    kernel, penalties = plain_kernel(x, x, 1.0, 1.0), (0.03, 2.0)
    for fit, penalty in zip(kernel_ridge(kernel, y, penalties), penalties, strict=True):
        for row in range(15):
            rest = np.delete(np.arange(15), row)
            part = kernel_ridge(kernel[np.ix_(rest, rest)], y[rest], (penalty,))[0]
            predicted = kernel[row, rest] @ part.weights + part.intercept
            np.testing.assert_allclose(fit.left_out[row], predicted, rtol=1e-6, atol=1e-8)


def test_kernel_ridge_minimises_its_objective():
    data = pairs_of(15)
    x, y = (np.asarray(side.mean, float) for side in (data.source, data.target))
    kernel = plain_kernel(x, x, 1.0, 1.0)
    fit = kernel_ridge(kernel, y, (0.5,))[0]

    def objective(weights, intercept):
        return np.sum((y - kernel @ weights - intercept) ** 2) + 0.5 * np.sum(weights * (kernel @ weights))

    least, rng = objective(fit.weights, fit.intercept), np.random.default_rng(0)
    for _ in range(20):
        moved = fit.weights + 0.01 * rng.normal(size=fit.weights.shape)
        assert objective(moved, fit.intercept + 0.01 * rng.normal(size=2)) > least


def test_without_bumps_kernel_ridge_is_the_ridge_map():
    # A straight and noisy world: no bump helps, and what is left is ridge on standardised latents.
    rng = np.random.default_rng(4)
    source = rng.normal(size=(200, 2))
    target = source @ np.array([[1.0, -0.4], [0.3, 0.8]]) + rng.normal(size=(200, 2))
    spread = 0.01 * np.eye(2)
    pairs = Pairs(gaussian(source, spread), gaussian(target, spread), jnp.ones((200, 3)))
    mapped, ridge = (fit(pairs)(pairs.source).mean for fit in (fit_kernel_ridge_map, fit_ridge_map))
    assert np.mean((mapped - ridge) ** 2) < 0.02 * np.mean(ridge**2)


def test_the_marginal_likelihood_and_the_left_out_are_those_of_a_gaussian():
    rng = np.random.default_rng(0)
    root, y = rng.normal(size=(6, 6)), rng.normal(size=6)
    covariance = root @ root.T + np.eye(6)
    expected = stats.multivariate_normal.logpdf(y, np.zeros(6), covariance)
    assert log_normal_density(covariance, y) == pytest.approx(expected)
    weights, left_out = condition(covariance, y)
    np.testing.assert_allclose(covariance @ weights, y)
    for row in range(6):
        rest = np.delete(np.arange(6), row)
        predicted = covariance[row, rest] @ np.linalg.solve(covariance[np.ix_(rest, rest)], y[rest])
        assert left_out[row] == pytest.approx(predicted)


def test_with_certain_inputs_it_is_the_ordinary_gaussian_process(pairs):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

    certain = pairs._replace(source=gaussian(pairs.source.mean, np.zeros((2, 2))))
    fitted = fit_gaussian_process_map(certain)
    x, s = np.asarray(pairs.source.mean, float), 0.01
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.asarray(pairs.target.mean, float) / (1 - s)  # the prior divided out, s / (1 - s) of noise left
    for latent in (0, 1):
        length, amplitude = (float(part[latent]) for part in (fitted.lengths, fitted.amplitudes))
        kernel = ConstantKernel(0.5) * DotProduct(1e-6) + ConstantKernel(amplitude) * RBF(length)
        found = np.asarray(fitted(certain.source).mean[:, latent])
        close = []
        for noise in (0.1, 0.3, 1.0):  # of the map: the one of the highest marginal likelihood
            process = GaussianProcessRegressor(kernel, alpha=s / (1 - s) + noise, optimizer=None)
            process.fit(scaled, y[:, latent] - y[:, latent].mean())
            miss = np.abs(process.predict(scaled) + y[:, latent].mean() - found).max()
            close.append((process.log_marginal_likelihood_value_, miss))
        assert max(close)[1] < 1e-3


def test_slopes_are_those_of_the_mean(fitted, pairs):
    posterior = jax.tree.map(lambda array: array[:6], pairs.source)
    posterior = posterior._replace(covariance=posterior.covariance * 20 + 0.05)
    found = np.asarray(fitted.mean_and_slope(posterior)[1])
    mean = jax.jit(lambda means: fitted.mean_and_slope(posterior._replace(mean=means))[0])
    step = 1e-2
    for latent in (0, 1):
        move = step * jnp.eye(2)[latent]
        expected = (np.asarray(mean(posterior.mean + move)) - np.asarray(mean(posterior.mean - move))) / (2 * step)
        np.testing.assert_allclose(found[:, :, latent], expected, rtol=2e-2, atol=3e-3)


def test_posteriors_pass_along_the_slope(fitted, pairs):
    mapped, (mean, slope) = fitted(pairs.source), fitted.mean_and_slope(pairs.source)
    expected = slope @ pairs.source.covariance @ jnp.swapaxes(slope, 1, 2) + fitted.residual
    np.testing.assert_allclose(mapped.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mapped.covariance, expected, rtol=1e-4, atol=1e-5)
    assert np.trace(fitted.residual) > 0.005


def test_a_bent_world_is_mapped_better_than_by_ridge(fitted, pairs):
    new = pairs_of(1000, seed=1)
    missed, ridge = (
        np.mean((domain_map(new.source).mean - new.target.mean) ** 2) for domain_map in (fitted, fit_ridge_map(pairs))
    )
    assert missed < 0.6 * ridge


def test_only_the_gaussian_process_is_less_sure_of_a_vague_user(pairs):
    sharp, vague = (gaussian(pairs.source.mean, spread * np.eye(2)) for spread in (0.0, 2.0))
    kernel, process = (fit(pairs) for fit in FITS)
    np.testing.assert_array_equal(kernel(sharp).mean, kernel(vague).mean)
    first = np.std(np.asarray(process(sharp).mean)[:, 0]), np.std(np.asarray(process(vague).mean)[:, 0])
    assert first[1] < 0.8 * first[0]  # the sine is averaged out


@pytest.mark.parametrize("fit", FITS)
def test_too_few_pairs_are_refused_by_name(fit):
    with pytest.raises(ValueError, match="pairs: got 9 users, expected at least 10"):
        fit(pairs_of(9))

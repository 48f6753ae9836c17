"""The process against what it must be: Monte Carlo, a Gaussian density, differences, exact answers in the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal

from rec_transfer import evaluation
from rec_transfer.methods.gaussian_process import (
    Prior,
    _sample_process,
    apart,
    expected_bend,
    fit_gaussian_process,
    fit_prior,
    negative_log_evidence,
    prior_covariance,
)
from rec_transfer.types import Gaussian, History

KEY = jax.random.key(0)
PAIRS, LATENT = 6, 2


def spread(rng, users, scale):
    root = scale * rng.normal(size=(users, LATENT, LATENT))
    return root @ np.swapaxes(root, 1, 2) + 0.01 * np.eye(LATENT)


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    return Gaussian(jnp.asarray(rng.normal(size=(PAIRS, LATENT))), jnp.asarray(spread(rng, PAIRS, 0.5)))


@pytest.fixture(scope="module")
def fitted(split):
    return fit_gaussian_process(split.train, key=KEY, latent=2)


def test_the_expected_kernel_is_its_monte_carlo_mean(source):
    rng = np.random.default_rng(1)
    draws = [
        np.asarray(mean) + rng.multivariate_normal(np.zeros(LATENT), covariance, 100_000)
        for mean, covariance in zip(source.mean, source.covariance, strict=True)
    ]
    kernel, _ = expected_bend(apart(source, source), 1.5)
    for i, j in ((0, 1), (2, 5), (4, 3)):
        values = np.exp(-0.5 * np.sum((draws[i] - draws[j]) ** 2, axis=1) / 1.5**2)
        assert abs(kernel[i, j] - values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_a_user_with_itself_varies_by_the_whole_kernel(source):
    prior = Prior(0.1, 0.2, 0.3, 0.4, 1.5)
    covariance, _ = prior_covariance(source, expected_bend(apart(source, source), 1.5)[0], prior)
    squares = np.sum(np.asarray(source.mean) ** 2, axis=1) + np.trace(source.covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(np.diag(covariance), 0.1 + 0.2 * squares + 0.3 + 0.4, rtol=1e-6)
    assert np.linalg.eigvalsh(covariance).min() > 0.4 - 1e-9


def test_the_evidence_is_the_density_of_noisy_observations_and_its_gradient_that_of_differences(source):
    rng = np.random.default_rng(2)
    noise, seen = spread(rng, PAIRS, 0.6), rng.normal(size=(PAIRS, LATENT))
    precision = np.linalg.inv(noise)  # seeing z with this noise is evidence with P = noise^-1 and h = P seen
    roots, shift = np.linalg.cholesky(precision), np.einsum("nij,nj->ni", precision, seen)
    users = apart(source, source)

    def direct(log_prior):
        prior = Prior(*np.exp(log_prior))
        covariance, _ = prior_covariance(source, expected_bend(users, prior.length)[0], prior)
        total = np.kron(covariance, np.eye(LATENT))
        for pair in range(PAIRS):
            block = slice(LATENT * pair, LATENT * (pair + 1))
            total[block, block] += noise[pair]
        return -multivariate_normal(cov=total).logpdf(seen.ravel())

    one, other = np.log([0.1, 0.2, 0.3, 0.4, 1.5]), np.log([0.3, 0.05, 0.6, 0.2, 0.8])
    value, gradient = negative_log_evidence(one, source, users, roots, shift)
    differences = value - negative_log_evidence(other, source, users, roots, shift)[0]
    assert differences == pytest.approx(direct(one) - direct(other), abs=1e-6)  # equal up to a constant
    np.testing.assert_allclose(gradient, approx_fprime(one, direct, 1e-6), rtol=1e-3, atol=1e-4)


def test_with_nothing_uncertain_draws_have_the_textbook_mean_and_variance():
    rng = np.random.default_rng(3)
    prior = Prior(0.1, 0.2, 0.5, 1e-6, 1.0)
    x, y = rng.normal(size=(PAIRS, LATENT)), rng.normal(size=(PAIRS, LATENT))

    def kernel(one, other):
        squares = np.sum((one[:, None] - other[None]) ** 2, axis=-1)
        return 0.1 + 0.2 * one @ other.T + 0.5 * np.exp(-0.5 * squares)

    inverse = np.linalg.inv(kernel(x, x) + 0.3 * np.eye(PAIRS))
    certain = 1e-8 * jnp.tile(jnp.eye(LATENT), (PAIRS, 1, 1))
    new = rng.normal(size=(3, LATENT))
    draws = _sample_process(
        prior, Gaussian(jnp.asarray(x), certain), jnp.asarray(inverse @ y), jnp.asarray(inverse),
        Gaussian(jnp.asarray(new), certain[:3]), KEY,
    )  # fmt: skip
    mean = kernel(new, x) @ inverse @ y
    variance = np.diag(kernel(new, new) - kernel(new, x) @ inverse @ kernel(x, new))
    error = np.sqrt(variance / draws.shape[1])[:, None]
    assert (np.abs(draws.mean(axis=1) - mean) < 4.5 * error).all()
    np.testing.assert_allclose(draws.var(axis=1), np.tile(variance[:, None], LATENT), rtol=0.35)


def test_it_beats_popularity_and_stays_below_the_oracle(split, fitted, ceiling):
    methods = {"popularity": evaluation.fit_popularity, "process": lambda train, *, key: fitted, "oracle": ceiling}
    values = evaluation.evaluate(methods, split, keys=[KEY])
    means = evaluation.per_user(values, "NDCG@10").mean()
    assert means["popularity"] + 0.05 < means["process"] < means["oracle"] + 0.02


def test_other_gains_are_other_scores_and_samples_of_the_posterior_have_their_shape(split, fitted):
    history = History(split.history.source[:5])
    assert fitted.sample_target_posterior(history).shape == (5, 400, 2)
    mean = fitted(history, gain="posterior mean")
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-4)
    assert not np.allclose(mean, fitted(history))


def test_the_length_is_that_of_the_bend_that_made_the_target(split):
    # Interests known almost exactly, and targets drawn from a process with a short bend or a long one.
    rng, pairs = np.random.default_rng(4), 150
    mean = rng.normal(size=(pairs, LATENT))
    certain = Gaussian(jnp.asarray(mean), 1e-6 * jnp.tile(jnp.eye(LATENT), (pairs, 1, 1)))
    users, found = apart(certain, certain), []
    for length in (0.7, 2.0):
        covariance, _ = prior_covariance(certain, expected_bend(users, length)[0], Prior(1e-4, 1e-4, 1.0, 0.01, length))
        seen = np.linalg.cholesky(covariance) @ rng.normal(size=(pairs, LATENT))
        roots, shift = 10 * np.tile(np.eye(LATENT), (pairs, 1, 1)), 100 * seen
        found.append(fit_prior(certain, users, roots, shift).length)
    np.testing.assert_allclose(found, [0.7, 2.0], rtol=0.25)


def test_what_the_evidence_chose_is_told(fitted):
    assert fitted.choice.split(", ")[-1] == f"length {fitted.prior.length:.2g}"
    assert [part.split()[0] for part in fitted.choice.split(", ")] == list(Prior._fields)

"""Likelihoods against scipy, the KL term against Monte Carlo, the bounds against a model whose evidence is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import gammaln

from rec_transfer.models import likelihoods


def logits_and_counts(users=5, items=7):
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (users, items)).astype(np.float32), rng.poisson(1.2, (users, items))


def test_multinomial_with_its_coefficient_is_scipys_log_probability():
    logits, counts = logits_and_counts()
    found = likelihoods.multinomial_log_likelihood(jnp.asarray(logits), jnp.asarray(counts, jnp.float32))
    coefficient = gammaln(counts.sum(axis=1) + 1) - gammaln(counts + 1).sum(axis=1)
    weights = np.exp(logits.astype(float))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    expected = stats.multinomial.logpmf(counts, counts.sum(axis=1), probabilities)
    np.testing.assert_allclose(np.asarray(found) + coefficient, expected, rtol=1e-4)


def test_bernoulli_is_scipys_log_probability_of_clicked_or_not():
    logits, counts = logits_and_counts()
    found = likelihoods.bernoulli_log_likelihood(jnp.asarray(logits), jnp.asarray(counts, jnp.float32))
    probability = 1 / (1 + np.exp(-logits.astype(float)))
    expected = stats.bernoulli.logpmf(counts > 0, probability).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_multinomial_does_not_see_a_constant_added_to_the_logits():
    logits, counts = (jnp.asarray(array, jnp.float32) for array in logits_and_counts())
    plain = likelihoods.multinomial_log_likelihood(logits, counts)
    np.testing.assert_allclose(likelihoods.multinomial_log_likelihood(logits + 5, counts), plain, rtol=1e-4)


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_extreme_logits_give_finite_values_and_gradients(size):
    logits, counts = jnp.array([[size, -size, 0.0]]), jnp.array([[0.0, 2.0, 1.0]])
    for log_likelihood in (likelihoods.multinomial_log_likelihood, likelihoods.bernoulli_log_likelihood):
        value, gradient = jax.jit(jax.value_and_grad(lambda x, f=log_likelihood: f(x, counts).sum()))(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_a_user_without_clicks_has_multinomial_log_likelihood_zero():
    assert likelihoods.multinomial_log_likelihood(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))).item() == 0.0


def test_multinomial_gradient_is_counts_minus_what_was_expected():
    logits, counts = (jnp.asarray(array, jnp.float32) for array in logits_and_counts())
    gradient = jax.jit(jax.grad(lambda x: likelihoods.multinomial_log_likelihood(x, counts).sum()))(logits)
    expected = counts - counts.sum(axis=1, keepdims=True) * jax.nn.softmax(logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


@pytest.mark.parametrize(
    "log_likelihood", [likelihoods.multinomial_log_likelihood, likelihoods.bernoulli_log_likelihood]
)
def test_log_likelihood_gradients_are_finite_differences(log_likelihood):
    logits, counts = logits_and_counts(users=2, items=4)
    with jax.enable_x64():
        counts = jnp.asarray(counts, float)
        f = jax.jit(lambda x: log_likelihood(x, counts))
        check_grads(f, (jnp.asarray(logits, float),), order=1, modes=("rev",), rtol=1e-6)


def test_kl_gradient_is_a_finite_difference():
    with jax.enable_x64():
        arguments = jnp.array([[0.3, -1.2]], float), jnp.array([[0.5, -0.7]], float)
        check_grads(jax.jit(likelihoods.gaussian_kl), arguments, order=1, modes=("rev",), rtol=1e-6)


def test_kl_equals_monte_carlo_within_its_error():
    mean, log_variance, samples = np.array([0.7, -1.1, 0.0]), np.array([-1.0, 0.4, 0.0]), 40_000
    spread = np.exp(log_variance / 2)
    draws = mean + spread * np.random.default_rng(1).normal(size=(samples, 3))
    log_ratio = (stats.norm.logpdf(draws, mean, spread) - stats.norm.logpdf(draws)).sum(axis=1)
    found = likelihoods.gaussian_kl(jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32))
    assert abs(found - log_ratio.mean()) < 4 * log_ratio.std() / np.sqrt(samples)


def test_kl_is_zero_at_the_prior_and_positive_elsewhere():
    rng = np.random.default_rng(2)
    mean, log_variance = (jnp.asarray(rng.normal(size=(50, 3)), jnp.float32) for _ in range(2))
    assert likelihoods.gaussian_kl(jnp.zeros(3), jnp.zeros(3)) == 0.0
    assert (likelihoods.gaussian_kl(mean, log_variance) > 0).all()


def test_there_is_one_value_per_user_whatever_axes_lead():
    ones = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
    for function in (
        likelihoods.gaussian_kl, likelihoods.multinomial_log_likelihood, likelihoods.bernoulli_log_likelihood,
    ):  # fmt: skip
        assert jax.eval_shape(function, ones, ones).shape == (2, 3)
    assert jax.eval_shape(likelihoods.importance_weighted_bound, ones).shape == (3, 4)


# --- bounds, on probabilistic PCA: x = W z + noise, where log p(x) and the posterior are known in closed form

NOISE = 0.5
DATA = np.array([1.0, -0.5, 2.0, 0.3])
ORTHOGONAL = np.array([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5], [1.0, 0.5]])
ORTHOGONAL[:, 1] -= ORTHOGONAL[:, 0] * (ORTHOGONAL[:, 0] @ ORTHOGONAL[:, 1]) / (ORTHOGONAL[:, 0] @ ORTHOGONAL[:, 0])
SLANTED = ORTHOGONAL @ np.array([[0.8, -0.6], [0.6, 0.8]]) * np.array([1.0, 2.0])


def evidence(weights):
    return stats.multivariate_normal.logpdf(DATA, np.zeros(4), weights @ weights.T + NOISE**2 * np.eye(4))


def exact_posterior(weights):
    precision = np.eye(2) + weights.T @ weights / NOISE**2
    return np.linalg.solve(precision, weights.T @ DATA) / NOISE**2, precision


def elbo_of(weights, mean, variance):
    """The package's bound for q = N(mean, diag variance), the expected log-likelihood taken in closed form."""
    expected = stats.norm.logpdf(DATA, weights @ mean, NOISE).sum()
    expected -= np.sum(weights**2 @ variance) / (2 * NOISE**2)
    kl = likelihoods.gaussian_kl(jnp.asarray(mean, jnp.float32), jnp.asarray(np.log(variance), jnp.float32))
    return float(likelihoods.elbo(jnp.float32(expected), kl))


def test_elbo_is_the_evidence_for_the_exact_posterior_when_columns_are_orthogonal():
    assert abs(ORTHOGONAL[:, 0] @ ORTHOGONAL[:, 1]) < 1e-12
    mean, precision = exact_posterior(ORTHOGONAL)
    assert elbo_of(ORTHOGONAL, mean, 1 / np.diag(precision)) == pytest.approx(evidence(ORTHOGONAL), rel=1e-4)


def test_elbo_falls_short_by_the_mean_field_gap_when_columns_are_not_orthogonal():
    mean, precision = exact_posterior(SLANTED)
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert gap > 0.01
    found = elbo_of(SLANTED, mean, 1 / np.diag(precision))
    assert evidence(SLANTED) - found == pytest.approx(gap, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("weights", [ORTHOGONAL, SLANTED])
def test_elbo_is_below_the_evidence_for_any_other_posterior(weights):
    mean, precision = exact_posterior(weights)
    rng = np.random.default_rng(3)
    for _ in range(20):
        moved = mean + rng.normal(0, 0.3, 2)
        assert elbo_of(weights, moved, rng.uniform(0.3, 3) / np.diag(precision)) < evidence(weights) - 1e-3


def test_beta_weighs_the_kl_term_alone():
    log_likelihood, kl = jnp.array([-3.0, -5.0]), jnp.array([1.0, 2.0])
    np.testing.assert_allclose(likelihoods.elbo(log_likelihood, kl), [-4.0, -7.0], rtol=1e-6)
    np.testing.assert_allclose(likelihoods.elbo(log_likelihood, kl, 0.25), [-3.25, -5.5], rtol=1e-6)
    np.testing.assert_allclose(likelihoods.elbo(log_likelihood, kl, 0.0), log_likelihood, rtol=1e-6)


def log_weights(mean, spread, samples, repeats, seed=4):
    """log p(x, z) - log q(z) for draws of z from N(mean, diag spread^2): [samples, repeats]."""
    draws = mean + spread * np.random.default_rng(seed).normal(size=(samples, repeats, 2))
    log_joint = stats.norm.logpdf(DATA, draws @ SLANTED.T, NOISE).sum(axis=-1) + stats.norm.logpdf(draws).sum(axis=-1)
    return jnp.asarray(log_joint - stats.norm.logpdf(draws, mean, spread).sum(axis=-1), jnp.float32)


def test_importance_weighted_bound_grows_from_the_elbo_towards_the_evidence():
    mean, precision = exact_posterior(SLANTED)
    spread, repeats, truth = 1.3 / np.sqrt(np.diag(precision)), 4000, evidence(SLANTED)
    bounds = [
        np.asarray(likelihoods.importance_weighted_bound(log_weights(mean, spread, samples, repeats, samples)))
        for samples in (1, 5, 50)
    ]
    errors = [bound.std() / np.sqrt(repeats) for bound in bounds]
    assert abs(bounds[0].mean() - elbo_of(SLANTED, mean, spread**2)) < 4 * errors[0]
    for low, high in ((0, 1), (1, 2)):
        assert bounds[high].mean() - bounds[low].mean() > 4 * np.hypot(errors[low], errors[high])
    assert bounds[2].mean() < truth + 4 * errors[2]
    assert truth - bounds[2].mean() < 0.1 * (truth - bounds[0].mean())


def test_equal_weights_are_their_own_bound_however_many_samples():
    for samples in (1, 20):
        bound = likelihoods.importance_weighted_bound(jnp.full((samples, 2), -400.0))
        np.testing.assert_allclose(bound, [-400.0, -400.0], rtol=1e-6)

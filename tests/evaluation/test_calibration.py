"""A calibrated belief is called calibrated, an over- or underconfident one is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom, kstest

from rec_transfer.evaluation.calibration import coverage, draw_probabilities, transformed
from rec_transfer.types import Gaussian

KEY = jax.random.key(0)
USERS, ITEMS, LATENT = 1500, 12, 2
ITEM_VECTORS = np.random.default_rng(0).normal(size=(ITEMS, LATENT))


def decode(interests):
    return interests @ ITEM_VECTORS.T


def clicks_of(interests, rng):
    weights = np.exp(decode(interests))
    return rng.multinomial(rng.integers(5, 30, len(interests)), weights / weights.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def users():
    """Everyone's posterior is N(mean, covariance), and the truth is drawn from it."""
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(USERS, LATENT))
    covariance = np.array([[0.5, 0.3], [0.3, 0.4]])
    interests = mean + rng.multivariate_normal(np.zeros(LATENT), covariance, USERS)
    belief = Gaussian(jnp.asarray(mean, jnp.float32), jnp.tile(jnp.asarray(covariance, jnp.float32), (USERS, 1, 1)))
    return belief, clicks_of(interests, rng)


def transform(belief, counts, scale=1.0):
    belief = belief._replace(covariance=scale * belief.covariance)
    return transformed(draw_probabilities(belief, decode, draws=400, key=KEY), counts, top=3, key=KEY)


def test_draws_have_the_mean_and_covariance_of_the_belief():
    belief = Gaussian(jnp.array([[1.0, -1.0]]), jnp.array([[[0.5, 0.3], [0.3, 0.4]]]))
    draws = draw_probabilities(
        belief, lambda interests: jnp.pad(interests, ((0, 0), (0, 0), (0, 1))), draws=20000, key=KEY
    )
    np.testing.assert_allclose(draws.sum(axis=-1), 1, rtol=1e-5)
    logits = np.log(draws[0, :, :2] / draws[0, :, 2:])
    np.testing.assert_allclose(logits.mean(axis=0), [1, -1], atol=0.02)
    np.testing.assert_allclose(np.cov(logits.T), belief.covariance[0], atol=0.02)


def test_a_belief_that_the_truth_was_drawn_from_is_calibrated(users):
    found = transform(*users)
    assert kstest(found, "uniform").pvalue > 0.01
    table = coverage(found)
    assert (np.abs(table.coverage - table.level) < 3 * table.error).all()
    assert (table.users == USERS).all()


@pytest.mark.parametrize(("scale", "sign"), [(0.1, -1), (10.0, 1)])
def test_too_narrow_a_belief_covers_too_little_and_too_wide_a_one_too_much(users, scale, sign):
    found = transform(*users, scale)
    table = coverage(found, levels=(0.8,))
    assert kstest(found, "uniform").pvalue < 1e-4
    assert sign * (table.coverage - table.level)[0] > 3 * table.error[0]


def test_one_known_probability_gives_the_binomial_transform_by_hand():
    probabilities = np.tile([0.5, 0.3, 0.2], (200, 1, 1)).astype(float)
    counts = np.tile([1, 1, 1], (200, 1))
    found = transformed(probabilities, counts, top=1, key=KEY)
    below, at = binom.cdf([0, 1], 3, 0.5)
    assert below <= found.min() < below + 0.05 * (at - below)
    assert at >= found.max() > at - 0.05 * (at - below)


def test_the_error_of_a_coverage_is_binomial():
    table = coverage(np.array([0.5, 0.01, 0.3, 0.99]), levels=(0.5,))
    assert table.coverage.tolist() == [0.5]
    assert table.error[0] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("counts", "top", "message"),
    [
        (np.ones((2, 4), int), 1, r"counts: got shape \(2, 4\), expected users and items of the draws, \(2, 3\)"),
        (np.ones((2, 3), int), 3, "top: got 3, expected 1 to 2"),
        (np.array([[1, 0, 0], [0, 0, 0]]), 1, "counts: got 1 users without clicks, expected at least one for each"),
    ],
)
def test_bad_input_is_refused(unchecked, counts, top, message):
    with pytest.raises(ValueError, match=message):
        transformed(np.full((2, 5, 3), 1 / 3), counts, top=top, key=KEY)


def test_levels_are_between_zero_and_one():
    with pytest.raises(ValueError, match=r"levels: got \(1.0,\), expected numbers between 0 and 1"):
        coverage(np.array([0.5]), levels=(1.0,))

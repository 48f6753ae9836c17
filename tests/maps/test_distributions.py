"""Matching clouds: the closed forms match moments exactly, the trained ones come closer; none learns who is who."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rec_transfer.maps.distributions import (
    PACE,
    SLOPE_PENALTY,
    MMDContext,
    PairTerm,
    adversarial_loss,
    fit_adversarial_map,
    fit_mmd_map,
    kernel_widths,
    mmd_loss,
    reverse_gradient,
    squared_mmd,
)
from rec_transfer.maps.linear import fit_ridge_map
from rec_transfer.maps.transport import (
    fit_coral_map,
    fit_wasserstein_map,
    matrix_power,
    moments,
    recolouring_matrix,
    transport_matrix,
)
from rec_transfer.types import Gaussian, Pairs, Unpaired

KEY = jax.random.key(0)
FITS = [fit_wasserstein_map, fit_coral_map, fit_mmd_map, fit_adversarial_map]
TRAINED = [fit_mmd_map, fit_adversarial_map]
VECTORS = np.random.default_rng(2).normal(size=(20, 2)).astype(np.float32)


def decoder(vectors, latent):
    return latent @ vectors.T


DECODE = jax.tree_util.Partial(decoder, jnp.asarray(VECTORS))


def gaussian(mean, covariance):
    mean = np.asarray(mean, np.float32)
    return Gaussian(*map(jnp.asarray, (mean, np.broadcast_to(covariance, (*mean.shape, mean.shape[1])).astype("f4"))))


def covariances(seed, latent=3):
    roots = np.random.default_rng(seed).normal(size=(2, latent, 2 * latent))
    return roots @ np.swapaxes(roots, 1, 2) / latent


def bent(source):
    return np.stack([source[:, 0] + 0.8 * source[:, 1] ** 2, source[:, 1]], axis=1)


@pytest.fixture(scope="module")
def world():
    """Standard normal sources and a crescent of targets, 60 pairs among them."""
    rng = np.random.default_rng(0)
    spread = 0.01 * np.eye(2)
    source = rng.normal(size=(60, 2))
    weights = np.exp(bent(source) @ VECTORS.T)
    clicks = rng.multinomial(30, weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    pairs = Pairs(gaussian(source, spread), gaussian(bent(source), spread), jnp.asarray(clicks))
    apart = (rng.normal(size=(1000, 2)) for _ in range(2))
    return pairs, Unpaired(gaussian(next(apart), spread), gaussian(bent(next(apart)), spread))


# --- closed forms


@pytest.mark.parametrize("matrix_between", [transport_matrix, recolouring_matrix])
@pytest.mark.parametrize("seed", range(3))
def test_both_closed_forms_match_the_covariance_exactly(matrix_between, seed):
    source, target = covariances(seed)
    matrix = matrix_between(source, target)
    np.testing.assert_allclose(matrix @ source @ matrix.T, target, rtol=1e-9, atol=1e-9)


def test_the_transport_is_symmetric_positive_definite_and_recolouring_is_not():
    source, target = covariances(0)
    matrix, other = transport_matrix(source, target), recolouring_matrix(source, target)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    assert np.linalg.eigvalsh(matrix).min() > 0.01
    assert np.abs(other - other.T).max() > 0.05
    # Where the covariances commute the two are one: each axis by its ratio of standard deviations.
    for matrix_between in (transport_matrix, recolouring_matrix):
        commuting = matrix_between(np.diag([1.0, 4.0]), np.diag([9.0, 1.0]))
        np.testing.assert_allclose(commuting, np.diag([3.0, 0.5]), atol=1e-12)


def test_no_matching_map_moves_users_less_than_the_transport():
    # E|x - A x|^2 = tr S_s + tr S_t - 2 tr(A S_s); every other matching A is S_t^1/2 Q S_s^-1/2 with Q orthogonal.
    source, target = covariances(1)
    rng = np.random.default_rng(0)

    def cost(matrix):
        return np.trace(source + target - 2 * matrix @ source)

    least = cost(transport_matrix(source, target))
    root = matrix_power(source, 0.5)
    bures = np.trace(source + target - 2 * matrix_power(root @ target @ root, 0.5))
    assert least == pytest.approx(bures)
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(30)]
    assert all(cost(matrix_power(target, 0.5) @ turn @ matrix_power(source, -0.5)) > least for turn in turns)
    assert cost(recolouring_matrix(source, target)) > 1.001 * least


def test_moments_are_those_of_draws_from_the_aggregated_posterior():
    rng = np.random.default_rng(0)
    posterior = gaussian(rng.normal(size=(4, 2)), np.array([[0.5, 0.2], [0.2, 0.3]]))
    draws = np.concatenate([
        rng.multivariate_normal(mean, covariance, size=50_000) for mean, covariance in zip(*posterior, strict=True)
    ])  # fmt: skip
    mean, covariance = moments(posterior)
    np.testing.assert_allclose(mean, draws.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(draws.T), atol=0.03)


@pytest.mark.parametrize("fit", [fit_wasserstein_map, fit_coral_map])
def test_the_mapped_cloud_has_the_moments_of_the_target_cloud(fit, world):
    pairs, unpaired = world
    fitted = fit(pairs, unpaired=unpaired)
    matrix = np.asarray(fitted.coefficients[...]).T
    mapped = fitted(unpaired.source)
    mapped = mapped._replace(covariance=mapped.covariance - fitted.residual[...])
    for found, expected in zip(moments(mapped), moments(unpaired.target), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # Before the residual; which is what the pairs, none of them fitted, are missed by beyond what is passed on.
    miss = np.asarray(pairs.target.mean) - np.asarray(fitted(pairs.source).mean)
    expected = miss.T @ miss / len(miss) + 0.01 * np.eye(2) - 0.01 * matrix @ matrix.T
    np.testing.assert_allclose(fitted.residual[...], expected, atol=1e-4)


# --- maximum mean discrepancy


def test_squared_mmd_by_hand():
    # Two points each, width 1: within pairs at distances 1 and 2, across at 3, 5, 2, 4.
    def kernel(distance):
        return np.exp(-(distance**2) / 2)

    x, y = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [5.0]])
    expected = kernel(1) + kernel(2) - 2 * np.mean([kernel(distance) for distance in (3, 5, 2, 4)])
    assert squared_mmd(x, y, jnp.array([1.0])) == pytest.approx(expected, rel=1e-5)
    two_widths = np.mean([squared_mmd(x, y, jnp.array([width])) for width in (1.0, 2.0)])
    assert squared_mmd(x, y, jnp.array([1.0, 2.0])) == pytest.approx(two_widths, rel=1e-5)
    np.testing.assert_allclose(kernel_widths(jnp.array([[0.0], [1.0], [3.0]])), [1.0, 2.0, 4.0])  # distances 1, 2, 3


def test_squared_mmd_is_zero_in_the_mean_for_one_distribution_and_positive_for_two():
    draws = jax.random.normal(KEY, (2, 200, 30, 2))
    same, moved = (jax.vmap(squared_mmd, (0, 0, None))(draws[0], draws[1] + by, jnp.ones(1)) for by in (0.0, 1.0))
    assert abs(same.mean()) < 4 * same.std() / np.sqrt(200)
    assert moved.mean() > 0.05


def discrepancy(mapped, seed=9):
    fresh = bent(np.random.default_rng(seed).normal(size=(1500, 2))).astype(np.float32)
    return float(squared_mmd(mapped, jnp.asarray(fresh), kernel_widths(jnp.asarray(fresh[:500]))))


@pytest.mark.parametrize(("fit", "epochs", "most"), [(fit_mmd_map, 30, 0.6), (fit_adversarial_map, 60, 0.9)])
def test_training_brings_new_users_closer_to_the_target_cloud_than_any_gaussian_match(fit, epochs, most, world):
    pairs, unpaired = world
    new = gaussian(np.random.default_rng(8).normal(size=(1500, 2)), 0.01 * np.eye(2))
    before = discrepancy(fit_wasserstein_map(pairs, unpaired=unpaired)(new).mean)
    fitted = fit(pairs, unpaired=unpaired, decode=DECODE, key=KEY, pair_weight=0.0, epochs=epochs)
    after = discrepancy(fitted(new).mean)
    assert before > 0.005
    assert after < most * before


@pytest.mark.parametrize("fit", TRAINED)
def test_without_weight_the_pairs_move_no_mean(fit, world):
    # Turned round, sources and targets of the pairs no longer belong together, and nothing notices but the residual.
    pairs, unpaired = world
    shuffled = pairs._replace(target=jax.tree.map(lambda array: array[::-1], pairs.target), counts=pairs.counts[::-1])
    here, there = (
        fit(part, unpaired=unpaired, decode=DECODE, key=KEY, pair_weight=0.0, epochs=2) for part in (pairs, shuffled)
    )
    np.testing.assert_array_equal(here(pairs.source).mean, there(pairs.source).mean)
    assert np.trace(there.residual[...]) > 1.2 * np.trace(here.residual[...])


def test_matched_clouds_leave_users_mismatched():
    # The target is the source turned by a right angle: the clouds are the same, the best transport stays at home.
    rng = np.random.default_rng(0)
    source, quarter = rng.normal(size=(2000, 2)), np.array([[0.0, 1.0], [-1.0, 0.0]])
    spread = 0.01 * np.eye(2)
    pairs = Pairs(gaussian(source, spread), gaussian(source @ quarter, spread), jnp.ones((2000, 20)))
    unpaired = Unpaired(gaussian(rng.normal(size=(2000, 2)), spread), gaussian(rng.normal(size=(2000, 2)), spread))
    matched = fit_wasserstein_map(pairs, unpaired=unpaired)(pairs.source).mean
    assert np.mean((matched - pairs.target.mean) ** 2) > 1.8  # two strangers: 2
    assert np.mean((fit_ridge_map(pairs)(pairs.source).mean - pairs.target.mean) ** 2) < 1e-3


@pytest.mark.parametrize("fit", TRAINED)
def test_with_weight_the_map_starts_at_ridge_and_stops_by_the_pairs_left_out(fit, world):
    pairs, unpaired = world
    fitted = fit(pairs, unpaired=unpaired, decode=DECODE, key=KEY, pair_weight=3.0)
    assert len(fitted.networks) == 5
    new = np.random.default_rng(7).normal(size=(1500, 2))
    posterior = gaussian(new, 0.01 * np.eye(2))
    missed, ridge_missed = (
        np.mean((np.asarray(domain_map(posterior).mean) - bent(new)) ** 2)
        for domain_map in (fitted, fit_ridge_map(pairs))
    )
    assert missed < 0.95 * ridge_missed


# --- losses


@pytest.mark.parametrize("loss", [mmd_loss, adversarial_loss])
def test_losses_add_the_pairs_by_their_weight_and_hold_out_nothing_else(loss, world):
    pairs, unpaired = world
    certain = unpaired._replace(source=unpaired.source._replace(covariance=0 * unpaired.source.covariance))
    sure_pairs = pairs._replace(source=pairs.source._replace(covariance=0 * pairs.source.covariance))

    def network(mean):
        return 1.5 * mean

    def discriminator(mean):
        return mean[..., :1] - 0.3

    logits = np.asarray(DECODE(1.5 * pairs.source.mean), float)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    clicks = -(np.asarray(pairs.counts) * logs).sum(axis=1) / 30  # of 30 each

    def total(batch, pairs, weight, key):
        term = PairTerm(pairs, weight, DECODE)
        if loss is mmd_loss:
            return mmd_loss(network, batch, MMDContext(term, jnp.ones(1)), key=key, epoch=0.0)
        return adversarial_loss((network, discriminator), batch, term, key=key, epoch=0.0)

    left_out = total(pairs, None, 0.7, None)
    np.testing.assert_allclose(left_out, clicks, rtol=1e-4)
    none, some = (total(certain, sure_pairs, weight, KEY) for weight in (0.0, 0.7))
    np.testing.assert_allclose(some - none, np.full(1000, 0.7 * clicks.mean()), rtol=1e-3)


def test_the_discriminators_loss_is_the_cross_entropy_and_the_map_climbs_it():
    sure = gaussian(np.array([[0.06, 0.0], [-0.19, 2.0]]), np.zeros((2, 2)))
    batch = Unpaired(sure, sure._replace(mean=-sure.mean))
    pairs = Pairs(sure, sure, jnp.ones((2, 20)))

    def loss(shift, slope):
        models = (lambda mean: mean + shift, lambda mean: slope * mean[..., :1])
        return jnp.mean(adversarial_loss(models, batch, PairTerm(pairs, 0.0, DECODE), key=KEY, epoch=0.0))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    mapped, real = np.array([0.16, -0.09]), np.array([-0.06, 0.19])
    pace = PACE * 2
    expected = np.mean(-np.log(sigmoid(pace * real)) - np.log(1 - sigmoid(pace * mapped)))
    expected += 0.5 * SLOPE_PENALTY * pace**2
    assert float(loss(0.1, 2.0)) == pytest.approx(expected, rel=1e-4)
    step = 1e-3
    by_shift, by_slope = map(float, jax.grad(loss, argnums=(0, 1))(0.1, 2.0))
    assert by_slope == pytest.approx(float(loss(0.1, 2 + step) - loss(0.1, 2 - step)) / (2 * step), rel=1e-2)
    assert by_shift == pytest.approx(-float(loss(0.1 + step, 2.0) - loss(0.1 - step, 2.0)) / (2 * step), rel=1e-2)
    assert reverse_gradient(3.0) == 3.0


# --- errors


@pytest.mark.parametrize("fit", FITS)
def test_what_is_missing_is_named(fit, world):
    pairs, unpaired = world
    few = Unpaired(*(jax.tree.map(lambda array: array[:2], side) for side in unpaired))
    for given, found in ((None, 0), (few, 2)):
        with pytest.raises(ValueError, match=f"unpaired: got {found} users in one of the domains, expected more than"):
            fit(pairs, unpaired=given, decode=DECODE, key=KEY)
    with pytest.raises(ValueError, match="pairs: got 1 users, expected at least 2"):
        fit(jax.tree.map(lambda array: array[:1], pairs), unpaired=unpaired, decode=DECODE, key=KEY)


@pytest.mark.parametrize("fit", TRAINED)
def test_a_negative_weight_is_refused(fit, world):
    pairs, unpaired = world
    with pytest.raises(ValueError, match=r"pair_weight: got -1.0, expected a number of at least 0"):
        fit(pairs, unpaired=unpaired, decode=DECODE, key=KEY, pair_weight=-1.0)

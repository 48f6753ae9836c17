"""Maps recover known linear maps, and what they say of their own error is true."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse, stats

from rec_transfer import training
from rec_transfer.maps.base import LinearMap, MeanMap, check_pairs, dense_counts, residual_covariance
from rec_transfer.maps.linear import fit_ridge_map
from rec_transfer.maps.networks import MLPMap, decoded_loss, fit_mlp_map
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.models import likelihoods
from rec_transfer.types import Gaussian, Pairs, Unpaired

KEY = jax.random.key(0)
MATRIX = np.array([[1.2, -0.4], [0.3, 0.8]])  # users are rows: target = source @ MATRIX + SHIFT
SHIFT = np.array([0.5, -1.0])
ROTATION = np.array([[0.6, -0.8], [0.8, 0.6]])


def single(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def gaussian(mean, covariance):
    return Gaussian(*single(mean, np.broadcast_to(covariance, (*np.shape(mean), np.shape(mean)[-1]))))


def linear_pairs(users=40, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(users, 2))
    target = source @ MATRIX + SHIFT + noise * rng.normal(size=(users, 2))
    spread = 0.01 * np.eye(2)
    return Pairs(gaussian(source, spread), gaussian(target, spread), jnp.ones((users, 3)))


# --- the linear map


def test_a_linear_map_carries_a_gaussian_by_its_formula():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 2, 2))
    posterior = gaussian(rng.normal(size=(5, 2)), root @ np.swapaxes(root, 1, 2))
    coefficients, intercept = rng.normal(size=(2, 3)), rng.normal(size=3)
    residual = np.diag([0.1, 0.2, 0.3])
    mapped = LinearMap(coefficients, intercept, residual)(posterior)
    for user in range(5):
        mean = coefficients.T @ np.asarray(posterior.mean[user]) + intercept
        covariance = coefficients.T @ np.asarray(posterior.covariance[user]) @ coefficients + residual
        np.testing.assert_allclose(mapped.mean[user], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mapped.covariance[user], covariance, rtol=1e-4, atol=1e-5)


def test_the_ridge_map_recovers_a_known_linear_map():
    fitted = fit_ridge_map(linear_pairs())
    np.testing.assert_allclose(fitted.coefficients[...], MATRIX, atol=2e-3)
    np.testing.assert_allclose(fitted.intercept[...], SHIFT, atol=2e-3)
    new = linear_pairs(seed=1)
    np.testing.assert_allclose(fitted(new.source).mean, new.target.mean, atol=1e-2)


def test_the_ridge_map_reads_the_pairs_alone():
    pairs = linear_pairs(noise=0.3)
    other = gaussian(np.full((7, 2), 9.0), np.eye(2))
    plain = fit_ridge_map(pairs)
    told_more = fit_ridge_map(pairs, unpaired=Unpaired(other, other), decode=None, key=jax.random.key(5))
    for one, same in zip(jax.tree.leaves(plain), jax.tree.leaves(told_more), strict=True):
        np.testing.assert_array_equal(one, same)


def turned(posterior, matrix):
    return gaussian(np.asarray(posterior.mean) @ matrix, matrix.T @ np.asarray(posterior.covariance) @ matrix)


def test_rotating_the_source_space_leaves_the_ridge_maps_predictions_unchanged():
    # Whatever the penalty: it has no favourite direction.
    pairs, new = linear_pairs(noise=1.0), linear_pairs(seed=1)
    here = fit_ridge_map(pairs)(new.source)
    there = fit_ridge_map(pairs._replace(source=turned(pairs.source, ROTATION)))(turned(new.source, ROTATION))
    np.testing.assert_allclose(there.mean, here.mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(there.covariance, here.covariance, rtol=1e-3, atol=1e-4)


def test_stretching_the_source_space_changes_nothing_once_the_penalty_vanishes():
    pairs, stretch = linear_pairs(noise=0.3), np.array([[3.0, 1.0], [0.0, 0.2]])
    x, y = (np.asarray(side.mean, float) for side in (pairs.source, pairs.target))

    def predictions(inputs, penalty):
        ridge = fit_ridge(inputs, y, penalties=[penalty])
        return inputs @ ridge.coefficients + ridge.intercept

    np.testing.assert_allclose(predictions(x @ stretch, 1e-9), predictions(x, 1e-9), atol=1e-6)
    assert np.abs(predictions(x @ stretch, 10.0) - predictions(x, 10.0)).max() > 1e-2


# --- the residual covariance


def test_residual_covariance_by_hand():
    # One dimension, slope 2: misses 1 and -3 (mean square 5), target spread 0.5, passed on 4 x 0.25 = 1.
    pairs = Pairs(gaussian([[0.0], [1.0]], [[0.25]]), gaussian([[2.0], [1.0]], [[0.5]]), jnp.ones((2, 3)))
    held_out, slope = np.array([[1.0], [4.0]]), np.array([[2.0]])
    assert residual_covariance(pairs, held_out, slope) == pytest.approx(5.0 + 0.5 - 1.0)
    # A slope per user: 2 and 4 pass on 1 and 4, in the mean 2.5.
    assert residual_covariance(pairs, held_out, np.array([[[2.0]], [[4.0]]])) == pytest.approx(5.0 + 0.5 - 2.5)


def test_residual_covariance_has_no_negative_direction():
    # A perfect map whose source is uncertain in the first direction only: it passes on more than there is.
    pairs = linear_pairs(users=30)
    pairs = pairs._replace(source=gaussian(pairs.source.mean, np.diag([4.0, 0.0])))
    held_out = np.asarray(pairs.target.mean) + 0.1 * np.random.default_rng(0).normal(size=(30, 2))
    residual = residual_covariance(pairs, held_out, np.eye(2))
    np.testing.assert_allclose(residual, residual.T, atol=1e-12)
    values = np.linalg.eigvalsh(residual)
    assert values[0] == pytest.approx(0.0, abs=1e-9)
    assert values[1] > 0.01


def observed(users, seed):
    """Truth and posteriors where both are exact: half of the users clicked little, the others much.

    Interests are standard normal and seen through noise, so that the posterior is the shrunk observation; the target
    is the mapped interest plus an error that no map can know.
    """
    rng = np.random.default_rng(seed)
    noise = np.where(np.arange(users) % 2, 0.3, 1.5) ** 2
    interest = rng.normal(size=(users, 2))
    seen = interest + np.sqrt(noise)[:, None] * rng.normal(size=(users, 2))
    source = gaussian(seen / (1 + noise)[:, None], (noise / (1 + noise))[:, None, None] * np.eye(2))
    truth = interest @ MATRIX + SHIFT + rng.normal(size=(users, 2)) * [0.3, 0.7]
    target = gaussian(truth + 0.1 * rng.normal(size=(users, 2)), 0.01 * np.eye(2))
    return Pairs(source, target, jnp.ones((users, 3))), truth


def test_mapped_gaussians_cover_the_truth_as_often_as_they_say():
    fitted = fit_ridge_map(observed(1000, seed=0)[0])
    new, truth = observed(6000, seed=1)
    posterior = fitted(new.source)
    miss = truth - np.asarray(posterior.mean)
    distance = np.einsum("ui,uij,uj->u", miss, np.linalg.inv(np.asarray(posterior.covariance, float)), miss)
    for group in (0, 1):  # few clicks, many clicks: the covariance must tell them apart
        for level in (0.5, 0.9):
            covered = np.mean(distance[group::2] < stats.chi2.ppf(level, 2))
            assert abs(covered - level) < 0.04, (group, level, covered)


# --- networks


def linear_decoder(vectors, latent):
    return latent @ vectors.T


def clicked_pairs(users, *, bend, seed):
    """Pairs whose target interest is a linear or a bent function of the source one, with clicks drawn from it."""
    shape = np.random.default_rng(5)
    rotation, bends = np.linalg.qr(shape.normal(size=(2, 2)))[0], shape.normal(0, 0.7, (2, 2))
    vectors = 1.2 * shape.normal(size=(20, 2))
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(users, 2))
    target = source @ rotation
    if bend:
        target = 1.5 * np.tanh(target + (source @ bends) ** 2 / 2 - 0.25)
    weights = np.exp(target @ vectors.T)
    clicks = rng.multinomial(40, weights / weights.sum(axis=1, keepdims=True))
    seen = source + 0.1 * rng.normal(size=source.shape)
    spread = 0.01 * np.eye(2)
    pairs = Pairs(gaussian(seen, spread), gaussian(target, spread), *single(clicks))
    return pairs, jax.tree_util.Partial(linear_decoder, *single(vectors))


def misses(domain_map, decode, pairs):
    """Negative log-likelihood of each user's clicks, beyond that under the true interest."""
    found, best = (
        likelihoods.multinomial_log_likelihood(decode(mean), pairs.counts)
        for mean in (domain_map(pairs.source).mean, pairs.target.mean)
    )
    return np.asarray(best - found)


def test_the_networks_beat_ridge_on_a_bent_map_and_lose_nothing_much_on_a_straight_one():
    for bend, most in ((True, 0.7), (False, 1.3)):
        pairs, decode = clicked_pairs(300, bend=bend, seed=0)
        new, _ = clicked_pairs(1500, bend=bend, seed=1)
        ridge = misses(fit_ridge_map(pairs), decode, new).mean()
        networks = misses(fit_mlp_map(pairs, decode=decode, key=KEY), decode, new).mean()
        assert ridge > 0.2
        assert networks < most * ridge


def test_each_network_is_stopped_and_judged_on_pairs_it_has_not_seen(monkeypatch):
    pairs, decode = clicked_pairs(20, bend=True, seed=0)
    folds = []

    def fit(model, loss, data, **settings):
        folds.append((data, settings["validation"], model))
        assert loss is decoded_loss
        assert settings["context"] is decode
        return training.Fitted(model, jnp.zeros(1), jnp.zeros(1), jnp.array(0))

    monkeypatch.setattr(training, "fit", fit)
    average = fit_mlp_map(pairs, decode=decode, key=KEY)
    held_out = np.zeros((20, 2))
    for seen, unseen, network in folds:
        row_of = {tuple(mean): row for row, mean in enumerate(np.asarray(pairs.source.mean).tolist())}
        inside, outside = ([row_of[tuple(mean)] for mean in part.source.mean.tolist()] for part in (seen, unseen))
        assert sorted(inside + outside) == list(range(20))
        start = fit_ridge(seen.source.mean, seen.target.mean)
        np.testing.assert_allclose(network.coefficients[...], start.coefficients, rtol=1e-4, atol=1e-6)
        held_out[outside] += np.asarray(unseen.source.mean) @ start.coefficients + start.intercept
    assert len(folds) == 5
    assert sum(len(unseen.counts) for _, unseen, _ in folds) == 20  # with the sums above: each pair in one fold
    slope = np.mean([network.coefficients[...].T for _, _, network in folds], axis=0)
    expected = residual_covariance(pairs, held_out, slope)
    np.testing.assert_allclose(average.residual[...], expected, rtol=1e-3, atol=1e-5)


def test_before_training_a_network_is_its_linear_map():
    means = np.random.default_rng(0).normal(size=(4, 2))
    model = MLPMap(MATRIX, SHIFT, key=KEY)
    np.testing.assert_allclose(model(*single(means)), means @ MATRIX + SHIFT, rtol=1e-4, atol=1e-6)


def grown(seed):
    """A network with an output layer that does something."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: MLPMap(MATRIX, SHIFT, key=KEY))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), leaf.dtype), shapes)


def test_a_mean_map_averages_its_networks_and_carries_covariance_along_its_slope():
    networks = [grown(seed) for seed in (1, 2, 3)]
    residual = np.array([[0.2, 0.05], [0.05, 0.1]])
    rng = np.random.default_rng(0)
    posterior = gaussian(rng.normal(size=(4, 2)), np.array([[0.5, 0.2], [0.2, 0.3]]))
    average = MeanMap(networks, residual)
    mapped = jax.jit(lambda average, posterior: average(posterior))(average, posterior)
    expected = np.mean([network(posterior.mean) for network in networks], axis=0)
    np.testing.assert_allclose(mapped.mean, expected, rtol=1e-4, atol=1e-5)
    step, mean = 1e-2, jax.jit(average.mean)
    for user in range(4):
        moves = step * np.eye(2)
        forth, back = (np.asarray(mean(*single(np.asarray(posterior.mean[user]) + sign * moves))) for sign in (1, -1))
        slope = ((forth - back) / (2 * step)).T
        covariance = slope @ np.asarray(posterior.covariance[user]) @ slope.T + residual
        np.testing.assert_allclose(mapped.covariance[user], covariance, rtol=2e-2, atol=2e-3)


def test_networks_that_are_linear_agree_with_the_linear_map():
    posterior = linear_pairs().source
    residual = np.diag([0.1, 0.2])
    average = MeanMap([MLPMap(MATRIX, SHIFT, key=jax.random.key(seed)) for seed in (1, 2)], residual)
    mapped = jax.jit(lambda average, posterior: average(posterior))(average, posterior)
    expected = LinearMap(MATRIX, SHIFT, residual)(posterior)
    np.testing.assert_allclose(mapped.mean, expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mapped.covariance, expected.covariance, rtol=1e-4, atol=1e-5)


def test_the_networks_loss_is_the_clicks_under_the_decoded_interest():
    pairs, decode = clicked_pairs(50, bend=True, seed=0)
    model = grown(0)
    logits = np.asarray(decode(model(pairs.source.mean)), float)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(np.asarray(pairs.counts) * logs).sum(axis=1)
    found = partial(decoded_loss, model, decode=decode, epoch=0.0)
    np.testing.assert_allclose(found(pairs, key=None), expected, rtol=1e-4)
    # A source posterior without spread leaves nothing to draw; one with spread does, as wide as it says.
    certain = pairs._replace(source=gaussian(pairs.source.mean, np.zeros((2, 2))))
    np.testing.assert_allclose(found(certain, key=KEY), expected, rtol=1e-4)
    assert np.abs(found(pairs, key=KEY) - expected).max() > 1e-2


def test_training_draws_source_interests_as_wide_as_their_posterior():
    users, drawn = 8000, []
    source = gaussian(np.tile([3.0, -1.0], (users, 1)), np.diag([0.04, 4.0]))

    def decode(latent):
        drawn.append(np.asarray(latent))
        return latent

    identity = MLPMap(np.eye(2), np.zeros(2), key=KEY)  # untrained: what comes out is what was drawn
    decoded_loss(identity, Pairs(source, source, jnp.ones((users, 2))), decode, key=KEY, epoch=0.0)
    spread = np.array([0.2, 2.0])
    assert (np.abs(drawn[0].mean(axis=0) - [3.0, -1.0]) < 4 * spread / np.sqrt(users)).all()
    assert (np.abs(drawn[0].std(axis=0) - spread) < 4 * spread / np.sqrt(2 * users)).all()


# --- the pairs


def test_counts_become_dense_whatever_they_were():
    pairs = linear_pairs()
    counts = np.random.default_rng(0).poisson(1.0, size=(40, 3))
    for given in (sparse.csr_array(counts), counts):
        found = dense_counts(pairs._replace(counts=given))
        np.testing.assert_array_equal(found.counts, counts)
        assert found.source is pairs.source


def test_as_many_pairs_as_asked_for_are_enough_and_one_fewer_is_not():
    check_pairs(linear_pairs(users=7), 7)
    with pytest.raises(ValueError, match="pairs: got 6 users, expected at least 7 for a purpose"):
        check_pairs(linear_pairs(users=6), 7, " for a purpose")

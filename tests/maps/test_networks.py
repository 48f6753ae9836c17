"""The contrastive map and the bridge: losses by hand, starts at ridge, and worlds that only they can follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rec_transfer import training
from rec_transfer.maps.linear import fit_ridge_map
from rec_transfer.maps.networks import BridgeMap, contrastive_loss, fit_bridge_map, fit_contrastive_map
from rec_transfer.types import Gaussian, Pairs

KEY = jax.random.key(0)
VECTORS = np.random.default_rng(2).normal(size=(20, 2)).astype(np.float32)
TURNS = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]])


def decoder(vectors, latent):
    return latent @ vectors.T


DECODE = jax.tree_util.Partial(decoder, jnp.asarray(VECTORS))


def gaussian(mean, covariance):
    mean = np.asarray(mean, np.float32)
    return Gaussian(*map(jnp.asarray, (mean, np.broadcast_to(covariance, (*mean.shape, mean.shape[1])).astype("f4"))))


def mixed_world(users, seed):
    """The matrix depends on the user: the one half keeps its latent, the other turns it by a right angle."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(users, 2))
    target = np.einsum("ui,uij->uj", source, TURNS[(source[:, 0] > 0).astype(int)])
    weights = np.exp(target @ VECTORS.T)
    clicks = rng.multinomial(60, weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return Pairs(gaussian(source, 1e-4 * np.eye(2)), gaussian(target, 1e-4 * np.eye(2)), jnp.asarray(clicks))


@pytest.fixture(scope="module")
def worlds():
    return mixed_world(200, seed=0), mixed_world(1000, seed=1)


def squared_miss(domain_map, pairs):
    return float(np.mean((domain_map(pairs.source).mean - pairs.target.mean) ** 2))


def test_the_contrastive_loss_of_three_users_by_hand():
    # Mapped (doubled) 0, 2, 4 against targets 0, 1, 5, temperature 2: squared distances over 4.
    pairs = Pairs(gaussian([[0.0], [1.0], [2.0]], [[0.0]]), gaussian([[0.0], [1.0], [5.0]], [[0.5]]), jnp.ones((3, 4)))
    apart = np.array([[0.0, 1.0, 25.0], [4.0, 1.0, 9.0], [16.0, 9.0, 1.0]])
    expected = np.diagonal(apart) / 4 + np.log(np.exp(-apart / 4).sum(axis=1))
    for key in (None, KEY):  # no spread, nothing to draw
        found = contrastive_loss(lambda mean: 2 * mean, pairs, 2.0, key=key, epoch=0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_map_that_knows_nothing_stands_at_log_n():
    pairs = mixed_world(50, seed=3)
    same = pairs._replace(target=gaussian(np.ones((50, 2)), np.eye(2)))
    found = contrastive_loss(lambda mean: mean, same, 1.0, key=None, epoch=0.0)
    np.testing.assert_allclose(found, np.log(50), rtol=1e-5)


def test_the_contrastive_map_tells_new_users_apart_better_than_ridge(worlds):
    pairs, new = worlds
    fitted = fit_contrastive_map(pairs, key=KEY, temperature=0.2)
    losses = [
        contrastive_loss(lambda mean, a=a: a(gaussian(mean, np.eye(2))).mean, new, 0.2, key=None, epoch=0.0).mean()
        for a in (fitted, fit_ridge_map(pairs))
    ]
    assert losses[0] < losses[1] - 0.2


def test_a_bridge_starts_as_its_linear_map_and_its_matrix_is_what_it_applies():
    coefficients, intercept = np.array([[1.2, -0.4, 0.1], [0.3, 0.8, 0.5]]), np.array([0.5, -1.0, 0.0])
    model = BridgeMap(coefficients, intercept, key=KEY, rank=1)
    means = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
    np.testing.assert_allclose(model(means), means @ coefficients + intercept, rtol=1e-4, atol=1e-5)
    grown = jax.tree.map(lambda leaf: leaf + 0.3, model)
    by_user = np.stack([mean @ grown.matrix(mean) + grown.intercept[...] for mean in means])
    np.testing.assert_allclose(grown(means), by_user, rtol=1e-4, atol=1e-5)
    added = np.asarray(grown.matrix(means) - grown.coefficients[...])
    assert [np.linalg.matrix_rank(matrix, tol=1e-4) for matrix in added] == [1] * 4
    assert np.abs(added[0] - added[1]).max() > 1e-3  # one matrix per user


def test_the_bridge_beats_a_linear_map_where_the_matrix_depends_on_the_user(worlds):
    pairs, new = worlds
    ridge, bridge = fit_ridge_map(pairs), fit_bridge_map(pairs, decode=DECODE, key=KEY)
    assert squared_miss(ridge, new) > 0.3
    assert squared_miss(bridge, new) < 0.5 * squared_miss(ridge, new)


@pytest.mark.parametrize("fit", [fit_contrastive_map, fit_bridge_map])
def test_networks_are_stopped_by_pairs_they_do_not_see(fit, worlds, monkeypatch):
    pairs, _ = worlds
    seen = []

    def spy(model, loss, data, **settings):
        seen.append((len(data.counts), len(settings["validation"].counts)))
        return training.Fitted(model, jnp.zeros(1), jnp.zeros(1), jnp.array(0))

    monkeypatch.setattr(training, "fit", spy)
    fitted = fit(pairs, decode=DECODE, key=KEY)
    assert seen == [(160, 40)] * 5
    untrained, ridge = fitted(pairs.source).mean, fit_ridge_map(pairs)(pairs.source).mean
    assert np.mean((untrained - ridge) ** 2) < 1e-3  # five ridge maps of four fifths, averaged


@pytest.mark.parametrize(
    ("fit", "argument", "message"),
    [
        (fit_contrastive_map, {"temperature": 0.0}, "temperature: got 0.0, expected a positive number"),
        (fit_bridge_map, {"rank": 0}, "rank: got 0, expected at least 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fit, argument, message, worlds):
    pairs, _ = worlds
    with pytest.raises(ValueError, match=message):
        fit(pairs, decode=DECODE, key=KEY, **argument)
    with pytest.raises(ValueError, match="pairs: got 9 users, expected at least 10"):
        fit(jax.tree.map(lambda array: array[:9], pairs), decode=DECODE, key=KEY)

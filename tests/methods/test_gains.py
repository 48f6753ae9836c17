"""Expected gains: what a click is worth by metric, against clicks drawn one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from rec_transfer.evaluation import metrics
from rec_transfer.methods.gains import list_gains


def test_gains_are_the_simulated_ones_to_within_the_rounding_of_the_number_of_relevant_items():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(30, 0.4))
    clicked = rng.multinomial(12, probabilities, size=40_000) > 0
    number = clicked.sum(axis=1)
    ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))[np.minimum(number, 10) - 1]
    found = list_gains(jnp.asarray(probabilities[None], jnp.float32), jnp.asarray([12.0]))
    for name, worth in (("NDCG@10", ideal), ("Recall@20", np.minimum(number, 20))):
        simulated = (clicked / worth[:, None]).mean(axis=0)
        np.testing.assert_allclose(found[name][0], simulated, rtol=0.06, atol=2e-3, err_msg=name)
    np.testing.assert_allclose(found["posterior mean"][0], probabilities, rtol=1e-5)


def test_a_list_judged_by_half_of_the_items_has_the_gains_of_items_dealt_at_random():
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.full(30, 0.4))
    clicked = rng.multinomial(12, probabilities, size=40_000) > 0
    lots = np.where(clicked, rng.random(clicked.shape), 2.0)
    number = (clicked.sum(axis=1) + 1) // 2  # of the items, the odd one included
    judged = lots.argsort(axis=1).argsort(axis=1) < number[:, None]
    ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))[np.minimum(number, 10) - 1]
    found = list_gains(jnp.asarray(probabilities[None], jnp.float32), jnp.asarray([12.0]), judged=0.5)
    for name, worth in (("NDCG@10", ideal), ("Recall@20", np.minimum(number, 20))):
        simulated = (judged / worth[:, None]).mean(axis=0)
        np.testing.assert_allclose(found[name][0], simulated, rtol=0.1, atol=3e-3, err_msg=name)


def test_the_list_by_expected_gain_beats_the_list_by_mean_probability_where_the_two_differ():
    # Two kinds of user, equally likely: a heavy clicker with eight favourites and a light one with five others.
    wide, narrow = np.full(40, 1e-9), np.full(40, 1e-9)
    wide[:8], narrow[20:25] = 1 / 8, 1 / 5
    draws = jnp.asarray(np.stack([wide, narrow] * 5) / np.stack([wide, narrow] * 5).sum(axis=1, keepdims=True))
    clicks = jnp.asarray([200.0, 1.0] * 5)
    found = list_gains(draws.astype(jnp.float32), clicks)
    by_gain, by_mean = (np.asarray(found[name].mean(axis=0)) for name in ("NDCG@10", "posterior mean"))
    rng = np.random.default_rng(1)
    users = rng.integers(0, 2, 4000)
    chances = np.asarray(draws, float)
    chances /= chances.sum(axis=1, keepdims=True)
    relevant = np.stack([rng.multinomial(int(clicks[user]), chances[user]) for user in users])
    key = jax.random.key(0)
    values = [metrics.ndcg(np.tile(scores, (4000, 1)), relevant, key=key).mean() for scores in (by_gain, by_mean)]
    assert values[0] > values[1] + 0.03
    assert np.argmax(by_mean) >= 20 > np.argmax(by_gain)  # the light clicker leads by probability alone

"""The ceiling: against a closed form, against quadrature, and above whatever does not know the world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rec_transfer import evaluation
from rec_transfer.methods import baselines
from rec_transfer.synthetic import oracle, tempering
from rec_transfer.synthetic.world import WorldConfig, common_interests, make_world, sample_population

KEY = jax.random.key(4)


def gaussian_log_likelihood(shown, observation, variance):
    return -0.5 * jnp.sum((observation - shown) ** 2) / variance


def pooled(world, observations, context, log_likelihood):
    """Posterior mean and second moment of u in each pool, [pools, users, latent]."""
    domain = oracle.domain_of(world, "films")
    moments = []
    for key in jax.random.split(KEY, oracle.POOLS):
        draws = oracle.draw_posterior(
            observations, domain, context, log_likelihood=log_likelihood, config=world.config, draws=128, key=key
        )
        moments.append([np.einsum("nc,nci->ni", draws.weights, draws.interests**power) for power in (1, 2)])
    return np.asarray(moments).swapaxes(0, 1)


def test_linear_gaussian_observations_have_the_closed_form_posterior():
    world = make_world(WorldConfig(latent=3, relatedness=0.8), key=KEY)
    observations, noise = np.random.default_rng(0).normal(size=(6, 3)), 0.5
    first, second = pooled(world, jnp.asarray(observations, jnp.float32), noise, gaussian_log_likelihood)
    total = 1 - 0.8**2 + noise  # of the observation given u
    precision = 1 + 0.8**2 / total
    mean = 0.8 * observations @ world.rotations[0].T / total / precision
    error = first.std(axis=0, ddof=1) / np.sqrt(oracle.POOLS)
    assert np.abs(first.mean(axis=0) - mean).max() < 5 * error.max()
    np.testing.assert_allclose(second.mean(axis=0) - first.mean(axis=0) ** 2, 1 / precision, rtol=0.1)


def test_a_posterior_with_two_modes_has_the_masses_that_quadrature_gives():
    world = make_world(WorldConfig(items=40, latent=1, bend=1.0, relatedness=0.95), key=jax.random.key(2))
    world = world._replace(bends=np.full_like(world.bends, 2.0), rotations=np.full_like(world.rotations, 0.3))
    rng, domain = np.random.default_rng(1), oracle.domain_of(world, "films")
    shown = np.array([0.9, 1.2])[:, None]  # u = a and u = -a show nearly the same
    logits = shown @ np.asarray(domain.items).T + np.asarray(domain.item_bias)
    counts = np.stack([rng.multinomial(25, np.exp(row) / np.exp(row).sum()) for row in logits]).astype(np.float32)
    first, _ = pooled(world, jnp.asarray(counts), domain, oracle.true_log_likelihood)

    u, private = np.linspace(-5, 5, 801), np.linspace(-5, 5, 201)
    common = common_interests(u[:, None], world.rotations[0], world.bends[0], bend=1.0)
    grid = 0.95 * common + np.sqrt(1 - 0.95**2) * private[None, :]
    logs = jax.nn.log_softmax(jnp.asarray(grid)[..., None] * domain.items[:, 0] + domain.item_bias)
    log_joint = jnp.einsum("upi,ni->nup", logs, counts) - 0.5 * u[None, :, None] ** 2 - 0.5 * private**2
    weights = np.asarray(jax.nn.softmax(jax.nn.logsumexp(log_joint, axis=2), axis=1))
    left = weights[:, u < 0].sum(axis=1)
    assert ((left > 0.05) & (left < 0.95)).all()  # two modes indeed
    error = first.std(axis=0, ddof=1) / np.sqrt(oracle.POOLS)
    np.testing.assert_array_less(np.abs(first.mean(axis=0)[:, 0] - weights @ u), 5 * error[:, 0] + 0.01)


def test_tempered_chains_have_the_closed_form_posterior():
    observations, noise = np.random.default_rng(0).normal(size=(5, 2)), 0.25
    moments = []
    for key in jax.random.split(KEY, oracle.POOLS):
        drawn = tempering.temper(
            lambda x, seen, noise: gaussian_log_likelihood(x[:2], seen, noise),
            jnp.asarray(observations, jnp.float32), noise, size=3, draws=128, key=key,
        )  # fmt: skip
        moments.append([np.mean(drawn, axis=1), np.mean(drawn**2, axis=1)])
    first, second = np.asarray(moments).swapaxes(0, 1)
    mean = np.concatenate([observations / (1 + noise), np.zeros((5, 1))], axis=1)  # nothing is seen of the third
    error = first.std(axis=0, ddof=1) / np.sqrt(oracle.POOLS)
    assert np.abs(first.mean(axis=0) - mean).max() < 5 * error.max()
    variance = second.mean(axis=0) - first.mean(axis=0) ** 2
    np.testing.assert_allclose(variance, np.tile([0.2, 0.2, 1], (5, 1)), rtol=0.15)


def behind_a_hidden_layer(**knobs):
    return make_world(WorldConfig(decoder="two-layer", relatedness=0.9, **knobs), key=jax.random.key(2))


@pytest.mark.parametrize("bend", [0.0, 1.0])
def test_behind_a_hidden_layer_the_posterior_is_what_quadrature_gives(bend):
    world = behind_a_hidden_layer(items=40, latent=1, bend=bend)
    rng, domain = np.random.default_rng(1), oracle.domain_of(world, "films")
    logits = np.asarray(oracle.true_scores(jnp.asarray([[-1.5], [0.0], [0.6], [1.2]]), domain))
    counts = np.stack([rng.multinomial(12, np.exp(row) / np.exp(row).sum()) for row in logits]).astype(np.float32)
    first, second = pooled(world, jnp.asarray(counts), domain, oracle.true_log_likelihood)

    u, private = np.linspace(-5, 5, 801), np.linspace(-5, 5, 201)
    common = common_interests(u[:, None], world.rotations[0], world.bends[0], bend=bend)
    grid = 0.9 * common + np.sqrt(1 - 0.9**2) * private[None, :]
    logs = jax.nn.log_softmax(oracle.true_scores(jnp.asarray(grid)[..., None], domain))
    log_joint = jnp.einsum("upi,ni->nup", logs, counts) - 0.5 * u[None, :, None] ** 2 - 0.5 * private**2
    weights = np.asarray(jax.nn.softmax(jax.nn.logsumexp(log_joint, axis=2), axis=1))
    for found, power in ((first, 1), (second, 2)):
        error = found.std(axis=0, ddof=1) / np.sqrt(oracle.POOLS)
        np.testing.assert_array_less(np.abs(found.mean(axis=0)[:, 0] - weights @ u**power), 5 * error[:, 0] + 0.01)


def test_both_ways_of_sampling_give_the_same_gains_in_a_linear_world(world, split):
    here, there = (oracle.domain_of(world, name) for name in ("films", "books"))
    counts = jnp.asarray(split.history.source[:6].toarray(), jnp.float32)
    known = {"log_likelihood": oracle.true_log_likelihood, "config": world.config, "draws": 128}
    pools = {"gaussian": [], "tempered": []}
    for key in jax.random.split(KEY, oracle.POOLS):
        posteriors = {
            "gaussian": oracle.draw_posterior(counts, here, here, **known, key=key),
            "tempered": oracle.draw_tempered(counts, here, here, **known, key=key),
        }
        for name, posterior in posteriors.items():
            gains = oracle.posterior_gains(posterior, there, config=world.config, key=key)
            pools[name].append(gains["NDCG@10"][0])
    one, other = (np.asarray(pools[name]) for name in ("gaussian", "tempered"))
    error = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / oracle.POOLS)
    differences = one.mean(axis=0) - other.mean(axis=0)
    assert np.abs(differences / error).max() < 6
    assert np.mean((differences / error) ** 2) < 2  # 14 / 12 for Student's t with 14 degrees of freedom


def test_the_pools_agree_behind_a_hidden_layer(monkeypatch):
    monkeypatch.setattr(oracle, "USERS_AT_ONCE", 20)  # a chunk is filled up to this number
    world = behind_a_hidden_layer(items=40, latent=3, users_per_domain=0, overlapping_users=0, test_users=20)
    counts = sample_population(world, key=KEY).interactions["films"].counts.toarray()
    found = oracle.score_users(world, "films", "books", counts, key=KEY)
    assert found.r_hat.max() < oracle.MAX_R_HAT
    assert found.sample.min() > oracle.MIN_SAMPLE
    assert all(np.isfinite(scores).all() for scores in found.scores.values())


def test_pools_that_disagree_are_found_out():
    means = np.zeros((8, 2, 12))
    means[:, 1] = np.arange(8)[:, None]
    means[:, 0] = 0.01 * np.arange(8)[:, None]
    r_hat, sample = oracle.diagnose(means, np.ones((8, 2, 12)))
    np.testing.assert_allclose(r_hat, np.sqrt(1 + np.array([6e-4, 6.0])))
    np.testing.assert_allclose(sample, 8 / np.array([6e-4, 6.0]))


def test_an_oracle_that_never_agrees_says_so(world, split, monkeypatch):
    monkeypatch.setattr(oracle, "MIN_SAMPLE", 1e9)
    monkeypatch.setattr(oracle, "DRAWS", oracle.DRAWS[:1])  # the program that the other tests have compiled
    with pytest.raises(RuntimeError, match=r"oracle: for \d+ of 5 users the pools of posterior draws disagree"):
        oracle.score_users(world, "films", "books", split.history.source[:5].toarray(), key=KEY)


def test_nobody_without_the_truth_passes_the_oracle(split, ceiling):
    methods = {
        "popularity": evaluation.fit_popularity,
        "ridge": baselines.fit_ridge_counts,
        "oracle": ceiling,
    }
    table = evaluation.compare(methods, split, keys=[KEY]).set_index("method")
    assert table.low["oracle"] > table.high["popularity"]
    assert table["mean"]["ridge"] < table.high["oracle"]

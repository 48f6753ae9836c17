"""Expectations over samples are exact here: a sample is placed by one number, of which few places differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import models, training
from rec_transfer.models import likelihoods, vae
from rec_transfer.models.sampled_softmax import (
    LINE,
    Sample,
    SampledBatch,
    clicked_items,
    item_sampler,
    sample_at,
    sample_items,
    sampled_log_likelihood,
    sampled_negative_elbo,
)

KEY = jax.random.key(0)
USERS, ITEMS, FEATURES = 6, 300, 4


@pytest.fixture(scope="module")
def layer():
    """Features, weights and bias of a last layer, counts drawn from its softmax, and the items' popularity."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, ITEMS + 1)[rng.permutation(ITEMS)]
    features, weights = rng.normal(size=(USERS, FEATURES)), 0.6 * rng.normal(size=(FEATURES, ITEMS))
    logits = features @ weights + np.log(popularity)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    counts = np.stack([rng.multinomial(8 + 3 * user, share[user]) for user in range(USERS)])
    arrays = (jnp.asarray(array, jnp.float32) for array in (features, weights, np.log(popularity)))
    return tuple(arrays), sparse.csr_array(counts), popularity


def exact(features, weights, bias, counts):
    return likelihoods.multinomial_log_likelihood(features @ weights + bias, jnp.asarray(counts.toarray(), jnp.float32))


def all_samples(sampler):
    """Every sample there is and its probability: it changes where a spacing of the comb passes an edge."""
    spacing = LINE // len(sampler.offsets)
    starts = np.unique(np.append(np.asarray(sampler.edges) % spacing, 0))
    share = np.diff(np.append(starts, spacing)) / spacing
    return jax.vmap(lambda start: sample_at(sampler, start))(jnp.asarray(starts, jnp.int32)), share


def expectation(value, sampler, *, corrected=True):
    """E value(sample) over all samples, and the worst and best of them, in double precision."""
    samples, share = all_samples(sampler)
    if not corrected:
        samples = Sample(samples.items, jnp.zeros_like(samples.log_inclusion))
    values = np.asarray(jax.jit(jax.vmap(value))(samples), float)
    return np.tensordot(share, values, 1)


@pytest.fixture(params=["uniform", "popularity"])
def weights_of(request, layer):
    return np.ones(ITEMS) if request.param == "uniform" else layer[2]


@pytest.mark.parametrize("samples", [1, 7, 100, ITEMS])
def test_items_are_in_a_sample_as_often_as_their_weights_say(weights_of, samples):
    sampler = item_sampler(weights_of, samples)
    drawn, share = all_samples(sampler)
    often = np.zeros(ITEMS)
    for items, log_inclusion, probability in zip(*map(np.asarray, drawn), share, strict=True):
        assert len(set(items.tolist())) == samples
        often[items] += probability
        np.testing.assert_allclose(np.exp(log_inclusion), np.diff(sampler.edges)[items] / (LINE // samples), rtol=1e-5)
    np.testing.assert_allclose(often, np.diff(sampler.edges) / (LINE // samples), rtol=1e-9)
    free = often < 1 - 1e-6
    if free.any():
        np.testing.assert_allclose(np.ptp(np.log(often[free] / weights_of[free])), 0, atol=1e-4)
    assert often.sum() == pytest.approx(samples)
    assert weights_of[~free].min(initial=np.inf) > weights_of[free].max(initial=0)


def test_a_sample_is_a_pure_function_of_its_key(layer):
    sampler = item_sampler(layer[2], 20)
    first, again, other = (sample_items(sampler, key=jax.random.key(seed)).items for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_with_all_items_sampled_it_is_the_softmax(layer, weights_of):
    arrays, counts, _ = layer
    sample = sample_items(item_sampler(weights_of, ITEMS), key=KEY)

    def estimate(arrays):
        return sampled_log_likelihood(*arrays, clicked_items(counts), sample)

    np.testing.assert_allclose(estimate(arrays), exact(*arrays, counts), rtol=1e-5)
    found = jax.grad(lambda arrays: estimate(arrays).sum())(arrays)
    expected = jax.grad(lambda arrays: exact(*arrays, counts).sum())(arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


def test_the_normaliser_is_unbiased_and_the_log_likelihood_too_high(layer, weights_of):
    arrays, counts, _ = layer
    clicked, clicks = clicked_items(counts), counts.sum(axis=1)
    explained = (np.asarray(arrays[0] @ arrays[1] + arrays[2]) * counts.toarray()).sum(axis=1)
    truth = np.asarray(exact(*arrays, counts))
    sampler = item_sampler(weights_of, 12)

    def normaliser(sample):
        return jnp.exp((explained - sampled_log_likelihood(*arrays, clicked, sample)) / clicks)

    np.testing.assert_allclose(expectation(normaliser, sampler), np.exp((explained - truth) / clicks), rtol=1e-4)
    assert (expectation(lambda s: sampled_log_likelihood(*arrays, clicked, s), sampler) > truth).all()


def gradient_bias(layer, weights, samples, *, corrected=True):
    """Length of the mean error of the gradient in the bias of the layer, against the gradient's own."""
    (features, table, bias), counts, _ = layer
    clicked = clicked_items(counts)

    def gradient(sample):
        return jax.grad(lambda bias: sampled_log_likelihood(features, table, bias, clicked, sample).sum())(bias)

    truth = np.asarray(jax.grad(lambda bias: exact(features, table, bias, counts).sum())(bias), float)
    return np.linalg.norm(expectation(gradient, item_sampler(weights, samples), corrected=corrected) - truth)


def test_the_bias_of_the_gradient_falls_with_the_samples_and_without_the_correction_it_stays(layer, weights_of):
    few, some, many = (gradient_bias(layer, weights_of, samples) for samples in (5, 20, 80))
    assert few > 1.5 * some  # with so few samples Z is now and then far off: not yet as 1 / samples
    assert some > 2.5 * many
    plain = [gradient_bias(layer, weights_of, samples, corrected=False) for samples in (5, 80)]
    assert plain[1] > 0.3 * plain[0]
    assert plain[1] > 8 * many


def test_popular_items_sampled_more_often_leave_less_bias(layer):
    assert gradient_bias(layer, layer[2], 20) < 0.8 * gradient_bias(layer, np.ones(ITEMS), 20)


def test_clicked_items_are_listed_in_order_and_padded():
    counts = sparse.csr_array(np.array([[0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0]]))
    clicked = clicked_items(counts)
    np.testing.assert_array_equal(clicked.items, [[1, 3], [4, 4], [0, 4]])
    np.testing.assert_array_equal(clicked.counts, [[2, 1], [0, 0], [3, 0]])


def test_users_without_clicks_count_for_nothing_and_have_finite_gradients(layer):
    (features, table, bias), _, _ = layer
    clicked = clicked_items(sparse.csr_array((USERS, ITEMS)))
    sample = sample_items(item_sampler(np.ones(ITEMS), 5), key=KEY)

    def total(table):
        return sampled_log_likelihood(features, table, bias, clicked, sample).sum()

    value, gradient = jax.value_and_grad(total)(table)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_a_vae_trained_on_samples_comes_close_to_one_trained_on_the_softmax():
    rng = np.random.default_rng(1)
    share = np.exp(1.5 * rng.normal(size=(2, 80)))
    rates = 20 * (share / share.sum(axis=1, keepdims=True))[rng.integers(0, 2, 150)]
    counts = sparse.csr_array(rng.poisson(rates).astype(np.float32))
    config = vae.VAEConfig(latent=2, hidden=16, dropout=0.0, anneal_epochs=2, epochs=40, learning_rate=2e-2)
    objective, dense = vae.Objective(1.0, 2.0), models.dense(counts)
    data = SampledBatch(dense, clicked_items(counts))

    def train(loss, data, context):
        return training.fit(
            vae.VAE(80, config, key=KEY), loss, data, key=KEY, context=context,
            epochs=40, batch_size=30, learning_rate=2e-2, validation=data,
        ).validation_loss  # fmt: skip

    full = train(vae.negative_elbo, dense, objective)
    sampled = train(sampled_negative_elbo, data, (objective, item_sampler(counts.sum(axis=0) + 1.0, 25)))
    start, end = float(full[0]), float(full[-1])
    assert start > 1.1 * end
    assert abs(float(sampled[-1]) - end) < 0.1 * (start - end)


@pytest.mark.parametrize(
    ("weights", "samples", "message"),
    [
        (np.ones(5), 0, "samples: got 0, expected 1 to 5, the number of items"),
        (np.ones(5), 6, "samples: got 6, expected 1 to 5, the number of items"),
        (np.array([1.0, 0.0]), 1, r"weights: got 0\.0 to 1\.0, expected positive numbers"),
        (np.array([1.0, np.nan]), 1, "weights: got nan to nan, expected positive numbers"),
        (np.array([1.0, 1e-12]), 1, r"weights: got one of 1\.0e-12 of their sum, expected at least 4\.7e-10"),
    ],
)
def test_weights_and_samples_that_make_no_sense_are_refused(weights, samples, message):
    with pytest.raises(ValueError, match=message):
        item_sampler(weights, samples)

"""Layers on compressed rows give what the dense formulas give, forward and backward, padding and empty users apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import models, training
from rec_transfer.models import VAE, VAEConfig, dense_layer, likelihoods, softmax_layer, sparse_product

USERS, ITEMS, HIDDEN = 7, 11, 5


@pytest.fixture(scope="module")
def counts():
    drawn = np.random.default_rng(0).poisson(0.6, (USERS, ITEMS)).astype(np.float32)
    drawn[2] = 0  # a user without clicks
    drawn[:, 4] = 0  # an item nobody clicked
    return sparse.csr_array(drawn)


@pytest.fixture(scope="module")
def batch(counts):
    return one(counts, np.arange(USERS), counts.nnz + 6)


def one(counts, rows, entries):
    return jax.tree.map(lambda array: jnp.asarray(array[0]), training.compress(counts, np.asarray(rows)[None], entries))


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_close(found, expected, tolerance=1e-5):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance * float(jnp.abs(right).max()))


def test_the_sparse_product_and_its_gradient_are_the_dense_ones(counts, batch):
    weights, away = normal(ITEMS, HIDDEN), normal(USERS, HIDDEN, seed=2)
    dense = jnp.asarray(counts.toarray())
    found = jax.jit(jax.value_and_grad(lambda w, b: jnp.sum(away * sparse_product(b.counts, b, w))))(weights, batch)
    expected = jax.value_and_grad(lambda w: jnp.sum(away * (dense @ w)))(weights)
    assert_close(found, expected)


def test_the_dense_layer_and_its_gradients_are_the_formula():
    arguments = normal(USERS, HIDDEN), normal(HIDDEN, 3, seed=2), normal(3, seed=3)
    away = normal(USERS, 3, seed=4)
    found = jax.value_and_grad(lambda *a: jnp.sum(away * dense_layer(*a)), argnums=(0, 1, 2))(*arguments)
    expected = jax.value_and_grad(lambda x, w, b: jnp.sum(away * (x @ w + b)), argnums=(0, 1, 2))(*arguments)
    assert_close(found, expected)


@pytest.mark.parametrize("size", [1.0, 30.0])  # logits far apart: shares of clicked items underflow
def test_the_softmax_layer_is_the_likelihood_of_the_dense_logits(counts, batch, size):
    arguments = normal(USERS, HIDDEN), size * normal(HIDDEN, ITEMS, seed=2), normal(ITEMS, seed=3)
    away = 1.0 + normal(USERS, seed=4) ** 2
    dense = jnp.asarray(counts.toarray())

    def expected(h, w, b):
        return jnp.sum(away * likelihoods.multinomial_log_likelihood(h @ w + b, dense))

    def found(h, w, b, batch):
        return jnp.sum(away * softmax_layer(h, w, b, batch))

    assert_close(
        jax.jit(jax.value_and_grad(found, argnums=(0, 1, 2)))(*arguments, batch),
        jax.value_and_grad(expected, argnums=(0, 1, 2))(*arguments),
    )


def test_padding_changes_nothing(counts, batch):
    arguments = normal(USERS, HIDDEN), normal(HIDDEN, ITEMS, seed=2), normal(ITEMS, seed=3)
    grown = one(counts, np.arange(USERS), counts.nnz + 50)
    run = jax.grad(lambda *a: softmax_layer(*a).sum(), argnums=(0, 1, 2))
    for left, right in zip(run(*arguments, batch), run(*arguments, grown), strict=True):
        np.testing.assert_array_equal(left, right)


def test_bfloat16_rounds_factors_and_keeps_sums_in_float32():
    inputs, weights, bias = normal(4, 4096), normal(4096, 3, seed=2), normal(3, seed=3)
    found = dense_layer(inputs, weights, bias, "bfloat16")
    factors = (np.asarray(array.astype(jnp.bfloat16), float) for array in (inputs, weights))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.matmul(*factors) + np.asarray(bias, float), rtol=1e-4, atol=1e-3)
    assert np.abs(found - (inputs @ weights + bias)).max() > 1e-3  # and it did round


def test_in_bfloat16_the_softmax_layer_is_close_to_float32(counts, batch):
    arguments = normal(USERS, HIDDEN), normal(HIDDEN, ITEMS, seed=2), normal(ITEMS, seed=3)
    run = jax.value_and_grad(lambda h, w, b, p: softmax_layer(h, w, b, batch, p).sum(), argnums=(0, 1, 2))
    assert_close(run(*arguments, "bfloat16"), run(*arguments, "float32"), tolerance=3e-2)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(run(*arguments, "bfloat16")))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_scores_are_the_logits_of_the_dense_network_at_the_mean(counts, batch, precision, tolerance):
    model = VAE(ITEMS, VAEConfig(latent=3, hidden=HIDDEN), key=jax.random.key(0))
    model.decoder.logits.bias[...] = normal(ITEMS)
    expected = model.decoder(model.encoder(jnp.asarray(models.dense(counts)))[0])
    assert_close(models.scores(model, batch, precision=precision), expected, tolerance)

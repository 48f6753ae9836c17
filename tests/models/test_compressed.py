"""Layers on compressed rows give what the dense formulas give, forward and backward, padding and empty users apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.models import compressed, likelihoods
from rec_transfer.models.compressed import dense_layer, lay_out, softmax_layer, sparse_product

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
    return jax.tree.map(lambda array: jnp.asarray(array[0]), lay_out(counts, np.asarray(rows)[None], entries))


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_close(found, expected, tolerance=1e-5):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance * float(jnp.abs(right).max()))


@pytest.mark.parametrize("hiding", [False, True])
def test_a_batch_holds_its_users_counts_by_row_and_by_column(counts, hiding):
    rows = np.array([[3, 0, 3], [6, 2, 1]])
    visible = (np.arange(np.diff(counts.indptr)[rows].sum()) % 3 > 0) if hiding else None
    batches, before = lay_out(counts, rows, 40, visible), 0
    for step, chosen in enumerate(rows):
        values, users, items, seen, row_starts, by_column, column_starts = (array[step] for array in batches)
        expected = counts.toarray()[chosen]
        used = (expected > 0).sum()
        by_user = sparse.csr_array((values[:used], (users[:used], items[:used])), (3, ITEMS))
        np.testing.assert_array_equal(by_user.toarray(), expected)
        if hiding:
            hidden = ~visible[before : before + used]
            expected[tuple(part[hidden] for part in np.nonzero(expected))] = 0
            before += used
        seen, by_column = seen[: row_starts[-1]], by_column[: row_starts[-1]]
        by_row = sparse.csr_array((values[seen], items[seen], row_starts), (3, ITEMS))
        np.testing.assert_array_equal(by_row.toarray(), expected)
        columns = sparse.csc_array((values[by_column], users[by_column], column_starts), (3, ITEMS))
        np.testing.assert_array_equal(columns.toarray(), expected)
        assert not values[used:].any()
        assert (items[used:] == ITEMS).all()


def test_a_batch_without_room_for_its_entries_is_refused(counts):
    most = counts.nnz
    with pytest.raises(ValueError, match=f"entries: got room for {most - 1} in a batch, expected at least {most}"):
        lay_out(counts, np.arange(USERS)[None], most - 1)


def test_there_is_room_for_any_batch_of_random_users():
    # One user in fifty has fifty times the clicks of the others: the tail is what a mean alone would miss.
    lengths = np.where(np.arange(1000) % 50 == 0, 200, 4)
    counts = sparse.csr_array(np.arange(300)[None] < lengths[:, None], dtype=np.float32)
    room = compressed.entries_needed(counts, 100)
    rng = np.random.default_rng(0)
    most = max(lengths[rng.permutation(1000)[:100]].sum() for _ in range(2000))
    assert most <= room < 0.5 * np.sort(lengths)[-100:].sum() + most
    assert compressed.entries_needed(counts, 1000) == lengths.sum()


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

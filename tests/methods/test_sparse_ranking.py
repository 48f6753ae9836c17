"""Ranks counted in chunks: those of a sort of the dense scores, with ties, items seen and users without any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import models
from rec_transfer.evaluation import metrics
from rec_transfer.methods import sparse_ranking
from rec_transfer.methods.sparse_ranking import count, rank_held_out
from rec_transfer.models import compressed
from rec_transfer.models.vae import VAE, VAEConfig

USERS, ITEMS = 53, 37
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def model():
    start = VAE(ITEMS, VAEConfig(latent=3, hidden=5), key=KEY)
    start.decoder.logits.bias[...] = jax.random.normal(KEY, ITEMS)  # no ties for a user without a history
    return start


@pytest.fixture(scope="module")
def seen_and_held_out():
    rng = np.random.default_rng(0)
    seen = rng.poisson(0.3, (USERS, ITEMS)) * rng.integers(1, 3, (USERS, ITEMS))
    held_out = (rng.random((USERS, ITEMS)) < rng.random((USERS, 1)) ** 3) & (seen == 0)
    held_out[::7], seen[3] = False, 0
    return sparse.csr_array(seen.astype(np.float32)), sparse.csr_array(held_out.astype(np.float32))


def dense_scores(model, seen):
    return np.asarray(model.decoder(model.encoder(jnp.asarray(models.dense(seen)))[0]))


@pytest.mark.parametrize("cells", [1_000_000, 4 * ITEMS, 1])  # one chunk, some that do not come out even, one user each
def test_ranks_are_those_of_the_dense_scores(model, seen_and_held_out, cells, monkeypatch):
    monkeypatch.setattr(sparse_ranking, "CELLS_AT_ONCE", cells)
    seen, held_out = seen_and_held_out
    scores = np.where(seen.toarray() > 0, -np.inf, dense_scores(model, seen))
    expected = metrics.ranks_of(scores, key=KEY)[held_out.nonzero()]
    np.testing.assert_array_equal(rank_held_out(model, seen, held_out, key=KEY), expected)


def test_scores_are_those_of_the_dense_path(model, seen_and_held_out):
    seen, _ = seen_and_held_out
    layout = compressed.lay_out(seen, np.arange(USERS)[None], seen.nnz + 4)
    batch = jax.tree.map(lambda array: array[0], layout)
    np.testing.assert_allclose(sparse_ranking.scores(model, batch), dense_scores(model, seen), rtol=1e-4, atol=1e-5)


def test_equal_scores_are_ranked_at_random(model):
    constant = jax.tree.map(jnp.zeros_like, model)
    one = sparse.csr_array((np.ones(400), (np.arange(400), np.zeros(400, int))), shape=(400, ITEMS))
    two = sparse.csr_array((np.ones(400), (np.arange(400), np.ones(400, int))), shape=(400, ITEMS))
    ranks = rank_held_out(constant, one, two, key=KEY)
    assert (ranks.min(), ranks.max()) == (1, ITEMS - 1)  # the item seen takes no place
    assert ranks.mean() == pytest.approx(ITEMS / 2, abs=4 * ITEMS / np.sqrt(12 * 400))


def test_an_item_that_was_seen_ranks_last(model, seen_and_held_out):
    seen, _ = seen_and_held_out
    entry = sparse.csr_array((np.ones(1), ([5], [seen.indices[seen.indptr[5]]])), shape=seen.shape)
    unseen = ITEMS - (seen.indptr[6] - seen.indptr[5])
    assert rank_held_out(model, seen, entry, key=KEY).tolist() == [unseen + 1]


@pytest.mark.parametrize("items", [3, 256, 600])
def test_counts_by_hand(items):
    rows = np.round(np.random.default_rng(0).normal(size=(4, items)), 1).astype(np.float32)
    own = np.append(rows[:, :2], np.full((4, 1), -np.inf, np.float32), axis=1)
    higher, equal = count(jnp.asarray(rows), jnp.asarray(own))
    np.testing.assert_array_equal(higher, (rows[:, None] > own[:, :, None]).sum(axis=-1))
    np.testing.assert_array_equal(equal, (rows[:, None] == own[:, :, None]).sum(axis=-1))


def test_nothing_held_out_has_no_rank(model, seen_and_held_out):
    seen, _ = seen_and_held_out
    assert rank_held_out(model, seen, sparse.csr_array(seen.shape), key=KEY).shape == (0,)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_ranked_is_refused(model, seen_and_held_out):
    seen, held_out = seen_and_held_out
    with pytest.raises(ValueError, match=rf"got shapes \(53, 37\) and \(9, 37\), expected one of {ITEMS} items"):
        rank_held_out(model, seen, held_out[:9], key=KEY)
    broken = jax.tree.map(lambda array: array * jnp.nan, model)
    with pytest.raises(ValueError, match="model: got scores that are NaN"):
        rank_held_out(broken, seen, held_out, key=KEY)

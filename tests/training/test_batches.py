"""Batches of compressed rows hold the counts they are made of, everybody in every epoch, and draw by their key."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import training

USERS, ITEMS = 7, 11
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def counts():
    drawn = np.random.default_rng(0).poisson(0.6, (USERS, ITEMS)).astype(np.float32)
    drawn[2] = 0  # a user without clicks
    drawn[:, 4] = 0  # an item nobody clicked
    return sparse.csr_array(drawn)


@pytest.fixture(scope="module")
def many():
    """170 users, each known by what item 0 counts."""
    drawn = np.random.default_rng(1).poisson(0.6, (170, 40)).astype(np.float32)
    drawn[:, 0] = np.arange(1, 171)
    return sparse.csr_array(drawn)


@pytest.mark.parametrize("hiding", [False, True])
def test_a_batch_holds_its_users_counts_by_row_and_by_column(counts, hiding):
    rows = np.array([[3, 0, 3], [6, 2, 1]])
    visible = (np.arange(np.diff(counts.indptr)[rows].sum()) % 3 > 0) if hiding else None
    batches, before = training.compress(counts, rows, 40, visible), 0
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
        training.compress(counts, np.arange(USERS)[None], most - 1)


def test_there_is_room_for_any_batch_of_random_users():
    # One user in fifty has fifty times the clicks of the others: the tail is what a mean alone would miss.
    lengths = np.where(np.arange(1000) % 50 == 0, 200, 4)
    counts = sparse.csr_array(np.arange(300)[None] < lengths[:, None], dtype=np.float32)
    room = training.capacity(counts, 100)
    rng = np.random.default_rng(0)
    most = max(lengths[rng.permutation(1000)[:100]].sum() for _ in range(2000))
    assert most <= room < 0.5 * np.sort(lengths)[-100:].sum() + most
    assert training.capacity(counts, 1000) == lengths.sum()


# --- epochs


def users_of(chunk):
    """Who is in each batch of a chunk, in order: what item 0 counts."""
    layout = chunk.data[0]
    return [counts[items == 0].astype(int) - 1 for counts, items in zip(layout.counts, layout.items, strict=True)]


@pytest.mark.parametrize("chunk_entries", [300_000, 1500])
def test_every_user_is_in_every_epoch_and_in_another_order(many, chunk_entries):
    batches = training.compressed_rows(many, 40, chunk_entries=chunk_entries)
    assert (batches.users, batches.batch_size, batches.steps) == (170, 40, 5)
    orders = []
    for number in (0, 1):
        chunks = list(batches.chunks(KEY, number, 9))
        assert (len(chunks) > 2) == (chunk_entries == 1500)
        assert sum(chunk.count for chunk in chunks) == 5
        assert [chunk.first for chunk in chunks] == np.cumsum([0, *(chunk.count for chunk in chunks)])[:-1].tolist()
        orders.append(np.concatenate([users for chunk in chunks for users in users_of(chunk)[: chunk.count]]))
        assert len(orders[-1]) == 200
        assert set(orders[-1].tolist()) == set(range(170))
    assert (orders[0] != orders[1]).any()


def test_dropout_hides_entries_at_its_rate_and_others_in_every_epoch(many):
    batches = training.compressed_rows(many, 170, dropout=0.4)
    seen = np.zeros((30, many.nnz), bool)
    for number in range(30):
        (chunk,) = batches.chunks(KEY, number, 30)
        layout = chunk.data[0]
        seen[number, layout.seen[0][: layout.row_starts[0][-1]]] = True
    assert seen.mean() == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / seen.size))
    each = seen.mean(axis=0)  # of 30 epochs: by position, none is always or never seen
    assert 0 < each.min() < each.max() < 1


def noise_of(many, number, key=KEY, **settings):
    chunks = training.compressed_rows(many, 40, noise=3, **settings).chunks(key, number, 9)
    return np.concatenate([chunk.data[1][: chunk.count] for chunk in chunks])


def test_the_noise_is_uniform_another_in_every_epoch_and_key_and_the_same_in_any_chunks(many):
    noise = noise_of(many, 0)
    assert noise.shape == (5, 40, 3)
    assert ((noise >= 0) & (noise < 1)).all()
    assert noise.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * noise.size))
    np.testing.assert_array_equal(noise, noise_of(many, 0, chunk_entries=1500))
    for other in (noise_of(many, 1), noise_of(many, 0, jax.random.key(1))):
        assert len(np.intersect1d(noise, other)) < 3


def test_in_order_everybody_comes_once_and_whole(many):
    found = [(np.asarray(batch.counts), users) for batch, users in training.compressed_rows(many, 40).in_order()]
    assert [users for _, users in found] == [40, 40, 40, 40, 10]
    batch, _ = next(training.compressed_rows(many, 40).in_order())
    assert batch.row_starts[-1] == many.indptr[40]
    np.testing.assert_array_equal(batch.counts[: many.indptr[40]], many.data[: many.indptr[40]])


def test_nobody_makes_no_batches():
    with pytest.raises(ValueError, match=r"clicks: got shape \(0, 4\), expected at least 1 user"):
        training.compressed_rows(sparse.csr_array((0, 4)), 2, name="clicks")


# --- how far the loop runs ahead


COMPUTED = []


def slow(model, batch, context, *, key, epoch):
    def computed(_):
        time.sleep(0.02)
        COMPUTED.append(1)

    jax.debug.callback(computed, model)
    return model * jnp.ones(len(batch.row_starts) - 1)


def test_a_chunk_starts_when_the_one_before_has_ended_and_is_laid_out_meanwhile(many):
    batches, waited = training.compressed_rows(many, 40, chunk_entries=1), []  # of one step each

    def watched(*given):
        for number, chunk in enumerate(batches.chunks(*given)):
            waited.append(1 + number + 5 * len(ended) - len(COMPUTED))  # laid out and not computed
            yield chunk

    state, ended = training.initial_state(jnp.float32(1.0)), []
    for number in (0, 1):
        state, _ = training.epoch(
            state, slow, batches._replace(chunks=watched), key=KEY, number=number, epochs=2, learning_rate=0.1
        )
        ended.append(number)
    assert len(waited) == 10
    assert max(waited) <= 2

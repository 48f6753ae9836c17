"""Ranks by counting: those of a sort, with ties, items that take no place and users without any; negatives."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from rec_transfer.evaluation import ranking
from rec_transfer.evaluation.ranking import draw_negatives, most_negatives, ranks, ranks_among, stacked
from rec_transfer.types import History, Split

KEY = jax.random.key(0)
SHAPE = (4, 9)  # one shape for all cases, so that few programs are compiled
cases = st.tuples(
    hnp.arrays(float, SHAPE, elements=st.floats(-3, 3, width=16)),
    hnp.arrays(bool, SHAPE),
    hnp.arrays(bool, SHAPE),
    hnp.arrays(bool, SHAPE[1]),
)


def by_sort(scores, hidden, known, candidates, alone, key):
    """The definition, user by user: who stands in the list, in the order of scores and of one chance per item."""
    found = []
    for user, line in enumerate(scores):
        chance = ranking._chance(key, user, len(line))
        for item in np.flatnonzero(hidden[user]):
            there = candidates & ~known[user]
            there = there & ~hidden[user] if alone else there | hidden[user]
            there[item] = True
            order = sorted(np.flatnonzero(there), key=lambda i, at=(line, chance): (-at[0][i], -at[1][i]))
            found.append(1 + order.index(item))
    return found


@pytest.mark.parametrize("alone", [False, True])
@given(cases)
@settings(max_examples=60, deadline=None)
def test_ranks_are_those_of_a_sort_by_score_and_chance(alone, case):
    scores, hidden, known, candidates = case
    known = known & ~hidden
    found = ranks(
        scores, hidden, known=sparse.csr_array(known.astype(int)), candidates=candidates, alone=alone, key=KEY
    )
    assert found.rank.tolist() == by_sort(scores, hidden, known, candidates, alone, KEY)
    assert found.user.tolist() == np.nonzero(hidden)[0].tolist()
    assert found.users == len(scores)


@given(cases)
@settings(max_examples=30, deadline=None)
def test_all_items_hidden_are_a_permutation_in_which_no_lower_score_stands_above_a_higher(case):
    scores = case[0]
    found = ranks(scores, np.ones(SHAPE, bool), key=KEY).rank.reshape(SHAPE)
    for user in range(len(scores)):
        assert sorted(found[user]) == list(range(1, SHAPE[1] + 1))
        assert (np.diff(scores[user][np.argsort(found[user])]) <= 0).all()


def test_ranks_by_hand():
    scores = np.array([[0.1, 3.0, -2.0], [5.0, -np.inf, np.inf]])
    assert ranks(scores, np.ones((2, 3)), key=KEY).rank.tolist() == [2, 1, 3, 2, 3, 1]
    known, candidates = sparse.csr_array(np.array([[0, 0, 1, 0, 0, 0]])), np.array([1, 1, 1, 1, 0, 1], bool)
    line, hidden = np.array([[1.0, 2.0, 9.0, 8.0, 7.0, 5.0]]), np.array([[1, 0, 0, 0, 0, 1]])
    # Item 2 is known and 4 no candidate: item 5 stands behind item 3 alone; item 0 behind 3, 1 and, in one list, 5.
    assert ranks(line, hidden, known=known, candidates=candidates, alone=True, key=KEY).rank.tolist() == [3, 2]
    assert ranks(line, hidden, known=known, candidates=candidates, key=KEY).rank.tolist() == [4, 2]


def test_scores_are_compared_in_the_precision_they_come_in():
    order = np.random.default_rng(0).permuted(np.tile(np.arange(9), (4, 1)), axis=1)
    close = 1.0 + 1e-12 * order
    np.testing.assert_array_equal(ranks(close, np.ones(SHAPE), key=KEY).rank, (9 - order).ravel())
    rounded = close.astype(np.float32)  # all equal there
    assert not np.array_equal(ranks(rounded, np.ones(SHAPE), key=KEY).rank, (9 - order).ravel())


@pytest.mark.parametrize("smallest", [np.float32(1e-40), np.float64(1e-310)])  # below the normal range
def test_the_smallest_scores_are_compared_too_and_zero_has_no_sign(smallest):
    scores = np.array([[1, 2, 3, 0, -0.0, -1]], smallest.dtype) * smallest
    found = ranks(scores, np.array([[1, 1, 1, 0, 0, 1]]), key=KEY)
    assert found.rank.tolist() == [3, 2, 1, 6]
    signs = {tuple(ranks(scores, np.array([[0, 0, 0, 1, 1, 0]]), key=jax.random.key(k)).rank) for k in range(20)}
    assert signs == {(4, 5), (5, 4)}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_both_paths_rank_alike_whatever_the_scores_are(kind):
    scores = np.random.default_rng(0).integers(0, 5, SHAPE).astype(kind)
    hidden = sparse.csr_array((np.arange(36).reshape(SHAPE) % 4 == 0).astype(int))
    user, item = hidden.nonzero()
    others = np.array([np.delete(np.arange(9), one) for one in item])
    one_each = []
    for place in zip(user, item, strict=True):
        alone = sparse.csr_array(([1], ([place[0]], [place[1]])), shape=SHAPE)
        one_each += ranks(scores, alone, key=KEY).rank.tolist()
    assert ranks_among(scores, hidden, others, key=KEY).rank.tolist() == one_each


@pytest.mark.parametrize("cells", [1_000_000, 4 * 37, 1])  # one chunk, some that do not come out even, one user each
def test_chunks_change_nothing(cells, monkeypatch):
    rng = np.random.default_rng(0)
    scores, known = rng.integers(0, 20, (53, 37)).astype(float), rng.random((53, 37)) < 0.2
    hidden = (rng.random((53, 37)) < rng.random((53, 1)) ** 3) & ~known  # nobody's number of entries is another's
    hidden[::7] = False
    known = sparse.csr_array(known.astype(int))
    expected = ranks(scores, hidden, known=known, key=KEY)
    monkeypatch.setattr(ranking, "CELLS_AT_ONCE", cells)
    found = ranks(scores, hidden, known=known, key=KEY)
    np.testing.assert_array_equal(found.rank, expected.rank)
    halves = (slice(0, 20), slice(20, 53))
    parts = [ranks(scores[at], hidden[at], known=known[at], key=KEY, first=at.start) for at in halves]
    for whole, part in zip(expected, stacked(parts), strict=True):
        np.testing.assert_array_equal(whole, part)


def test_ties_are_broken_evenly_and_differently_for_each_user():
    found = ranks(np.zeros((6000, 4)), np.ones((6000, 4)), key=KEY).rank.reshape(6000, 4)
    for item in range(4):
        shares = np.bincount(found[:, item], minlength=5)[1:] / 6000
        assert np.abs(shares - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 6000)


def test_ties_stay_among_equals():
    scores = np.tile([1.0, 2.0, 2.0, 0.0], (200, 1))
    found = ranks(scores, np.ones(scores.shape), key=KEY).rank.reshape(-1, 4)
    assert set(found[:, 0]) == {3}
    assert set(found[:, 3]) == {4}
    assert set(found[:, 1]) == set(found[:, 2]) == {1, 2}


def test_ties_are_pure_in_the_key():
    first, again, other = (ranks(np.zeros(SHAPE), np.ones(SHAPE), key=jax.random.key(seed)).rank for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_key_moves_nothing_where_no_scores_are_equal():
    scores = np.random.default_rng(0).normal(size=SHAPE)
    one, other = (ranks(scores, np.ones(SHAPE), key=jax.random.key(seed)).rank for seed in (1, 2))
    np.testing.assert_array_equal(one, other)


def test_a_second_list_of_the_same_shape_compiles_nothing():
    scores = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    ranks(scores, np.ones(SHAPE), key=KEY)
    programs = ranking._higher_and_equal._cache_size()
    ranks(-scores, np.ones(SHAPE), key=KEY)
    assert ranking._higher_and_equal._cache_size() == programs


def test_nothing_hidden_has_no_rank():
    found = ranks(np.zeros(SHAPE), np.zeros(SHAPE), key=KEY)
    assert (found.rank.shape, found.users) == ((0,), 4)


def test_what_cannot_be_ranked_is_refused(unchecked):
    with pytest.raises(ValueError, match="scores: got 1 NaN, expected numbers"):
        ranks(np.array([[1.0, np.nan]]), np.ones((1, 2)), key=KEY)
    with pytest.raises(ValueError, match=r"scores: got shape \(1, 2\), expected that of hidden, \(1, 3\)"):
        ranks(np.ones((1, 2)), np.ones((1, 3)), key=KEY)
    with pytest.raises(ValueError, match=r"known: got shape \(1, 3\), expected that of hidden, \(1, 2\)"):
        ranks(np.ones((1, 2)), np.ones((1, 2)), known=sparse.csr_array((1, 3)), key=KEY)
    with pytest.raises(ValueError, match="candidates: got 3 items, expected 2"):
        ranks(np.ones((1, 2)), np.ones((1, 2)), candidates=np.ones(3, bool), key=KEY)
    with pytest.raises(ValueError, match="scores: got NaN, expected numbers"):
        ranks_among(np.array([[1.0, np.nan]]), np.array([[1, 0]]), np.array([[1]]), key=KEY)
    with pytest.raises(ValueError, match=r"got shape \(1, 2\) and 2 rows, expected \(1, 2\) and one row for each of 1"):
        ranks_among(np.ones((1, 2)), np.array([[1, 0]]), np.array([[1], [1]]), key=KEY)


# ---- among sampled negatives


def many(users=60, items=30, each=2, seed=0):
    """Users who each have a few hidden and four known items."""
    rng = np.random.default_rng(seed)
    has = np.argsort(rng.random((users, items)), axis=1)
    hidden, known = np.zeros((users, items), int), np.zeros((users, items), int)
    np.put_along_axis(hidden, has[:, :each], 1, axis=1)
    np.put_along_axis(known, has[:, each : each + 4], 1, axis=1)
    history = History(sparse.csr_array((users, 1)))
    names = np.array([f"u{user}" for user in range(users)])
    return Split(None, names, history, sparse.csr_array(hidden), sparse.csr_array(known), np.ones(items, bool))


def test_among_all_the_items_a_user_lacks_the_rank_is_that_of_the_full_list():
    split = many()
    scores = np.random.default_rng(1).integers(0, 5, (60, 30)).astype(float)
    drawn = draw_negatives(split, 24, key=KEY)
    among = ranks_among(scores, split.hidden, drawn, key=KEY)
    full = ranks(scores, split.hidden, known=split.known, alone=True, key=KEY)
    for one, other in zip(among, full, strict=True):
        np.testing.assert_array_equal(one, other)


def test_negatives_are_candidates_that_the_user_lacks_each_once_and_evenly():
    split = many(users=400)._replace(candidates=np.arange(30) != 7)
    drawn = draw_negatives(split, 9, key=KEY)
    user = split.hidden.nonzero()[0]
    owned = (split.hidden + split.known).toarray() > 0
    assert not owned[user[:, None], drawn].any()
    assert all(len(set(row)) == 9 for row in drawn)
    number = np.bincount(drawn.ravel(), minlength=30)
    assert number[7] == 0
    expected = np.where(np.arange(30) == 7, 0, number.sum() / 29)
    assert (np.abs(number - expected) <= 5 * np.sqrt(expected)).all()


def test_negatives_are_the_same_for_a_key_and_no_more_than_there_are():
    split = many()
    first, again, other = (draw_negatives(split, 9, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert most_negatives(split) == 24
    assert draw_negatives(split, 24, key=KEY).shape == (120, 24)
    with pytest.raises(ValueError, match="negatives: got 25, expected at most 24, the items user 0 lacks"):
        draw_negatives(split, 25, key=KEY)

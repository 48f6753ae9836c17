"""Metrics by hand, against scikit-learn, and at the places where ranking code goes wrong: ties, nobody relevant."""

from itertools import permutations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.metrics import ndcg_score

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.metrics import (
    hit_of_rank,
    hit_rate_at_k,
    ndcg_at_k,
    ndcg_of_rank,
    rank_of,
    ranks_of,
    recall_at_k,
    reciprocal_of_rank,
    reciprocal_rank,
)

KEY = jax.random.key(0)
AT_THREE = {
    "ndcg": lambda ranks, relevant: ndcg_at_k(ranks, relevant, 3),
    "recall": lambda ranks, relevant: recall_at_k(ranks, relevant, 3),
    "hit rate": lambda ranks, relevant: hit_rate_at_k(ranks, relevant, 3),
    "reciprocal rank": reciprocal_rank,
}

# One user, six items: ranks 1..6 in the order of the columns; relevant are those at ranks 2, 3 and 6.
RANKS = np.arange(1, 7)[None, :]
RELEVANT = np.array([[0, 1, 1, 0, 0, 1]])


def test_ranks_by_hand():
    scores = np.array([[0.1, 3.0, -2.0], [5.0, -np.inf, np.inf]])
    assert ranks_of(scores, key=KEY).tolist() == [[2, 1, 3], [2, 3, 1]]


def test_ndcg_by_hand():
    discount = 1 / np.log2(np.arange(2, 8))  # of ranks 1, 2, ..., 6
    expected = (discount[1] + discount[2]) / discount[:3].sum()
    assert ndcg_at_k(RANKS, RELEVANT, 3)[0] == pytest.approx(expected)
    # Two places hold two of the three relevant items at best: the ideal has two terms.
    assert ndcg_at_k(RANKS, RELEVANT, 2)[0] == pytest.approx(discount[1] / discount[:2].sum())
    assert ndcg_at_k(RANKS, RELEVANT, 1)[0] == 0.0
    assert ndcg_at_k(RANKS, RELEVANT, 50)[0] == pytest.approx(discount[[1, 2, 5]].sum() / discount[:3].sum())


def test_recall_by_hand():
    assert recall_at_k(RANKS, RELEVANT, 3)[0] == pytest.approx(2 / 3)
    assert recall_at_k(RANKS, RELEVANT, 2)[0] == pytest.approx(1 / 2)  # of the two that could be found
    assert recall_at_k(RANKS, RELEVANT, 6)[0] == 1.0


def test_hit_rate_by_hand():
    assert [hit_rate_at_k(RANKS, RELEVANT, k)[0] for k in (1, 2, 6)] == [0.0, 1.0, 1.0]


def test_reciprocal_rank_by_hand():
    assert reciprocal_rank(RANKS, RELEVANT)[0] == 0.5
    assert reciprocal_rank(RANKS, RELEVANT[:, ::-1])[0] == 1.0
    assert reciprocal_rank(RANKS, np.array([[0, 0, 0, 0, 0, 1]]))[0] == pytest.approx(1 / 6)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_ndcg_is_scikit_learns(k):
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(30, 20)), (rng.random((30, 20)) < 0.2).astype(int)
    relevant[:, 0] |= relevant.sum(axis=1) == 0  # scikit-learn gives 0, not NaN, where nothing is relevant
    expected = [ndcg_score(relevant[[user]], scores[[user]], k=k) for user in range(30)]
    np.testing.assert_allclose(ndcg_at_k(ranks_of(scores, key=KEY), relevant, k), expected, rtol=1e-9)


@pytest.mark.parametrize("metric", AT_THREE.values(), ids=AT_THREE)
def test_a_user_with_nothing_relevant_has_no_value_and_spoils_nobody_elses(metric):
    both = metric(np.vstack([RANKS, RANKS]), np.vstack([np.zeros((1, 6), int), RELEVANT]))
    assert np.isnan(both[0])
    assert both[1] == metric(RANKS, RELEVANT)[0]


@pytest.mark.parametrize("metric", AT_THREE.values(), ids=AT_THREE)
def test_any_count_above_zero_is_relevant_and_no_more_than_that(metric):
    plain = metric(RANKS, RELEVANT)[0]
    assert metric(RANKS, RELEVANT * 7)[0] == plain
    assert metric(RANKS, RELEVANT > 0)[0] == plain
    assert metric(RANKS, RELEVANT * 0.5)[0] == plain


def expected_at_random(metric, relevant):
    """The mean of a metric over every order of one user's items."""
    orders = np.array(list(permutations(range(1, relevant.shape[1] + 1))))
    return metric(orders, np.repeat(relevant, len(orders), axis=0)).mean()


@pytest.mark.parametrize("metric", AT_THREE.values(), ids=AT_THREE)
def test_a_constant_scorer_earns_the_random_score(metric):
    users, relevant = 4000, np.array([[1, 1, 0, 0, 0, 0]])  # first in the catalogue: a lazy tie rule would shine
    truth = expected_at_random(metric, relevant)
    for scores in (np.zeros((users, 6)), np.random.default_rng(0).random((users, 6))):
        values = metric(ranks_of(scores, key=KEY), np.repeat(relevant, users, axis=0))
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(users)


def test_ties_are_broken_evenly_and_differently_for_each_user():
    ranks = ranks_of(np.zeros((6000, 4)), key=KEY)
    for item in range(4):
        shares = np.bincount(ranks[:, item], minlength=5)[1:] / 6000
        assert np.abs(shares - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 6000)


def test_ties_stay_among_equals():
    ranks = ranks_of(np.tile([1.0, 2.0, 2.0, 0.0], (200, 1)), key=KEY)
    assert set(ranks[:, 0]) == {3}
    assert set(ranks[:, 3]) == {4}
    assert set(ranks[:, 1]) == set(ranks[:, 2]) == {1, 2}


def test_ties_are_pure_in_the_key():
    first, again, other = (ranks_of(np.zeros((5, 9)), key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_key_moves_nothing_where_no_scores_are_equal():
    scores = np.random.default_rng(0).normal(size=(5, 9))
    np.testing.assert_array_equal(ranks_of(scores, key=jax.random.key(1)), ranks_of(scores, key=jax.random.key(2)))


rankings = st.tuples(st.integers(1, 4), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(float, shape, elements=st.floats(-3, 3, width=16)), hnp.arrays(bool, shape), st.integers(1, 12)
    )
)


@given(rankings)
@settings(max_examples=60, deadline=None)
def test_every_metric_lies_between_zero_and_one_or_is_nan(case):
    scores, relevant, k = case
    ranks = ranks_of(scores, key=KEY)
    for values in (
        ndcg_at_k(ranks, relevant, k),
        recall_at_k(ranks, relevant, k),
        hit_rate_at_k(ranks, relevant, k),
        reciprocal_rank(ranks, relevant),
    ):
        assert values.shape == (len(scores),)
        np.testing.assert_array_equal(np.isnan(values), ~relevant.any(axis=1))
        assert (np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-12))).all()


@given(rankings)
@settings(max_examples=60, deadline=None)
def test_ranks_are_a_permutation_in_which_no_lower_score_stands_above_a_higher(case):
    scores, _, _ = case
    ranks = ranks_of(scores, key=KEY)
    for user in range(len(scores)):
        assert sorted(ranks[user]) == list(range(1, scores.shape[1] + 1))
        assert (np.diff(scores[user][np.argsort(ranks[user])]) <= 0).all()


@given(rankings)
@settings(max_examples=60, deadline=None)
def test_putting_the_relevant_items_first_is_perfect_and_last_is_worst(case):
    _, relevant, k = case
    best, worst = ranks_of(relevant * 1.0, key=KEY), ranks_of(relevant * -1.0, key=KEY)
    someone = relevant.any(axis=1)
    for metric in (ndcg_at_k, recall_at_k, hit_rate_at_k):
        np.testing.assert_allclose(metric(best, relevant, k)[someone], 1.0)
        # At least as many irrelevant items as places: none of the places is a hit.
        hopeless = someone & ((~relevant).sum(axis=1) >= k)
        np.testing.assert_array_equal(metric(worst, relevant, k)[hopeless], 0.0)
    np.testing.assert_array_equal(reciprocal_rank(best, relevant)[someone], 1.0)


def test_scores_without_an_order_are_refused():
    with pytest.raises(ValueError, match="scores: got 2 NaN, expected numbers"):
        ranks_of(np.array([[0.0, np.nan], [np.nan, 1.0]]), key=KEY)


@pytest.mark.parametrize("metric", [ndcg_at_k, recall_at_k, hit_rate_at_k])
def test_a_list_without_places_is_refused(metric):
    with pytest.raises(ValueError, match="k: got 0, expected at least 1"):
        metric(RANKS, RELEVANT, 0)


@pytest.mark.parametrize("metric", AT_THREE.values(), ids=AT_THREE)
def test_relevance_of_another_shape_is_refused(unchecked, metric):
    with pytest.raises(ValueError, match=r"relevant: got shape \(1, 5\), expected that of ranks, \(1, 6\)"):
        metric(RANKS, RELEVANT[:, :5])


def test_every_public_metric_is_tested_here():
    public = {name for name in vars(metrics) if name.endswith(("_at_k", "_rank"))}
    many = {"ndcg_at_k", "recall_at_k", "hit_rate_at_k", "reciprocal_rank"}
    assert public == many | {"reciprocal_of_rank", "ndcg_of_rank", "hit_of_rank"}


# ---- one positive at a time


def every_entry(scores):
    user, item = (where.ravel() for where in np.indices(np.shape(scores)))
    return user, item


@given(rankings)
@settings(max_examples=60, deadline=None)
def test_counting_gives_the_ranks_of_sorting_where_no_scores_are_equal(case):
    scores, _, _ = case
    scores = scores + 10 * np.arange(scores.size).reshape(scores.shape)[:, ::-1] % 77
    user, item = every_entry(scores)
    alone = np.array([(row == row[i]).sum() == 1 for row, i in zip(scores[user], item, strict=True)])
    counted = rank_of(scores, user, item, key=KEY)
    np.testing.assert_array_equal(counted[alone], ranks_of(scores, key=KEY)[user, item][alone])


def test_counting_breaks_ties_as_sorting_does():
    rows = np.tile([2.0, 1.0, 1.0, 1.0, 0.0], (8000, 1))
    user = np.arange(8000)
    counted = rank_of(rows, user, np.full(8000, 1), key=KEY)
    by_sort = ranks_of(rows, key=KEY)[:, 1]
    for rank in range(1, 6):
        expected = 1 / 3 if 2 <= rank <= 4 else 0
        spread = 4 * np.sqrt(2 / 9 / 8000) * (expected > 0)
        assert abs(np.mean(counted == rank) - expected) <= spread
        assert abs(np.mean(by_sort == rank) - expected) <= spread


def test_ties_of_rows_are_pure_in_the_key():
    scores, where = np.zeros((50, 9)), (np.arange(50), np.zeros(50, int))
    first, again, other = (rank_of(scores, *where, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@given(rankings)
@settings(max_examples=60, deadline=None)
def test_what_is_left_out_takes_no_place_but_for_the_item_itself(case):
    scores, left_out, _ = case
    user, item = every_entry(scores)
    ranks = rank_of(scores, user, item, key=KEY, left_out=sparse.csr_array(left_out.astype(int)))
    for row, (u, i) in enumerate(zip(user, item, strict=True)):
        others = np.delete(scores[u], i)[~np.delete(left_out[u], i)]
        above = (others > scores[u, i]).sum()
        assert 1 + above <= ranks[row] <= 1 + above + (others == scores[u, i]).sum()


def test_an_item_that_is_left_out_itself_still_ties_with_the_others():
    user = np.arange(4000)
    itself = sparse.csr_array(np.tile([1, 0], (4000, 1)))
    ranks = rank_of(np.zeros((4000, 2)), user, np.zeros(4000, int), key=KEY, left_out=itself)
    assert abs(ranks.mean() - 1.5) < 4 * 0.5 / np.sqrt(4000)


def test_what_cannot_be_ranked_is_refused():
    where = np.zeros(1, int), np.zeros(1, int)
    with pytest.raises(ValueError, match="scores: got 1 NaN, expected numbers"):
        rank_of(np.array([[1.0, np.nan]]), *where, key=KEY)
    with pytest.raises(ValueError, match=r"left_out: got shape \(1, 3\), expected that of scores, \(1, 2\)"):
        rank_of(np.ones((1, 2)), *where, key=KEY, left_out=sparse.csr_array((1, 3)))


def test_values_of_a_single_positive_are_those_of_the_metrics_for_many():
    ranks = np.arange(1, 31)[None, :]
    for place in range(30):
        relevant = ranks == place + 1
        rank = np.array([place + 1])
        assert reciprocal_of_rank(rank)[0] == pytest.approx(reciprocal_rank(ranks, relevant)[0])
        assert ndcg_of_rank(rank, 10)[0] == pytest.approx(ndcg_at_k(ranks, relevant, 10)[0])
        assert hit_of_rank(rank, 10)[0] == hit_rate_at_k(ranks, relevant, 10)[0]

"""Metrics by hand, against scikit-learn, and at the places where they go wrong: ties, nobody relevant, few places."""

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
from rec_transfer.evaluation.metrics import hit_rate_at_k, ndcg, ndcg_at_k, recall_at_k, reciprocal_rank
from rec_transfer.evaluation.ranking import Ranked, ranks

KEY = jax.random.key(0)
AT_THREE = {
    "ndcg": lambda ranked: ndcg_at_k(ranked, 3),
    "recall": lambda ranked: recall_at_k(ranked, 3),
    "hit rate": lambda ranked: hit_rate_at_k(ranked, 3),
    "reciprocal rank": reciprocal_rank,
}


def of(*lists):
    """Ranks of each user's relevant items."""
    user = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    return Ranked(np.array([rank for one in lists for rank in one], int), user, len(lists))


RANKED = of([2, 3, 6])


def test_ndcg_by_hand():
    discount = 1 / np.log2(np.arange(2, 8))  # of ranks 1, 2, ..., 6
    expected = (discount[1] + discount[2]) / discount[:3].sum()
    assert ndcg_at_k(RANKED, 3)[0] == pytest.approx(expected)
    # Two places hold two of the three relevant items at best: the ideal has two terms.
    assert ndcg_at_k(RANKED, 2)[0] == pytest.approx(discount[1] / discount[:2].sum())
    assert ndcg_at_k(RANKED, 1)[0] == 0.0
    assert ndcg_at_k(RANKED, 50)[0] == pytest.approx(discount[[1, 2, 5]].sum() / discount[:3].sum())


def test_recall_by_hand():
    assert recall_at_k(RANKED, 3)[0] == pytest.approx(2 / 3)
    assert recall_at_k(RANKED, 2)[0] == pytest.approx(1 / 2)  # of the two that could be found
    assert recall_at_k(RANKED, 6)[0] == 1.0


def test_hit_rate_by_hand():
    assert [hit_rate_at_k(RANKED, k)[0] for k in (1, 2, 6)] == [0.0, 1.0, 1.0]


def test_reciprocal_rank_by_hand():
    assert reciprocal_rank(of([2, 3, 6], [6, 1], [6])).tolist() == [0.5, 1.0, 1 / 6]


def test_of_ranks_by_row_every_item_is_judged_for_itself():
    values = ndcg_at_k(of([1, 3], [], [12]).by_row(), 10)
    np.testing.assert_allclose(values, [1.0, 0.5, 0.0])
    assert reciprocal_rank(of([1, 4], [5]).by_row()).tolist() == [1, 0.25, 0.2]
    assert hit_rate_at_k(of([1, 4], [5]).by_row(), 4).tolist() == [1, 1, 0]
    assert recall_at_k(of([1, 4], [5]).by_row(), 4).tolist() == [1, 1, 0]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_ndcg_is_scikit_learns(k):
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(30, 20)), (rng.random((30, 20)) < 0.2).astype(int)
    relevant[:, 0] |= relevant.sum(axis=1) == 0  # scikit-learn gives 0, not NaN, where nothing is relevant
    expected = [ndcg_score(relevant[[user]], scores[[user]], k=k) for user in range(30)]
    np.testing.assert_allclose(ndcg(scores, relevant, k, key=KEY), expected, rtol=1e-9)
    np.testing.assert_allclose(ndcg(scores, sparse.csr_array(relevant), k, key=KEY), expected, rtol=1e-9)


@pytest.mark.parametrize("metric", AT_THREE.values(), ids=AT_THREE)
def test_a_user_with_nothing_relevant_has_no_value_and_spoils_nobody_elses(metric):
    both = metric(of([], [2, 3, 6]))
    assert np.isnan(both[0])
    assert both[1] == metric(RANKED)[0]


@pytest.mark.parametrize("relevant", [[[0, 7, 0.5, -1, 0, 1]], [[False, True, True, False, False, True]]])
def test_any_count_above_zero_is_relevant_and_no_more_than_that(relevant):
    scores = np.arange(6.0)[None]
    assert ndcg(scores, np.array(relevant), 3, key=KEY) == ndcg(scores, np.array([[0, 1, 1, 0, 0, 1]]), 3, key=KEY)


def expected_at_random(metric, relevant):
    """The mean of a metric over every order of one user's items."""
    orders = list(permutations(range(1, len(relevant) + 1)))
    return metric(of(*([order[item] for item in np.flatnonzero(relevant)] for order in orders))).mean()


@pytest.mark.parametrize("metric", AT_THREE.values(), ids=AT_THREE)
def test_a_constant_scorer_earns_the_random_score(metric):
    users, relevant = 4000, np.array([1, 1, 0, 0, 0, 0])  # first in the catalogue: a lazy tie rule would shine
    truth = expected_at_random(metric, relevant)
    for scores in (np.zeros((users, 6)), np.random.default_rng(0).random((users, 6))):
        values = metric(ranks(scores, np.tile(relevant, (users, 1)), key=KEY))
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(users)


SHAPE = (4, 9)
cases = st.tuples(
    hnp.arrays(float, SHAPE, elements=st.floats(-3, 3, width=16)), hnp.arrays(bool, SHAPE), st.integers(1, 12)
)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_every_metric_lies_between_zero_and_one_or_is_nan(case):
    scores, relevant, k = case
    ranked = ranks(scores, relevant, key=KEY)
    for values in (
        ndcg_at_k(ranked, k),
        recall_at_k(ranked, k),
        hit_rate_at_k(ranked, k),
        reciprocal_rank(ranked),
    ):
        assert values.shape == (len(scores),)
        np.testing.assert_array_equal(np.isnan(values), ~relevant.any(axis=1))
        assert (np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-12))).all()


@given(cases)
@settings(max_examples=60, deadline=None)
def test_putting_the_relevant_items_first_is_perfect_and_last_is_worst(case):
    _, relevant, k = case
    best, worst = (ranks(relevant * sign, relevant, key=KEY) for sign in (1.0, -1.0))
    someone = relevant.any(axis=1)
    for metric in (ndcg_at_k, recall_at_k, hit_rate_at_k):
        np.testing.assert_allclose(metric(best, k)[someone], 1.0)
        # At least as many irrelevant items as places: none of the places is a hit.
        hopeless = someone & ((~relevant).sum(axis=1) >= k)
        np.testing.assert_array_equal(metric(worst, k)[hopeless], 0.0)
    np.testing.assert_array_equal(reciprocal_rank(best)[someone], 1.0)


@pytest.mark.parametrize("metric", [ndcg_at_k, recall_at_k, hit_rate_at_k])
def test_a_list_without_places_is_refused(metric):
    with pytest.raises(ValueError, match="k: got 0, expected at least 1"):
        metric(RANKED, 0)


def test_every_public_metric_is_tested_here():
    public = {name for name in vars(metrics) if name.endswith(("_at_k", "_rank"))}
    assert public == {"ndcg_at_k", "recall_at_k", "hit_rate_at_k", "reciprocal_rank"}

"""Models of the counts do what their formulas say."""

from math import log, sqrt

import jax
import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

from rec_transfer.methods.item_models import (
    clicked,
    damped,
    ease,
    ease_weights,
    emcdr,
    even_columns,
    item_cosine,
    plain,
)
from rec_transfer.types import History, Interactions, TrainingData

KEY = jax.random.key(0)


def domain(name, users, counts):
    counts = np.asarray(counts)
    items = np.array([f"{name}{column}" for column in range(counts.shape[1])])
    return Interactions(name, sparse.csr_array(counts), np.array(users), items)


def history(counts):
    return History(sparse.csr_array(np.asarray(counts)))


@pytest.fixture
def train():
    """40 overlapping users and 60 of each domain alone; 6 films, 5 books."""
    rng = np.random.default_rng(0)
    shared = [f"u{user:02d}" for user in range(40)]
    films = domain("films", [*shared, *(f"f{n}" for n in range(60))], rng.poisson(1.0, (100, 6)))
    books = domain("books", [*shared[::-1], *(f"b{n}" for n in range(60))], rng.poisson(1.0, (100, 5)))
    return TrainingData(films, books)


# --- forms


def test_forms_of_counts_by_hand():
    counts = sparse.csr_array([[0, 0, 0], [7, 0, 0], [1, 3, 0]])
    assert plain(counts).toarray().tolist() == [[0, 0, 0], [7, 0, 0], [1, 3, 0]]
    assert clicked(counts).toarray().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    found = damped(counts).toarray()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [0, 1, 1])
    assert found[2, 1] / found[2, 0] == pytest.approx(log(4) / log(2))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_even_columns_have_the_spread_to_the_power_that_is_left_over(train, power):
    whole = train.source
    silent = Interactions("films", sparse.hstack([whole.counts, sparse.csr_array((100, 1), dtype=int)]).tocsr(),
                          whole.users, np.array([*whole.items, "films6"]))  # fmt: skip
    spread = even_columns(silent, damped, power)(silent.counts).toarray().std(axis=0)
    np.testing.assert_allclose(spread[:-1], damped(whole.counts).toarray().std(axis=0) ** (1 - power))
    assert spread[-1] == 0  # an item nobody clicked stays at zero and finite


# --- item-cosine


def test_item_cosine_by_hand_with_three_users():
    train = TrainingData(
        domain("films", ["a", "b", "c", "alone"], [[1, 0], [1, 1], [0, 1], [1, 1]]),
        domain("books", ["a", "b", "c", "other"], [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 9]]),
    )
    # Two of the three users watch the one film (a, b) and the other (b, c); the books are read by a and b, by b, by c.
    half = 1 / sqrt(2)
    sums = np.array([[1, half, 0], [1 / 2, half, half], [3 / 2, 2 * half, half], [0, 0, 0]])
    spread = np.maximum(sums.std(axis=1, keepdims=True), 1e-9)
    expected = (sums - sums.mean(axis=1, keepdims=True)) / spread
    sources = history([[1, 0], [0, 2], [1, 1], [0, 0]])
    np.testing.assert_allclose(item_cosine(clicked, 0.0)(train, key=KEY)(sources), expected, atol=1e-12)
    logs = np.array([log(3), log(2), log(11)])  # 2, 1 and 10 clicks of all users of the target
    popularity = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(item_cosine(clicked, 0.5)(train, key=KEY)(sources), expected + popularity / 2)


# --- EASE


def test_every_column_of_ease_is_the_ridge_regression_on_the_other_items():
    rng = np.random.default_rng(1)
    rows = rng.poisson(1.0, (50, 7)).astype(float)
    weights = ease_weights(rows.T @ rows, 3.0)
    assert np.diag(weights).tolist() == [0.0] * 7
    for item in range(7):
        others = np.delete(np.arange(7), item)
        ridge = Ridge(alpha=3.0, fit_intercept=False).fit(rows[:, others], rows[:, item])
        np.testing.assert_allclose(weights[others, item], ridge.coef_, rtol=1e-9)


@pytest.mark.parametrize("strangers", [0.0, 0.3, 1.0])
def test_ease_stacks_the_domains_and_weighs_the_users_of_one(train, strangers):
    films, books = (side.counts.toarray() > 0 for side in (train.source, train.target))
    stacked = np.zeros((160, 11))
    stacked[:100, :6], stacked[:40, 6:], stacked[100:, 6:] = films, books[39::-1], books[40:]
    weight = np.where(np.arange(160) < 40, 1.0, strangers)[:, None]
    penalty = 2.0 * np.mean(np.sum(weight * stacked**2, axis=0))
    sources = np.array([[1, 0, 4, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    scores = ease(clicked, 2.0, strangers=strangers)(train, key=KEY)(history(sources))
    for item in range(5):
        others = np.delete(np.arange(11), 6 + item)
        ridge = Ridge(alpha=penalty, fit_intercept=False).fit(
            stacked[:, others], stacked[:, 6 + item], sample_weight=weight[:, 0] + 1e-12
        )
        np.testing.assert_allclose(scores[:, item], (sources > 0) @ ridge.coef_[:6], rtol=1e-6, atol=1e-12)


# --- EMCDR


def noiseless(users=60, strangers=200):
    """Two domains whose counts have rank 2 about their mean, with linearly related coordinates."""
    rng = np.random.default_rng(2)
    taste = rng.uniform(-1, 1, (users + 2 * strangers, 2))
    axes = [np.linalg.qr(rng.normal(size=(8, 2)))[0].T * 20 for _ in range(2)]
    films, books = 100 + taste @ axes[0], 100 + taste @ [[0, 2], [1, 0]] @ axes[1]
    names = [f"u{user:03d}" for user in range(users)]
    return TrainingData(
        domain("films", [*names, *(f"f{n}" for n in range(strangers))], films[: users + strangers]),
        domain("books", [*names, *(f"b{n}" for n in range(strangers))], np.delete(books, np.s_[users:-strangers], 0)),
    )


def test_emcdr_with_all_the_factors_there_are_explains_low_rank_domains_and_with_one_it_does_not(
    monkeypatch,
):
    monkeypatch.setattr("rec_transfer.methods.item_models.damped", plain)  # exact in the counts themselves
    train = noiseless()
    _, truth = train.pairs
    source = History(train.pairs[0].counts)
    spread = truth.counts.toarray().std()
    for factors, evenness, low, high in ((2, 0.0, 0, 1e-3), (50, 0.0, 0, 1e-3), (1, 0.0, 0.1, 1)):
        error = emcdr(factors, evenness)(train, key=KEY)(source) - truth.counts.toarray()
        assert low <= np.sqrt(np.mean(error**2)) / spread <= high


def test_emcdr_learns_the_axes_from_users_of_one_domain_too(train):
    sources = history(np.eye(6, dtype=int))
    paired = TrainingData(*train.pairs)
    everybody, few = (emcdr(3, 0.0)(data, key=KEY)(sources) for data in (train, paired))
    assert np.abs(everybody - few).max() > 1e-3

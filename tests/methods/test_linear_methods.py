"""Linear methods do what their formulas say, and give the same numbers through the items as through the people."""

from math import sqrt

import jax
import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

from rec_transfer.methods.ensembles import with_popularity
from rec_transfer.methods.linear import ease, ease_weights, emcdr, item_cosine, ridge
from rec_transfer.models import forms
from rec_transfer.models.axes import domain_axes
from rec_transfer.types import History, Interactions, TrainingData

KEY = jax.random.key(0)


def domain(name, users, counts):
    counts = np.asarray(counts)
    items = np.array([f"{name}{column}" for column in range(counts.shape[1])])
    return Interactions(name, sparse.csr_array(counts), np.array(users), items)


def history(counts):
    return History(sparse.csr_array(np.asarray(counts)))


def drawn(pairs, source_items, target_items, alone=30, seed=0):
    """Overlapping users and users of each domain alone, with tastes of two kinds."""
    rng = np.random.default_rng(seed)

    def counts(users, items):
        kind = np.arange(users)[:, None] % 2 == np.arange(items)[None, :] % 2
        return rng.poisson(np.where(kind, 1.2, 0.3))

    both = [f"u{n:03d}" for n in range(pairs)]
    return TrainingData(
        domain("films", both + [f"f{n}" for n in range(alone)], counts(pairs + alone, source_items)),
        domain("books", [f"b{n}" for n in range(alone)] + both, counts(pairs + alone, target_items)),
    )


# Fewer items than people, and fewer people than items: the two sides of every solver.
SIZES = {"items": (40, 6, 5), "people": (9, 30, 25)}


@pytest.fixture(params=SIZES, scope="module")
def train(request):
    return drawn(*SIZES[request.param])


def scores_of(method, train, sources):
    return method(train, key=KEY)(sources)


# --- item cosine


def test_item_cosine_by_hand_with_three_users():
    train = TrainingData(
        domain("films", ["a", "b", "c", "alone"], [[1, 0], [1, 1], [0, 1], [1, 1]]),
        domain("books", ["a", "b", "c", "other"], [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 9]]),
    )
    # Two of the three users watch the one film (a, b) and the other (b, c); the books are read by a and b, by b, by c.
    half = 1 / sqrt(2)
    expected = [[1, half, 0], [1 / 2, half, half], [3 / 4, half, half / 2], [0, 0, 0]]
    sources = history([[1, 0], [0, 2], [1, 1], [0, 0]])
    np.testing.assert_allclose(scores_of(item_cosine(forms.binary), train, sources), expected, atol=1e-12)


def test_item_cosine_is_a_mean_of_cosines_through_the_items_as_through_the_people(train):
    source, target = (forms.log_scaled(side.counts).toarray() for side in train.pairs)
    lengths = [np.maximum(np.linalg.norm(side, axis=0), 1e-9) for side in (source, target)]
    cosines = (source / lengths[0]).T @ (target / lengths[1])
    rows = forms.log_scaled(train.source.counts).toarray()
    expected = rows @ cosines / np.maximum(rows.sum(axis=1, keepdims=True), 1e-9)
    found = scores_of(item_cosine(forms.log_scaled), train, History(train.source.counts))
    np.testing.assert_allclose(found, expected, atol=1e-12)


# --- ridge


@pytest.mark.parametrize("form", [forms.raw, forms.log_scaled])
def test_ridge_is_ridge_regression_on_the_pairs_about_the_means_of_everybody(train, form):
    x, y = (form(side.counts).toarray() for side in train.pairs)
    penalty = 0.7 * np.mean(np.sum(x**2, axis=1))
    fitted = Ridge(alpha=penalty).fit(x, y)
    means = [form(side.counts).toarray().mean(axis=0) for side in (train.source, train.target)]
    rows = form(train.source.counts).toarray()
    expected = means[1] + (rows - means[0]) @ np.atleast_2d(fitted.coef_).T
    found = scores_of(ridge(form, 0.7), train, History(train.source.counts))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_ridge_averaged_over_all_source_users_is_the_mean_of_all_target_users(train):
    found = scores_of(ridge(forms.log_scaled, 0.1), train, History(train.source.counts)).mean(axis=0)
    np.testing.assert_allclose(found, forms.log_scaled(train.target.counts).mean(axis=0), atol=1e-10)


def test_the_unit_of_the_penalty_follows_the_counts():
    train = drawn(40, 6, 5)
    many = TrainingData(
        *(Interactions(side.domain, side.counts * 7, side.users, side.items) for side in (train.source, train.target))
    )
    sources = np.eye(6, dtype=int)
    for method in (ridge(forms.raw, 0.5), ease(forms.raw, 0.5)):
        found = scores_of(method, many, history(7 * sources))
        np.testing.assert_allclose(found, 7 * scores_of(method, train, history(sources)), rtol=1e-8)


def with_silent_items(train, number):
    """The same data with films that nobody watched: enough of them, and the people are fewer than the items."""
    films = train.source
    silent = sparse.csr_array((len(films.users), number), dtype=films.counts.dtype)
    items = np.array([*films.items, *(f"silent{item}" for item in range(number))])
    counts = sparse.csr_array(sparse.hstack([films.counts, silent]))
    return TrainingData(Interactions("films", counts, films.users, items), train.target)


@pytest.mark.parametrize("form", [forms.raw, forms.log_scaled])
@pytest.mark.parametrize(
    "method",
    [
        lambda form: ridge(form, 0.3),
        lambda form: ease(form, 0.3),
        lambda form: ease(form, 0.3, single_domain=0.5, column_power=0.5),
        lambda form: emcdr(3, form=forms.centred(form)),
        item_cosine,
    ],
    ids=["ridge", "EASE", "EASE of all users", "EMCDR", "item cosine"],
)
def test_both_sides_give_the_same_scores_since_items_that_nobody_has_change_nothing(method, form):
    train = drawn(40, 6, 5)
    few = scores_of(method(form), train, History(train.source.counts))
    wide = with_silent_items(train, 200)
    many = scores_of(method(form), wide, History(wide.source.counts))
    np.testing.assert_allclose(many, few, rtol=1e-7, atol=1e-9)


def test_ridge_too_large_for_either_side_learns_from_the_most_active_pairs():
    train = drawn(20, 30, 25)
    few = scores_of(ridge(forms.binary, 1.0, most=8), train, History(train.source.counts))
    activity = np.minimum(*((side.counts > 0).sum(axis=1) for side in train.pairs))
    chosen = np.sort(np.argsort(-activity, kind="stable")[:8])
    x, y = (forms.binary(side.counts[chosen]).toarray() for side in train.pairs)
    fitted = Ridge(alpha=np.mean(np.sum(x**2, axis=1))).fit(x, y)
    means = [forms.binary(side.counts).toarray().mean(axis=0) for side in (train.source, train.target)]
    expected = means[1] + (forms.binary(train.source.counts).toarray() - means[0]) @ fitted.coef_.T
    np.testing.assert_allclose(few, expected, rtol=1e-8, atol=1e-10)
    narrow = drawn(40, 6, 5)  # as many items as can be solved: everybody is learned from
    sources = History(narrow.source.counts)
    whole, same = (scores_of(ridge(forms.binary, 1.0, most=most), narrow, sources) for most in (8000, 6))
    np.testing.assert_array_equal(whole, same)


# --- EASE


def test_every_column_of_ease_is_the_ridge_regression_on_the_other_items():
    rng = np.random.default_rng(1)
    rows = rng.poisson(1.0, (50, 7)).astype(float)
    weights = ease_weights(rows.T @ rows, 3.0)
    assert np.diag(weights).tolist() == [0.0] * 7
    for item in range(7):
        others = np.delete(np.arange(7), item)
        fitted = Ridge(alpha=3.0, fit_intercept=False).fit(rows[:, others], rows[:, item])
        np.testing.assert_allclose(weights[others, item], fitted.coef_, rtol=1e-9)


@pytest.mark.parametrize("form", [forms.binary, forms.log_scaled])
@pytest.mark.parametrize("single_domain", [0.0, 0.3, 1.0])
def test_ease_regresses_every_item_on_all_others_of_both_domains(train, form, single_domain):
    both = forms.both_domains(train).counts
    films = len(train.source.items)
    x = sparse.hstack([form(sparse.csr_array(both[:, :films])), form(sparse.csr_array(both[:, films:]))]).toarray()
    overlap = np.isin(forms.both_domains(train).users, train.overlapping_users)
    penalty = 0.4 * np.mean(np.sum(x[overlap] ** 2, axis=1))
    weight = np.where(overlap, 1.0, single_domain)
    sources, targets = train.source.counts[:7], train.target.counts[:7]
    scorer = ease(form, 0.4, single_domain=single_domain)(train, key=KEY)
    cold, warm = scorer(History(sources)), scorer(History(sources, targets))
    rows = np.hstack([form(sources).toarray(), form(targets).toarray()])
    for item in range(len(train.target.items)):
        others = np.delete(np.arange(x.shape[1]), films + item)
        gram = (weight[:, None] * x[:, others]).T @ x[:, others]
        coefficients = np.linalg.solve(
            gram + penalty * np.eye(len(others)), (weight[:, None] * x[:, others]).T @ x[:, films + item]
        )
        np.testing.assert_allclose(cold[:, item], rows[:, :films] @ coefficients[:films], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(warm[:, item], rows[:, others] @ coefficients, rtol=1e-6, atol=1e-9)


def test_ease_too_large_for_either_side_learns_from_the_rows_with_most_items():
    train = drawn(20, 30, 25)
    stacked = sparse.csr_array(sparse.hstack([forms.binary(side.counts) for side in train.pairs]))
    longest = np.argsort(-np.diff(stacked.indptr), kind="stable")[:8]
    x = stacked.toarray()
    weights = ease_weights(x[longest].T @ x[longest], 0.5 * np.mean(np.sum(x**2, axis=1)))
    found = scores_of(ease(forms.binary, 0.5, most=8), train, History(train.source.counts))
    expected = forms.binary(train.source.counts).toarray() @ weights[:30, 30:]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


# --- EMCDR


def noiseless(users=60, alone=200):
    """Two domains whose counts have rank 2 about their mean, with linearly related coordinates."""
    rng = np.random.default_rng(2)
    taste = rng.uniform(-1, 1, (users + 2 * alone, 2))
    axes = [np.linalg.qr(rng.normal(size=(8, 2)))[0].T * 20 for _ in range(2)]
    films, books = 100 + taste @ axes[0], 100 + taste @ [[0, 2], [1, 0]] @ axes[1]
    names = [f"u{user:03d}" for user in range(users)]
    return TrainingData(
        domain("films", [*names, *(f"f{n}" for n in range(alone))], films[: users + alone]),
        domain("books", [*names, *(f"b{n}" for n in range(alone))], np.delete(books, np.s_[users:-alone], 0)),
    )


@pytest.mark.parametrize(("factors", "low", "high"), [(2, 0, 1e-3), (50, 0, 1e-3), (1, 0.1, 1)])
def test_emcdr_with_all_the_factors_there_are_explains_low_rank_domains_and_with_one_it_does_not(factors, low, high):
    train = noiseless()
    source, truth = (side.counts for side in train.pairs)
    error = scores_of(emcdr(factors, form=forms.centred(forms.raw)), train, History(source)) - truth.toarray()
    assert low <= np.sqrt(np.mean(error**2)) / truth.toarray().std() <= high


def test_emcdr_learns_the_axes_from_users_of_one_domain_too(train):
    sources = history(np.eye(len(train.source.items), dtype=int))
    everybody, few = (scores_of(emcdr(3), data, sources) for data in (train, TrainingData(*train.pairs)))
    assert np.abs(everybody - few).max() > 1e-3


@pytest.mark.parametrize("form", [forms.centred(forms.log_scaled, column_power=1.0), forms.normalised_graph])
def test_emcdr_takes_the_first_of_the_axes_shared(train, form):
    sources = History(train.source.counts)
    alone, shared = (
        scores_of(method, train, sources) for method in (emcdr(2, form=form), emcdr(2, axes=domain_axes(form, 5)))
    )
    np.testing.assert_allclose(alone, shared, atol=1e-9 * np.abs(alone).max())


@pytest.mark.parametrize("form", [forms.centred(forms.log_scaled), forms.normalised_graph])
def test_a_map_between_axes_finds_the_taste_that_the_domains_share(form):
    train = drawn(60, 12, 10)
    scores = scores_of(emcdr(3, form=form), train, History(train.source.counts[60:]))
    lead = scores[:, ::2].mean(axis=1) - scores[:, 1::2].mean(axis=1)
    assert np.mean((lead > 0) == (np.arange(len(lead)) % 2 == 0)) > 0.8


@pytest.mark.parametrize(
    "method", [item_cosine(forms.unit_rows), ridge(forms.unit_rows, 1.0), ease(forms.unit_rows, 1.0), emcdr(3),
               emcdr(3, form=forms.normalised_graph)],
)  # fmt: skip
def test_a_user_without_clicks_has_finite_scores_and_popularity_orders_what_is_equal(train, method):
    nobody = history(np.zeros((1, len(train.source.items)), int))
    scores = scores_of(with_popularity(method, weight=1e6), train, nobody)[0]
    assert np.isfinite(scores).all()
    clicked = (train.target.counts > 0).sum(axis=0)
    assert (np.diff(scores[np.argsort(clicked, kind="stable")]) > -1.0).all()

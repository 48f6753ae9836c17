"""The linear rungs for large catalogues: the same numbers as their dense relatives, and what a mixture keeps."""

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.methods import sparse_models
from rec_transfer.methods.item_models import clicked, ease_weights
from rec_transfer.types import History, Interactions, TrainingData

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def train():
    """Sixty users in both domains and twenty in each alone; tastes of two kinds."""
    rng = np.random.default_rng(0)

    def domain(name, items, ids):
        kind = np.array([int(user[1:]) % 2 for user in ids])
        like = np.where(np.arange(items)[None, :] % 2 == kind[:, None], 0.5, 0.1)
        return Interactions(
            name,
            sparse.csr_array((rng.random(like.shape) < like).astype(np.int32)),
            np.array(ids),
            np.array([f"{name}{item}" for item in range(items)]),
        )

    both = [f"u{n}" for n in range(60)]
    return TrainingData(
        domain("a", 12, both + [f"a{n}" for n in range(20)]), domain("b", 9, both + [f"b{n}" for n in range(20)])
    )


@pytest.fixture(scope="module")
def history(train):
    return History(train.source.counts[60:67])


def rows(counts):
    dense = clicked(counts).toarray()
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)


def test_ridge_through_the_users_is_ridge_through_the_items(train, history):
    x, y = (rows(side.counts) for side in train.pairs)
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(12), x.T @ y)
    share = clicked(train.target.counts).toarray().mean(axis=0)
    expected = rows(history.source) @ weights + 0.5 * share
    scores = sparse_models.paired_ridge(3.0, 0.5)(train, key=KEY)(history)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_ease_through_the_users_is_ease_through_the_items(train, history):
    stacked = rows(sparse.csr_array(sparse.hstack([side.counts for side in train.pairs])))
    weights = ease_weights(stacked.T @ stacked, 2.0)
    scorer = sparse_models.paired_ease(2.0, 0.0)(train, key=KEY)
    np.testing.assert_allclose(scorer(history), rows(history.source) @ weights[:12, 12:], atol=1e-4)
    warm = History(history.source, train.target.counts[:7])
    both = rows(sparse.csr_array(sparse.hstack([warm.source, warm.target])))
    np.testing.assert_allclose(scorer(warm), both @ weights[:, 12:], atol=1e-4)


def test_ease_through_all_users_is_ease_through_the_items(train):
    stacked = rows(sparse_models._both(train).counts)
    weights = ease_weights(stacked.T @ stacked, 2.0)
    warm = History(train.source.counts[:7], train.target.counts[:7])
    both = rows(sparse.csr_array(sparse.hstack([warm.source, warm.target])))
    scores = sparse_models.paired_ease(2.0, 0.0, strangers=True)(train, key=KEY)(warm)
    np.testing.assert_allclose(scores, both @ weights[:, 12:], atol=1e-4)


def test_axes_of_the_stacked_graph_use_the_target_history_where_given(train, history):
    scorer = sparse_models.stacked_axes(2, 0.5)(train, key=KEY)
    kind = np.array([int(user[1:]) % 2 for user in train.source.users[60:67]])
    lead = scorer(history)[:, 1::2].mean(axis=1) - scorer(history)[:, ::2].mean(axis=1)
    assert np.mean((lead > 0) == (kind == 1)) > 0.8
    other = History(history.source, train.target.counts[:7])
    assert np.abs(scorer(other) - scorer(history)).max() > 1e-3


def test_axes_are_those_of_the_normalised_graph(train):
    axes, degree = sparse_models.principal_axes(train.source, 3)
    x = clicked(train.source.counts).toarray()
    np.testing.assert_array_equal(degree, x.sum(axis=0))
    normalised = x / np.sqrt(x.sum(axis=1, keepdims=True)) / np.sqrt(degree)
    _, _, right = np.linalg.svd(normalised, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(axes * right[:3].T, axis=0)), 1.0, atol=1e-4)


def test_a_map_between_axes_finds_the_taste_that_the_domains_share(train, history):
    scores = sparse_models.spectral_map(3, 0.5)(train, key=KEY)(history)
    kind = np.array([int(user[1:]) % 2 for user in train.source.users[60:67]])
    lead = scores[:, 1::2].mean(axis=1) - scores[:, ::2].mean(axis=1)
    assert np.mean((lead > 0) == (kind == 1)) > 0.8


def test_a_map_takes_the_first_of_the_axes_computed(train, history):
    every, three = (sparse_models.spectral_map(3, 0.5, axes=axes)(train, key=KEY)(history) for axes in (11, 3))
    np.testing.assert_allclose(every, three, atol=1e-3 * np.abs(every).max())


def test_more_popularity_lifts_popular_items(train, history):
    clicks = train.target.counts.sum(axis=0)

    def correlation(popularity):
        scores = sparse_models.spectral_map(3, popularity)(train, key=KEY)(history)
        return np.corrcoef(scores.mean(axis=0), clicks)[0, 1]

    assert correlation(2.0) > correlation(0.0) + 0.1


def test_a_user_without_clicks_gets_the_popular_items(train):
    nobody = History(sparse.csr_array((1, 12), dtype=np.int32))
    scores = sparse_models.paired_ridge(1.0, 1.0)(train, key=KEY)(nobody)
    np.testing.assert_allclose(scores[0], sparse_models.popular(train.target), atol=1e-6)
    assert np.isfinite(sparse_models.spectral_map(3, 0.5)(train, key=KEY)(nobody)).all()


def test_a_mixture_adds_standardised_scores(train, history):
    methods = {"ridge": sparse_models.paired_ridge(1.0, 0.0), "map": sparse_models.spectral_map(3, 0.5)}
    alone = {name: method(train, key=KEY)(history) for name, method in methods.items()}
    mixed = sparse_models.mixture(methods, {"ridge": 2.0, "map": 0.5})(train, key=KEY)(history)
    z = {name: (s - s.mean(axis=1, keepdims=True)) / s.std(axis=1, keepdims=True) for name, s in alone.items()}
    np.testing.assert_allclose(mixed, 2.0 * z["ridge"] + 0.5 * z["map"], rtol=1e-4, atol=1e-5)
    only = sparse_models.mixture(methods, {"ridge": 1.0, "map": 0.0})(train, key=KEY)(history)
    np.testing.assert_allclose(only, z["ridge"], rtol=1e-4, atol=1e-5)


def test_weights_of_other_methods_are_refused():
    with pytest.raises(ValueError, match="weights: got"):
        sparse_models.mixture({"a": sparse_models.paired_ridge(1.0, 0.0)}, {"b": 1.0})
    with pytest.raises(ValueError, match="above zero"):
        sparse_models.mixture({"a": sparse_models.paired_ridge(1.0, 0.0)}, {"a": 0.0})


def test_diffusion_is_the_sum_of_the_walks_through_the_graph(train, history):
    both = sparse_models._both(train)
    x = clicked(both.counts).toarray()
    walk = x / np.sqrt(x.sum(axis=1, keepdims=True)) / np.sqrt(x.sum(axis=0))
    start = rows(sparse.csr_array(sparse.hstack([history.source, sparse.csr_array((7, 9))]))) / np.sqrt(x.sum(axis=0))
    step = walk.T @ walk
    expected = (start @ step + start @ step @ step)[:, 12:] * x.sum(axis=0)[12:] ** 0.75
    scores = sparse_models.diffusion(2, 0.75)(train, key=KEY)(history)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_diffusion_in_chunks_is_diffusion(train, history, monkeypatch):
    whole = sparse_models.diffusion(3, 0.5)(train, key=KEY)(history)
    monkeypatch.setattr(sparse_models, "CHUNK", 3)
    np.testing.assert_allclose(sparse_models.diffusion(3, 0.5)(train, key=KEY)(history), whole, rtol=1e-5)


def test_many_diffusion_steps_end_at_the_popular_items(train, history):
    scores = sparse_models.diffusion(60, 0.5)(train, key=KEY)(history) - sparse_models.diffusion(59, 0.5)(
        train, key=KEY
    )(history)
    degree = clicked(train.target.counts).toarray().sum(axis=0)
    np.testing.assert_allclose(scores[0] / scores[0].sum(), degree / degree.sum(), rtol=1e-3)


def test_of_too_many_overlapping_users_the_most_active_teach_ridge_and_ease(train):
    source, target = sparse_models._paired(train, 10)
    active = [np.asarray(clicked(side.counts).sum(axis=1)).ravel() for side in train.pairs]
    least = np.sort(np.minimum(*active))[-10]
    assert source.shape[0] == target.shape[0] == 10
    assert min(clicked(side).sum(axis=1).min() for side in (source, target)) >= least

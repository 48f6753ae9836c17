"""Forms of counts by hand, and the first axes of a domain against the exact decomposition."""

from math import log

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.models import axes as axes_of
from rec_transfer.models import forms
from rec_transfer.types import Interactions, TrainingData

KEY = jax.random.key(0)


def domain(name, users, counts):
    counts = np.asarray(counts)
    items = np.array([f"{name}{column}" for column in range(counts.shape[1])])
    return Interactions(name, sparse.csr_array(counts), np.array(users), items)


@pytest.fixture(scope="module")
def films():
    """100 users and 7 films, the last of which nobody clicked."""
    counts = np.random.default_rng(0).poisson(1.0, (100, 7))
    counts[:, 6] = 0
    return domain("films", [f"u{user:02d}" for user in range(100)], counts)


# --- forms


def test_forms_of_counts_by_hand():
    counts = sparse.csr_array([[0, 0, 0], [7, 0, 0], [1, 3, 0]])
    assert forms.raw(counts).toarray().tolist() == [[0, 0, 0], [7, 0, 0], [1, 3, 0]]
    assert forms.binary(counts).toarray().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    np.testing.assert_allclose(forms.unit_rows(counts).toarray(), [[0, 0, 0], [1, 0, 0], [0.5**0.5, 0.5**0.5, 0]])
    found = forms.log_scaled(counts).toarray()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [0, 1, 1])
    assert found[2, 1] / found[2, 0] == pytest.approx(log(4) / log(2))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_scaled_columns_have_the_spread_to_the_power_that_is_left_over(films, power):
    spread = forms.column_scaled(films, forms.log_scaled, power)(films.counts).toarray().std(axis=0)
    np.testing.assert_allclose(spread[:6], forms.log_scaled(films.counts).toarray().std(axis=0)[:6] ** (1 - power))
    assert spread[6] == 0  # an item nobody clicked stays at zero and finite


def test_the_normalised_graph_divides_by_the_roots_of_both_degrees(films):
    clicked = films.counts.toarray() > 0
    users, items = np.maximum(clicked.sum(axis=1, keepdims=True), 1), np.maximum(clicked.sum(axis=0), 1)
    found = forms.normalised_graph(films)
    np.testing.assert_allclose(found.rows(films.counts).toarray(), clicked / np.sqrt(users) / np.sqrt(items))
    assert found.unit
    assert not found.mean.any()


# --- both domains


@pytest.fixture
def train():
    """Users a to d overlap, in another order in the books; c is the most active in both, then b."""
    return TrainingData(
        domain("films", ["a", "b", "c", "d", "e"], [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 1]]),
        domain("books", ["f", "d", "c", "b", "a"], [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 2], [0, 1, 0]]),
    )


def test_both_domains_are_one_with_a_row_for_every_user_of_either(train):
    both = forms.both_domains(train)
    assert both.users.tolist() == ["a", "b", "c", "d", "e", "f"]
    assert both.items.tolist() == [f"{name}:{name}{item}" for name in ("films", "books") for item in range(3)]
    assert both.counts.toarray().tolist() == [
        [1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 0, 2], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
    ]  # fmt: skip


def test_of_too_many_overlapping_users_those_active_in_both_domains_are_taken(train):
    source, target = forms.most_active_pairs(train, 2)
    assert source.toarray().tolist() == [[1, 1, 0], [1, 1, 1]]
    assert target.toarray().tolist() == [[1, 0, 2], [1, 1, 1]]
    for found, side in zip(forms.most_active_pairs(train, 4), train.pairs, strict=True):
        np.testing.assert_array_equal(found.toarray(), side.counts.toarray())


def test_a_target_history_that_is_not_given_is_zeros():
    source = sparse.csr_array(np.array([[1, 2]]))
    assert forms.beside(source, None, 3).toarray().tolist() == [[1, 2, 0, 0, 0]]
    assert forms.beside(source, sparse.csr_array(np.array([[4, 0, 6]])), 3).toarray().tolist() == [[1, 2, 4, 0, 6]]


# --- axes


def low_rank(users, items, rank, seed=0):
    """Sparse rows with ``rank`` strong directions over noise."""
    rng = np.random.default_rng(seed)
    taste = rng.dirichlet(np.full(rank, 0.3), users) @ rng.gamma(0.3, size=(rank, items))
    return sparse.csr_array(rng.poisson(0.5 * taste).astype(float))


@pytest.mark.parametrize(("users", "items"), [(150, 60), (60, 150)])
@pytest.mark.parametrize("middle", ["zero", "mean"])
@pytest.mark.parametrize("exact", [1000, 0])
def test_axes_are_those_of_the_exact_decomposition_whichever_side_is_smaller(users, items, middle, exact):
    rows = low_rank(users, items, 4)
    mean = rows.mean(axis=0) if middle == "mean" else np.zeros(items)
    right, singular = axes_of.leading_axes(rows, mean, 5, key=KEY, exact=exact, tolerance=1e-5)
    _, expected, axes = np.linalg.svd(rows.toarray() - mean, full_matrices=False)
    np.testing.assert_allclose(singular, expected[:5], rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(right * axes[:5].T, axis=0)), 1.0, atol=1e-3)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_an_iterated_axis_is_an_eigenvector_up_to_the_tolerance(tolerance):
    rows = low_rank(400, 300, 20)
    right, singular = axes_of.leading_axes(rows, np.zeros(300), 40, key=KEY, exact=0, tolerance=tolerance)
    gram = (rows.T @ rows).toarray()
    residual = np.linalg.norm(gram @ right - right * singular**2, axis=0)
    assert residual.max() <= 1.01 * tolerance * singular[0] ** 2
    np.testing.assert_allclose(right.T @ right, np.eye(40), atol=1e-4)
    exact = np.linalg.svd(rows.toarray(), compute_uv=False)
    assert (singular <= exact[:40] * (1 + 1e-5)).all()  # as close as the axes found come, never above
    apart = np.abs(singular[:, None] ** 2 - exact[None, :] ** 2).min(axis=1)
    assert apart.max() <= 1.01 * tolerance * exact[0] ** 2


def test_rows_of_a_lower_rank_than_the_axes_asked_for_have_singular_values_of_zero():
    rng = np.random.default_rng(1)
    rows = sparse.csr_array(rng.normal(size=(300, 3)) @ rng.normal(size=(3, 200)))
    right, singular = axes_of.leading_axes(rows, np.zeros(200), 20, key=KEY, exact=0)
    exact = np.linalg.svd(rows.toarray(), compute_uv=False)
    np.testing.assert_allclose(singular[:3], exact[:3], rtol=1e-4)
    assert singular[3:].max() < 1e-2 * singular[0]
    np.testing.assert_allclose(right.T @ right, np.eye(20), atol=1e-4)


def test_coordinates_are_projections_and_of_length_one_where_the_form_says_so(films):
    free = axes_of.domain_axes(forms.centred(forms.log_scaled), 3)(films, key=KEY)
    centred = forms.log_scaled(films.counts).toarray()
    centred -= centred.mean(axis=0)
    np.testing.assert_allclose(axes_of.coordinates(free, films.counts, 2), centred @ free.right[:, :2], atol=1e-12)
    unit = axes_of.domain_axes(forms.normalised_graph, 3)(films, key=KEY)
    clicked = films.counts.sum(axis=1) > 0
    assert 90 < clicked.sum() < 100
    np.testing.assert_allclose(np.linalg.norm(axes_of.coordinates(unit, films.counts, 2), axis=1), 1.0 * clicked)


def test_axes_are_computed_once_per_domain_and_key(films):
    axes = axes_of.domain_axes(forms.normalised_graph, 3)
    assert axes(films, key=KEY) is axes(films, key=KEY)
    assert axes(Interactions("films", films.counts, films.users, films.items), key=KEY) is not axes(films, key=KEY)

"""Methods on the graph of both domains: axes, walks, and target histories beside the source's."""

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.methods.graphs import CHUNK, diffusion, joint_axes, stacked_axes, with_target_history
from rec_transfer.methods.linear import item_cosine
from rec_transfer.models import forms
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


def unit(counts):
    dense = (counts.toarray() > 0).astype(float)
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)


def graph(train):
    """R, and the number of users of each item, over both domains."""
    clicked = forms.both_domains(train).counts.toarray() > 0
    degree = clicked.sum(axis=0)
    return clicked / np.sqrt(clicked.sum(axis=1, keepdims=True)) / np.sqrt(degree), degree


def test_stacked_axes_project_on_the_first_axes_of_the_graph(train, history):
    walk, degree = graph(train)
    _, _, axes = np.linalg.svd(walk, full_matrices=False)
    warm = History(history.source, train.target.counts[:7])
    for given in (history, warm):
        rows = unit(forms.beside(*given, 9)) / np.sqrt(degree)
        expected = rows @ axes[:4].T @ axes[:4][:, 12:]
        np.testing.assert_allclose(stacked_axes(4)(train, key=KEY)(given), expected, atol=1e-9)
        shared = stacked_axes(4, axes=joint_axes(8))(train, key=KEY)(given)
        np.testing.assert_allclose(shared, expected, atol=1e-9)


def test_stacked_axes_find_the_taste_that_the_domains_share(train, history):
    scores = stacked_axes(2)(train, key=KEY)(history)
    kind = np.array([int(user[1:]) % 2 for user in train.source.users[60:67]])
    lead = scores[:, 1::2].mean(axis=1) - scores[:, ::2].mean(axis=1)
    assert np.mean((lead > 0) == (kind == 1)) > 0.8


def test_diffusion_is_the_sum_of_the_walks_through_the_graph(train, history):
    walk, degree = graph(train)
    start = unit(forms.beside(*history, 9)) / np.sqrt(degree)
    step = walk.T @ walk
    expected = (start @ step + start @ step @ step)[:, 12:]
    np.testing.assert_allclose(diffusion(2)(train, key=KEY)(history), expected, rtol=1e-4, atol=1e-6)


def test_diffusion_in_chunks_is_diffusion_user_by_user(train):
    many = np.arange(CHUNK + 50) % 80
    scorer = diffusion(3)(train, key=KEY)
    whole, few = scorer(History(train.source.counts[many])), scorer(History(train.source.counts))
    np.testing.assert_allclose(whole, few[many], rtol=1e-5)


def test_many_diffusion_steps_end_at_the_root_of_the_popularity(train, history):
    scores = diffusion(60)(train, key=KEY)(history) - diffusion(59)(train, key=KEY)(history)
    root = np.sqrt(graph(train)[1][12:])
    np.testing.assert_allclose(scores[0] / scores[0].sum(), root / root.sum(), rtol=1e-3)


def test_a_method_with_the_target_history_reads_the_columns_of_both_domains(train, history):
    method = with_target_history(item_cosine(forms.binary))(train, key=KEY)
    targets = train.target.counts[:7]
    both = forms.both_domains(train)
    plain = item_cosine(forms.binary)(TrainingData(both, train.target), key=KEY)
    joined = History(forms.beside(history.source, targets, 9))
    np.testing.assert_array_equal(method(History(history.source, targets)), plain(joined))
    without = History(forms.beside(history.source, None, 9))
    np.testing.assert_array_equal(method(history), plain(without))
    assert np.abs(plain(joined) - plain(without)).max() > 1e-3

"""What every aligner and every method must do, found by name: one that is added is tested without a line here."""

import jax
import numpy as np
import pytest

from rec_transfer import alignment, baselines
from rec_transfer.transfer import fit_transfer
from rec_transfer.types import Gaussian, History

KEY = jax.random.key(21)


def fits_of(module):
    return {
        name: value for name, value in vars(module).items()
        if name.startswith("fit_") and callable(value) and value.__module__ == module.__name__
    }  # fmt: skip


ALIGNERS, METHODS = fits_of(alignment), fits_of(baselines)
LIKE_CHANCE = {"fit_random"}  # permuting the users does not permute a draw


@pytest.fixture(scope="module")
def aligner_arguments(split, vaes):
    """What ``fit_transfer`` hands to an aligner."""
    seen = {}

    def spy(pairs, *, unpaired, decode, key):
        seen.update(pairs=pairs, unpaired=unpaired, decode=decode)
        return lambda belief: belief

    fit_transfer(split.train, spy, *vaes, key=KEY)
    return seen


def rows(tree, order):
    return jax.tree.map(lambda array: array[order], tree)


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALIGNERS)
def test_every_aligner_keeps_the_contract(name, aligner_arguments):
    pairs = aligner_arguments["pairs"]
    before = jax.tree.map(np.array, pairs)
    first, again = (ALIGNERS[name](**aligner_arguments, key=jax.random.key(3)) for _ in range(2))
    belief, users = pairs.source, len(pairs.counts)

    mapped = first(belief)
    assert isinstance(mapped, Gaussian)
    assert mapped.mean.shape == (users, 2)
    assert mapped.covariance.shape == (users, 2, 2)
    assert all(np.isfinite(leaf).all() for leaf in mapped), "not finite"
    np.testing.assert_allclose(mapped.covariance, np.swapaxes(mapped.covariance, 1, 2), atol=1e-5)
    assert np.linalg.eigvalsh(np.asarray(mapped.covariance, float)).min() > -1e-5, "no covariance"
    for one, other in zip(mapped, again(belief), strict=True):
        np.testing.assert_array_equal(one, other, err_msg="not deterministic in key")

    order, others = np.random.default_rng(0).permutation(users), np.minimum(np.arange(users), 1)
    assert_close(first(rows(belief, order)), rows(mapped, order))
    # Nobody depends on who else is there: the first user in a crowd of others just like the second.
    assert_close(rows(first(rows(belief, others)), slice(1)), rows(mapped, slice(1)))
    assert_close(jax.jit(lambda belief: first(belief))(belief), mapped)

    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(pairs), strict=True):
        np.testing.assert_array_equal(one, other, err_msg="the pairs were changed")


def as_method(fit_aligner, vaes):
    return lambda train, *, key: fit_transfer(train, fit_aligner, *vaes, key=key)


@pytest.mark.parametrize("name", [*METHODS, *ALIGNERS])
def test_every_method_keeps_the_contract(name, split, vaes):
    fit = METHODS[name] if name in METHODS else as_method(ALIGNERS[name], vaes)
    train, source = split.train, split.history.source
    before = [counts.toarray() for counts in (train.source.counts, train.target.counts, source)]
    first, again = (fit(train, key=jax.random.key(3)) for _ in range(2))

    scores = first(History(source))
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (60, 30)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, first(History(source)), err_msg="a second call differs")
    np.testing.assert_array_equal(scores, again(History(source)), err_msg="not deterministic in key")

    if name not in LIKE_CHANCE:
        order, others = np.random.default_rng(0).permutation(60), np.minimum(np.arange(60), 1)
        assert_close(first(History(source[order])), scores[order])
        assert_close(first(History(source[others]))[0], scores[0])

    after = [counts.toarray() for counts in (train.source.counts, train.target.counts, source)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other, err_msg="what was handed in was changed")


def test_the_search_finds_the_aligners_and_methods_there_are():
    assert {"fit_ridge_map", "fit_mlp_map"} <= set(ALIGNERS)
    assert {"fit_random", "fit_popularity", "fit_ridge_counts"} <= set(METHODS)
    assert "fit_ridge" not in {*ALIGNERS, *METHODS}  # imported there, at home elsewhere

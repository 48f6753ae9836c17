"""What every aligner and every method must do, found by name: one that is added is tested without a line here."""

import inspect
import pkgutil
from functools import partial
from importlib import import_module

import jax
import numpy as np
import pytest

from rec_transfer import evaluation, maps, methods
from rec_transfer.maps import dense_counts
from rec_transfer.methods.ensembles import averaged
from rec_transfer.methods.gaussian_process import fit_gaussian_process
from rec_transfer.methods.shared_latents import fit_shared_latents
from rec_transfer.methods.transfer import fit_transfer, unknown_user
from rec_transfer.synthetic.oracle import with_oracle
from rec_transfer.types import Gaussian, History

KEY = jax.random.key(21)


def is_fit(function, first):
    """Whether it is called ``fit(<first>, *, key)``: whatever else it takes has a default."""
    parameters = inspect.signature(function).parameters
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    return next(iter(parameters)) == first and set(needed) <= {first, "decode", "key", "unpaired"}


def fits_of(room, first):
    """The public functions ``fit_...`` of a room's files that are called in this way, each where it is at home."""
    modules = [import_module(f"{room.__name__}.{module.name}") for module in pkgutil.iter_modules(room.__path__)]
    return {
        name: value for module in modules for name, value in vars(module).items()
        if name.startswith("fit_") and inspect.isfunction(value) and value.__module__ == module.__name__
        and is_fit(value, first)
    }  # fmt: skip


ALIGNERS = fits_of(maps, "pairs")
# Smaller than by default, and methods made by other functions than ``fit_...``.
SMALLER = {
    "fit_shared_latents": partial(fit_shared_latents, latent=2, epochs=5),
    "fit_gaussian_process": partial(fit_gaussian_process, latent=2),
    "averaged": averaged({"one": evaluation.fit_popularity, "two": partial(fit_gaussian_process, latent=2)}),
}
METHODS = fits_of(evaluation, "train") | fits_of(methods, "train") | SMALLER
OF_VAES = {"unknown_user": unknown_user}  # methods once the VAEs are there
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


def check_aligner(fit, arguments):
    pairs = arguments["pairs"]
    before = jax.tree.map(np.array, dense_counts(pairs))
    first, again = (fit(**arguments, key=jax.random.key(3)) for _ in range(2))
    belief, users = pairs.source, len(pairs.source.mean)
    order, others = np.random.default_rng(0).permutation(users), np.minimum(np.arange(users), 1)

    mapped = first(belief)
    assert isinstance(mapped, Gaussian)
    assert mapped.mean.shape == (users, 2)
    assert mapped.covariance.shape == (users, 2, 2)
    assert all(np.isfinite(leaf).all() for leaf in mapped), "not finite"
    np.testing.assert_allclose(mapped.covariance, np.swapaxes(mapped.covariance, 1, 2), atol=1e-5)
    assert np.linalg.eigvalsh(np.asarray(mapped.covariance, float)).min() > -1e-5, "no covariance"
    for one, other in zip(mapped, again(belief), strict=True):
        np.testing.assert_array_equal(one, other, err_msg="not deterministic in key")

    assert_close(first(rows(belief, order)), rows(mapped, order))
    # Nobody depends on who else is there: the first user in a crowd of others just like the second.
    assert_close(rows(first(rows(belief, others)), slice(1)), rows(mapped, slice(1)))
    assert_close(jax.jit(lambda belief: first(belief))(belief), mapped)

    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(dense_counts(pairs)), strict=True):
        np.testing.assert_array_equal(one, other, err_msg="the pairs were changed")
    return first


def check_method(fit, split, *, like_chance, users=None):
    train, source = split.train, split.history.source[:users]
    users, items = source.shape[0], train.target.counts.shape[1]
    before = [counts.toarray() for counts in (train.source.counts, train.target.counts, source)]
    first, again = (fit(train, key=jax.random.key(3)) for _ in range(2))
    order, others = np.random.default_rng(0).permutation(users), np.minimum(np.arange(users), 1)

    scores = first(History(source))
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (users, items)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, first(History(source)), err_msg="a second call differs")
    np.testing.assert_array_equal(scores, again(History(source)), err_msg="not deterministic in key")

    if not like_chance:
        assert_close(first(History(source[order])), scores[order])
        assert_close(first(History(source[others]))[0], scores[0])

    after = [counts.toarray() for counts in (train.source.counts, train.target.counts, source)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other, err_msg="what was handed in was changed")


@pytest.mark.parametrize("name", [*METHODS, *OF_VAES, *ALIGNERS])
def test_every_aligner_and_every_method_keeps_its_contract(name, split, vaes, aligner_arguments):
    if name in METHODS:
        check_method(METHODS[name], split, like_chance=name in LIKE_CHANCE)
        return
    if name in OF_VAES:
        check_method(OF_VAES[name](lambda domain, *, key: vaes[1]), split, like_chance=False)
        return
    aligner = check_aligner(ALIGNERS[name], aligner_arguments)  # fitted twice there: once for all that follows
    fit = partial(fit_transfer, fit_map=lambda pairs, **_: aligner, source=vaes[0], target=vaes[1])
    check_method(fit, split, like_chance=False)


def test_the_oracle_keeps_the_contract_of_a_method_up_to_its_draws(split, world):
    check_method(with_oracle(world)["oracle: NDCG@10"], split, like_chance=True, users=20)


def test_the_search_finds_the_aligners_and_methods_there_are():
    assert {"fit_ridge_map", "fit_mlp_map"} <= set(ALIGNERS)
    assert {"fit_procrustes_map", "fit_cca_map", "fit_weighted_map"} <= set(ALIGNERS)
    assert {"fit_wasserstein_map", "fit_coral_map", "fit_mmd_map", "fit_adversarial_map"} <= set(ALIGNERS)
    assert {"fit_kernel_ridge_map", "fit_gaussian_process_map", "fit_contrastive_map", "fit_bridge_map"} <= set(
        ALIGNERS
    )
    assert {"fit_random", "fit_popularity", "fit_ridge_counts", "fit_item_cosine", "fit_ease", "fit_emcdr"} <= set(
        METHODS
    )
    assert "fit_ridge" not in {*ALIGNERS, *METHODS}  # imported there, at home elsewhere

"""The factor model finds the axes that made the clicks; the shared latents carry a user across."""

import jax
import numpy as np
import pytest

from rec_transfer import evaluation
from rec_transfer.methods import shared_latents
from rec_transfer.models import factor_model
from rec_transfer.types import History

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def fitted(split):
    return shared_latents.fit_shared_latents(split.train, key=KEY, latent=2, epochs=30)


def test_the_factor_model_finds_the_plane_of_the_true_item_vectors(split, world):
    model = factor_model.fit_factor_model(split.train.target.counts, latent=2, key=KEY)
    found = np.column_stack([np.asarray(model.items), np.ones(len(model.item_bias))])
    truth = world.items[1]
    fit = found @ np.linalg.lstsq(found, truth, rcond=None)[0]
    assert 1 - np.sum((truth - fit) ** 2) / np.sum((truth - truth.mean(axis=0)) ** 2) > 0.8


def test_the_bound_ignores_a_domain_in_which_a_user_is_not_active(split, fitted):
    models = (fitted.source, fitted.target)
    users, shared = shared_latents._all_users(split.train, *models)
    assert len(shared) == len(split.train.overlapping_users)
    moved = fitted.model.target.intercept[...] + 3.0
    value = shared_latents.negative_bound(fitted.model, users, None, key=KEY, epoch=0)
    other = jax.tree.map(lambda leaf: leaf, fitted.model)
    other.target.intercept[...] = moved
    change = np.abs(np.asarray(shared_latents.negative_bound(other, users, None, key=KEY, epoch=0) - value))
    source_only = np.asarray(users.active[:, 1] == 0)
    assert change[source_only].max() == 0
    assert change[~source_only].min() > 0


def test_it_beats_popularity_and_stays_below_the_oracle(split, fitted, ceiling):
    methods = {
        "shared": lambda train, *, key: fitted,
        "popularity": evaluation.fit_popularity,
        "oracle": ceiling,
    }
    table = evaluation.compare(methods, split, keys=[KEY]).set_index("method")
    assert table.low["shared"] > table.high["popularity"]
    assert table["mean"]["shared"] < table.high["oracle"]


def test_scores_depend_on_nobody_else(split, fitted):
    source = split.history.source
    together, alone = fitted(History(source)), fitted(History(source[[5]]))
    np.testing.assert_allclose(alone[0], together[5], rtol=1e-4, atol=1e-5)


def test_counts_of_another_catalogue_are_refused(fitted, split):
    with pytest.raises(ValueError, match="counts: got 29 items, expected the model's 30"):
        fitted(History(split.history.source[:, :29]))
    with pytest.raises(ValueError, match="latent: got 30, expected fewer"):
        factor_model.fit_factor_model(split.train.source.counts, latent=30, key=KEY)

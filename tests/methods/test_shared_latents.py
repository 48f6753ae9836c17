"""The factor model finds the axes that made the clicks; the shared latents carry a user across."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rec_transfer import evaluation
from rec_transfer.methods import shared_latents
from rec_transfer.methods.ensembles import averaged
from rec_transfer.methods.gains import expected_gains
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


def test_a_map_is_a_line_at_the_start_and_bends_by_its_formula():
    rng = np.random.default_rng(0)
    line, level, interests = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=(5, 3)).astype(np.float32)
    shown = shared_latents.InterestMap(line, level, key=KEY)
    np.testing.assert_allclose(shown(jnp.asarray(interests)), interests @ line + level, rtol=1e-5, atol=1e-5)

    bend = rng.normal(size=shown.output.kernel[...].shape).astype(np.float32)
    shown.output.kernel[...] = bend
    inner, inner_bias, outer, outer_bias = (
        np.asarray(part[...])
        for part in (shown.hidden.kernel, shown.hidden.bias, shown.second.kernel, shown.second.bias)
    )

    def silu(x):
        return x / (1 + np.exp(-x))

    hidden = silu(1.5 * (interests @ inner + inner_bias))
    expected = interests @ line + level + silu(hidden @ outer + outer_bias) @ bend
    np.testing.assert_allclose(shown(jnp.asarray(interests)), expected, rtol=1e-4, atol=1e-4)


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


def test_another_start_has_other_networks_between_the_same_factor_models(split, fitted):
    models = {"films": fitted.source, "books": fitted.target}
    settings = {"latent": 2, "epochs": 2, "factor_models": lambda domain, *, key: models[domain.domain]}
    one = partial(shared_latents.fit_shared_latents, **settings)
    first, again, other = one(split.train, key=KEY), one(split.train, key=KEY), one(split.train, key=KEY, start=1)
    np.testing.assert_array_equal(first(split.history), again(split.history))
    assert np.abs(first(split.history) - other(split.history)).max() > 1e-4
    mean = averaged({"one": one, "other": partial(one, start=1)})(split.train, key=KEY)
    np.testing.assert_allclose(mean(split.history), (first(split.history) + other(split.history)) / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="start: got -1"):
        one(split.train, key=KEY, start=-1)


def test_lists_are_ranked_for_the_share_of_items_that_judges_them(split, fitted):
    interests = fitted.sample_target_posterior(split.history)
    for judged in (0.5, 1.0):
        gains = expected_gains(fitted.target, interests, fitted.clicks, key=fitted.key, judged=judged)["NDCG@10"]
        np.testing.assert_allclose(fitted._replace(judged=judged)(split.history), gains, rtol=1e-6)
    assert fitted.judged == 0.5
    assert not np.allclose(fitted(split.history), gains)


def test_the_interests_have_the_dimensions_of_the_factor_models_handed_in(split, fitted):
    models = {"films": fitted.source, "books": fitted.target}
    scorer = shared_latents.fit_shared_latents(
        split.train, key=KEY, latent=3, epochs=1, factor_models=lambda domain, *, key: models[domain.domain]
    )
    assert scorer.sample_target_posterior(History(split.history.source[:4])).shape == (4, shared_latents.DRAWS, 2)


def test_scores_depend_on_nobody_else(split, fitted):
    source = split.history.source
    together, alone = fitted(History(source)), fitted(History(source[[5]]))
    np.testing.assert_allclose(alone[0], together[5], rtol=1e-4, atol=1e-5)


def test_counts_of_another_catalogue_are_refused(fitted, split):
    with pytest.raises(ValueError, match="counts: got 29 items, expected the model's 30"):
        fitted(History(split.history.source[:, :29]))
    with pytest.raises(ValueError, match="latent: got 30, expected fewer"):
        factor_model.fit_factor_model(split.train.source.counts, latent=30, key=KEY)

"""What limits transfer: the stored table says what the texts say of it, and the truth it hands over is the truth."""

from pathlib import Path

import jax
import jax.numpy as jnp
import limits
import numpy as np
import pandas as pd
import pytest

from rec_transfer import synthetic
from rec_transfer.synthetic import oracle, truth
from rec_transfer.types import History

ROOT = Path(__file__).resolve().parents[2]


FEW, MANY = 300, 300 + limits.MORE_PAIRS


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(ROOT / "tests" / "reference" / "limits.csv")


@pytest.fixture(scope="module")
def shares(stored):
    return stored.groupby(["world", "method", "items", "pairs"]).share.mean()


def test_every_line_stands_in_every_world_once(stored):
    assert list(stored.columns) == limits.COLUMNS
    assert not stored.duplicated(["world", "seed", "method", "items", "pairs"]).any()
    lines = stored.groupby(["world", "seed"]).size()
    assert len(lines) == 4
    assert lines.nunique() == 1
    assert ((stored.low <= stored.share) & (stored.share <= stored.high)).all()


def test_pairs_limit_the_bent_worlds_and_not_the_item_models(shares):
    learned = shares["bent", "shared + private latents", "learned"]
    true = shares["bent", "shared + private latents", "true"]
    assert learned[MANY] - learned[FEW] > 0.03
    assert true[MANY] - true[FEW] > 0.08
    assert abs(true[FEW] - learned[FEW]) < 0.03


def test_a_linear_map_stays_behind_however_many_pairs_it_gets(shares):
    linear = shares["bent", "linear map between item models", "learned"]
    bent = shares["bent", "shared + private latents", "learned"]
    assert linear[MANY] < bent[FEW]
    assert linear[MANY] < bent[MANY] - 0.15


def test_newton_steps_find_nothing_that_the_encoder_loses(shares):
    for world in ("bent", "linear"):
        encoder = shares[world, "VAE + ridge map, encoder", "learned"]
        newton = shares[world, "VAE + ridge map, Newton steps", "learned"]
        assert (newton - encoder).max() < 0.04


def test_with_the_worlds_own_items_and_map_little_is_lost(shares):
    for world in ("bent", "linear"):
        assert shares[world, "truth: items and map", "true", FEW] == pytest.approx(1, abs=0.05)


def test_true_items_score_as_the_world_does_in_coordinates_of_mean_0_and_variance_i(world, split):
    model = truth.true_items(world)(split.train.source, key=None)
    rng = np.random.default_rng(1)
    shown = synthetic.shown_interests(world, "films", *rng.normal(size=(2, 20_000, world.config.latent)))
    true = oracle.domain_of(world, "films")
    logits = shown @ np.asarray(true.items).T + np.asarray(true.item_bias)
    own = np.linalg.lstsq(np.asarray(model.items), (logits - np.asarray(model.item_bias)).T, rcond=None)[0].T
    np.testing.assert_allclose(model(jnp.asarray(own, jnp.float32)), logits, atol=1e-3)
    np.testing.assert_allclose(own.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(np.cov(own.T), np.eye(own.shape[1]), atol=0.06)


def test_the_true_map_ranks_like_the_oracle(split, world, unchecked):  # it stands in for a learned model
    key = jax.random.key(0)
    ours = truth.true_map(world)(split.train, key=key)(History(split.history.source))
    oracles = oracle.with_oracle(world)["oracle: NDCG@10"](split.train, key=key)(History(split.history.source))
    agreement = [np.corrcoef(one, other)[0, 1] for one, other in zip(ours, oracles, strict=True)]
    assert np.median(agreement) > 0.98

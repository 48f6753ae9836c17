"""The ablation: its stored table is complete, its lines are what they are called, its contrasts are paired."""

from pathlib import Path

import ablation
import evidence
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from rec_transfer import maps
from rec_transfer.methods import transfer
from rec_transfer.models import VAEConfig, posterior
from rec_transfer.types import Gaussian

STORED = Path(__file__).resolve().parents[2] / "tests" / "reference" / "ablation.csv"
LINES = evidence.ladder(None).lines


def test_every_line_stands_in_every_world_once():
    stored = pd.read_csv(STORED)
    assert list(stored.columns) == ablation.COLUMNS
    assert not stored.duplicated(["world", "seed", *ablation.LINE]).any()
    assert set(stored.world) == set(evidence.ASSUMED)
    assert stored.notna().all(axis=None)
    lines = set(stored[ablation.LINE].itertuples(index=False, name=None))
    assert lines == set(LINES)
    assert len(stored) == len(lines) * len(evidence.ASSUMED) * len(evidence.SEEDS)
    for better, worse in ablation.CONTRASTS.values():
        assert {better, worse} <= lines
        assert sum(a != b for a, b in zip(better, worse, strict=True)) == 1  # one thing varies


def test_the_lists_of_a_map_by_the_decoded_mean_are_those_of_the_recommender(split):
    vaes = transfer.domain_vaes(VAEConfig(latent=4, hidden=8, epochs=3))
    fit = ablation.mapped(vaes, posterior, lambda model: model.decoder, maps.fit_ridge_map)
    key = jax.random.key(3)
    found = ablation.listed(fit, "decoded mean")(split.train, key=key)(split.history)
    known = transfer.with_maps({"": maps.fit_ridge_map}, vaes=vaes)[""](split.train, key=key)(split.history)
    np.testing.assert_allclose(found, known, atol=1e-4)
    gains = ablation.listed(fit, "NDCG@10")(split.train, key=key)(split.history)
    assert gains.shape == known.shape
    assert not np.array_equal(np.argsort(gains), np.argsort(known))


def test_draws_have_the_mean_and_the_covariance_of_the_belief():
    covariance = jnp.asarray([[[1.0, 0.8], [0.8, 1.0]], [[0.2, 0.0], [0.0, 0.4]]])
    draws = np.asarray(
        ablation.drawn(Gaussian(jnp.asarray([[1.0, -1.0], [0.0, 3.0]]), covariance), key=jax.random.key(0))
    )
    np.testing.assert_allclose(draws.mean(axis=1), [[1, -1], [0, 3]], atol=0.2)
    for user in range(2):
        np.testing.assert_allclose(np.cov(draws[user].T), covariance[user], atol=0.2)


def test_without_the_single_domain_users_a_method_sees_the_pairs_alone(split):
    seen = {}

    def spy(train, *, key):
        seen["users"] = set(train.source.users) | set(train.target.users)

    ablation.on_pairs_alone(spy)(split.train, key=jax.random.key(0))
    assert seen["users"] == set(split.train.overlapping_users)


def test_contrasts_are_paired_by_world():
    lines = list(LINES)
    rng = np.random.default_rng(0)
    level = {seed: rng.normal(0, 1) for seed in range(5)}  # worlds differ by far more than lines do
    rows = [
        ("bent", seed, *line, 0.3, level[seed] + (0.1 if line[3] == "NDCG@10" else 0.0) + rng.normal(0, 0.001))
        for seed in range(5)
        for line in lines
    ]
    found = ablation.contrasts(pd.DataFrame(rows, columns=ablation.COLUMNS)).set_index("contrast")
    gain = found.loc["list: expected gain over decoded mean, process"]
    assert gain.difference == pytest.approx(0.1, abs=0.005)
    assert gain.low > 0.09
    assert found.loc["rows: all users over overlapping users, VAE"].difference == pytest.approx(0, abs=0.005)

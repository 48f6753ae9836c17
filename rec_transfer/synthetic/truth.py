"""Methods that are told part of the truth: the world's own item vectors, and its own map between the domains.

They stand in the place of what a method would have to learn, so that an experiment can tell what holds transfer back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rec_transfer.methods import shared_latents
from rec_transfer.models.factor_model import FactorModel
from rec_transfer.synthetic import oracle
from rec_transfer.synthetic.world import World, common_interests, shown_interests
from rec_transfer.types import FitMethod, Scorer, TrainingData


class TrueMap(NamedTuple):
    """A domain's part of the world, in place of a learned ``shared_latents.InterestMap``: u to the mean of z."""

    domain: oracle.Domain
    relatedness: float
    bend: float

    def __call__(self, interests: Float[Array, "*users latent"]) -> Float[Array, "*users latent"]:
        rotation, bends = self.domain.rotation, self.domain.bends
        return self.relatedness * common_interests(interests, rotation, bends, bend=self.bend)

    @property
    def variance(self) -> float:
        return 1 - self.relatedness**2


class TruePair(NamedTuple):
    """Both domains' true maps, in the place of learned ``SharedLatents``."""

    source: TrueMap
    target: TrueMap


def true_items(world: World) -> Callable[..., FactorModel]:
    """Return the world's item vectors as factor models.

    Their coordinates are those in which users' interests have mean 0 and variance I:
    z = m + L y with m and L L' the moments of 10^5 drawn users; the learned models have such coordinates too.

    Raises:
        ValueError: the world's decoder is not linear, so that its item vectors are no factor model's.
    """
    _refuse_hidden_layers(world)
    config = world.config
    draw = np.random.default_rng(0).normal(size=(2, 100_000, config.latent))

    def model_of(domain, *, key):
        mean, spread = _moments(shown_interests(world, domain.domain, *draw))
        true = oracle.domain_of(world, domain.domain)
        items = np.asarray(true.items)
        arrays = items @ spread, np.asarray(true.item_bias) + items @ mean
        return FactorModel(*(jnp.asarray(array, jnp.float32) for array in arrays))

    return model_of


def _moments(shown):
    return shown.mean(axis=0), np.linalg.cholesky(np.cov(shown.T))


def _refuse_hidden_layers(world: World) -> None:
    if world.hidden is not None:
        raise ValueError(
            "world: got decoder='two-layer', expected 'linear': behind a hidden layer, items are no vectors in the "
            "space of interests, and no factor model holds them"
        )


def true_map(world: World) -> FitMethod:
    """Return a method that learns nothing: the world's items and maps in the machinery of the shared latents.

    Raises:
        ValueError: the world's decoder is not linear, so that its item vectors are no factor model's.
    """
    _refuse_hidden_layers(world)

    def fit(train: TrainingData, *, key) -> Scorer:
        sides = [oracle.domain_of(world, side.domain) for side in (train.source, train.target)]
        maps: Any = TruePair(*(TrueMap(side, world.config.relatedness, world.config.bend) for side in sides))
        here, there = (FactorModel(side.items, side.item_bias) for side in sides)
        clicks = np.asarray(train.target.counts.sum(axis=1), np.float32)
        return shared_latents.SharedTransfer(here, there, maps, jnp.asarray(clicks), key)

    return fit

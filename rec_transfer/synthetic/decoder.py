"""What item vectors weigh in a synthetic world: the interest shown itself, or a hidden layer's view of it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

DECODERS = ("linear", "two-layer")
HIDDEN_PER_AXIS = 4  # hidden units of a two-layer decoder: 4 K, more than a factor model with K coordinates can hold
STEEPNESS = 3.0  # of the hidden units: the linear part of z then explains three quarters of what taste adds to scores


class HiddenLayer(NamedTuple):
    """The hidden layer of a two-layer decoder (see ``item_features``), of all domains or of one."""

    weights: Float[np.ndarray | Array, "*domains latent hidden"]
    offsets: Float[np.ndarray | Array, "*domains hidden"]
    centre: Float[np.ndarray | Array, "*domains hidden"]


def item_features(
    shown: Float[np.ndarray | Array, "*users latent"], hidden: HiddenLayer | None
) -> Float[np.ndarray | Array, "*users features"]:
    r"""Return $\phi_d(z)$, what an item's vector weighs: the interest shown, or a hidden layer's view of it.

    It is z with a linear decoder and $\tanh(z H_d + c_d) - m_d$ with a two-layer one, which has 4 K hidden units of
    random weights. $m_d$ makes the mean over $z \sim N(0, I)$ zero. Item vectors are drawn at a length that makes the
    variance of an item's score over users K on average (times the sharpness squared) with either decoder, so that
    popularity keeps its part. Three quarters of this variance are linear in z in a two-layer world with K = 8.

    Args:
        shown: $z_d$.
        hidden: of the domain; None is a linear decoder.
    """
    if hidden is None:
        return shown
    tanh = np.tanh if isinstance(shown, np.ndarray) else jnp.tanh
    return tanh(shown @ hidden.weights + hidden.offsets) - hidden.centre


def hidden_layers(domains: int, latent: int, *, rng: np.random.Generator) -> tuple[HiddenLayer, np.ndarray]:
    """Return random hidden layers, and the root of their units' mean variance in each domain."""
    hidden = HIDDEN_PER_AXIS * latent
    weights = rng.normal(0, STEEPNESS * latent**-0.5, (domains, latent, hidden))
    offsets = rng.normal(0, STEEPNESS, (domains, hidden))
    # What reaches a unit from z ~ N(0, I) is normal: its mean and variance are integrals in one dimension.
    nodes, mass = np.polynomial.hermite_e.hermegauss(100)
    units = np.tanh(np.linalg.norm(weights, axis=1)[..., None] * nodes + offsets[..., None])
    mass = mass / mass.sum()
    centre = units @ mass
    return HiddenLayer(weights, offsets, centre), np.sqrt((units**2 @ mass - centre**2).mean(axis=1))


def layer_of(hidden: HiddenLayer | None, d: int) -> HiddenLayer | None:
    """Return the hidden layer of domain number d; None where decoders are linear."""
    return None if hidden is None else HiddenLayer(*(part[d] for part in hidden))

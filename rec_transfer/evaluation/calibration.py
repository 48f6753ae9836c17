"""Does a belief mean what it says? Held-out clicks against what was predicted of them, user by user."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from rec_transfer.keys import numpy_generator
from rec_transfer.types import Gaussian, Key


def draw_probabilities(
    belief: Gaussian, decode: Callable, *, draws: int = 200, key: Key
) -> Float[Array, "users draws items"]:
    """Click probabilities decoded at draws from each user's posterior."""
    values, vectors = jnp.linalg.eigh(belief.covariance)
    factor = vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]
    noise = jax.random.normal(key, (len(belief.mean), draws, belief.mean.shape[-1]))
    return jax.nn.softmax(decode(belief.mean[:, None] + jnp.einsum("nij,ndj->ndi", factor, noise)))


def transformed(
    probabilities: Float[np.ndarray | Array, "users draws items"],
    counts: Real[np.ndarray, "users items"],
    *,
    top: int = 10,
    key: Key,
) -> Float[np.ndarray, " users"]:
    r"""Randomised probability integral transform of each user's held-out clicks; uniform on (0, 1) if calibrated.

    The statistic is T, how many of a user's n held-out clicks fall on the ``top`` items believed most probable. Given a
    draw it is Binomial(n, p) with p their total probability; mixed over the draws,
    $F(T - 1) + v\,(F(T) - F(T - 1))$ with $v \sim U(0, 1)$ (Smith 1985; Czado, Gneiting and Held 2009).

    Args:
        probabilities: draws of each user's click probabilities.
        counts: the held-out clicks.
        top: items that the statistic looks at.
        key: draws v.

    Raises:
        ValueError: users or items of the two differ, ``top`` leaves no item or takes all, a user without clicks.
    """
    from scipy.stats import binom

    probabilities = np.asarray(probabilities, float)
    users, _, items = probabilities.shape
    if counts.shape != (users, items):
        raise ValueError(f"counts: got shape {counts.shape}, expected users and items of the draws, {(users, items)}")
    if not 0 < top < items:
        raise ValueError(f"top: got {top}, expected 1 to {items - 1}")
    number = counts.sum(axis=1)
    if (number == 0).any():
        raise ValueError(f"counts: got {(number == 0).sum()} users without clicks, expected at least one for each")
    favourites = np.argsort(-probabilities.mean(axis=1), axis=1, kind="stable")[:, :top]
    hits = np.take_along_axis(counts, favourites, axis=1).sum(axis=1)
    # Clipped, since a sum of probabilities may exceed 1 by rounding.
    mass = np.minimum(np.take_along_axis(probabilities, favourites[:, None, :], axis=2).sum(axis=2), 1)
    below, at = (binom.cdf(hits[:, None] - less, number[:, None], mass).mean(axis=1) for less in (1, 0))
    return below + numpy_generator(key).random(users) * (at - below)


def coverage(transform: Float[np.ndarray, " users"], levels: Sequence[float] = (0.5, 0.8, 0.95)):
    """How often the held-out clicks lie in the central credible interval of each level, with its standard error.

    Returns:
        Frame with columns ``level, coverage, error, users``. More coverage than the level: too little confidence.

    Raises:
        ValueError: a level outside (0, 1).
    """
    import pandas as pd

    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels: got {tuple(levels)}, expected numbers between 0 and 1")
    inside = [np.mean(np.abs(transform - 0.5) <= level / 2) for level in levels]
    errors = [np.sqrt(level * (1 - level) / len(transform)) for level in levels]
    return pd.DataFrame({"level": levels, "coverage": inside, "error": errors, "users": len(transform)})

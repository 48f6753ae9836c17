"""Aligners: from what is believed of a user in the source domain to what is believed in the target domain.

Every one is fitted by ``fit(pairs, *, unpaired, decode, key)`` and maps ``Gaussian -> Gaussian``: the mean through the
map, the covariance through its slope plus the map's own residual, $A \\Sigma A^\\top + R$.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.types import Gaussian, Key, Pairs

FOLDS = 5


class LinearMap(nnx.Module):
    r"""$\mu \mapsto \mu A^\top + c$, $\Sigma \mapsto A \Sigma A^\top + R$; users are rows, A = coefficients'."""

    def __init__(self, coefficients, intercept, residual):
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.residual = nnx.Param(jnp.asarray(residual, jnp.float32))

    def __call__(self, belief: Gaussian) -> Gaussian:
        matrix = self.coefficients[...].T
        mean = belief.mean @ matrix.T + self.intercept[...]
        return Gaussian(mean, matrix @ belief.covariance @ matrix.T + self.residual[...])


def residual_covariance(
    pairs: Pairs,
    held_out: Float[np.ndarray, "pairs latent"],
    slopes: Float[np.ndarray, "*pairs latent_t latent_s"],
) -> Float[np.ndarray, "latent latent"]:
    r"""R, what the map leaves unexplained beyond the uncertainty it passes on, from held-out predictions.

    A target interest differs from its prediction by the map's miss plus the target posterior's own spread, in all
    $\mathrm{Cov}(\mu_t - \hat\mu_t) + \overline{\Sigma_t}$; $\overline{A \Sigma_s A^\top}$ of it is passed on already.
    Directions in which the rest is negative are set to zero.
    """
    miss = np.asarray(pairs.target.mean) - held_out
    passed_on = slopes @ np.asarray(pairs.source.covariance) @ np.swapaxes(slopes, -1, -2)
    spread = miss.T @ miss / len(miss) + np.asarray(pairs.target.covariance).mean(axis=0)
    values, vectors = np.linalg.eigh(spread - passed_on.mean(axis=0))
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def drawn(belief: Gaussian, *, key: Key | None) -> Float[Array, "*users latent"]:
    """One draw per user from its posterior, by the standard deviations alone; the mean where there is no key."""
    if key is None:
        return belief.mean
    spread = jnp.sqrt(jnp.diagonal(belief.covariance, axis1=-2, axis2=-1))
    return belief.mean + spread * jax.random.normal(key, belief.mean.shape)


class MeanMap(nnx.Module):
    """The average of several networks; its slope at a user carries the user's covariance through."""

    def __init__(self, networks, residual):
        self.networks = nnx.List(networks)
        self.residual = nnx.Param(jnp.asarray(residual, jnp.float32))

    def mean(self, mean):
        return sum(network(mean) for network in self.networks) / len(self.networks)

    def slope(self, mean: Float[Array, "users latent_s"]) -> Float[Array, "users latent_t latent_s"]:
        return jax.vmap(jax.jacfwd(self.mean))(mean)

    def __call__(self, belief: Gaussian) -> Gaussian:
        slope = self.slope(belief.mean)
        covariance = slope @ belief.covariance @ jnp.swapaxes(slope, -1, -2)
        return Gaussian(self.mean(belief.mean), covariance + self.residual[...])


def mean_map(networks: Sequence[nnx.Module], pairs: Pairs, held_out: Float[np.ndarray, "pairs latent"]) -> MeanMap:
    """The average of networks, with the residual covariance that their held-out predictions of the pairs leave."""
    average = MeanMap(networks, np.zeros(pairs.target.covariance.shape[1:]))
    residual = residual_covariance(pairs, held_out, np.asarray(average.slope(pairs.source.mean)))
    average.residual = nnx.Param(jnp.asarray(residual, jnp.float32))
    return average


def folds(users: int, *, key: Key) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows dealt into five folds: (all rows but the fold's, the fold's) for each.

    Raises:
        ValueError: fewer than five rows.
    """
    if users < FOLDS:
        raise ValueError(f"pairs: got {users} users, expected at least {FOLDS}, one for each fold")
    order = np.asarray(jax.random.permutation(key, users))
    return [(np.setdiff1d(order, fold), fold) for fold in np.array_split(order, FOLDS)]


def average_over_folds(pairs: Pairs, train: Callable[..., nnx.Module], *, key: Key) -> MeanMap:
    """Networks each trained without one fold of the pairs, averaged; what they say of that fold gives the residual.

    Args:
        pairs: the overlapping users; dealt into five folds.
        train: ``train(start, seen, unseen, *, key) -> network``: from the ridge map of the pairs seen (all but the
            fold) grow a network that maps means [users, latent], to be stopped by the pairs unseen (the fold).

    Raises:
        ValueError: fewer than five pairs.
    """
    keys = named_keys(key, "folds", "networks")
    dealt = folds(len(pairs.counts), key=keys["folds"])
    networks, held_out = [], np.zeros(pairs.target.mean.shape)
    for (rest, fold), key in zip(dealt, jax.random.split(keys["networks"], FOLDS), strict=True):
        seen, unseen = rows_of(pairs, rest), rows_of(pairs, fold)
        network = train(fit_ridge(seen.source.mean, seen.target.mean), seen, unseen, key=key)
        networks.append(network)
        held_out[fold] = network(unseen.source.mean)
    return mean_map(networks, pairs, held_out)


def rows_of(tree, rows):
    """The same rows of every array of a pytree."""
    return jax.tree.map(lambda array: array[rows], tree)

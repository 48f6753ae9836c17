r"""What the maps share: linear maps, averages of networks, the residual covariance, and folds of the pairs.

A map turns a user's posterior in the source domain into one in the target domain: ``Gaussian -> Gaussian``. The mean
goes through the map; the covariance goes through the map's slope A, and the map's own residual is added, $A \Sigma
A^\top + R$. Every map is fitted by ``fit(pairs, *, unpaired, decode, key)``.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from scipy import sparse

from rec_transfer.keys import named_keys
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.types import Gaussian, Key, Pairs

Numbers: TypeAlias = np.ndarray | Array
FOLDS = 5
MIN_PAIRS = 10  # two in each fold


class LinearMap(nnx.Module):
    r"""Map a posterior linearly: $\mu \mapsto \mu A^\top + c$, $\Sigma \mapsto A \Sigma A^\top + R$.

    Args:
        coefficients: $A^\top$, [latent_s, latent_t]; users are rows.
        intercept: c, [latent_t].
        residual: R, [latent_t, latent_t].
    """

    def __init__(
        self,
        coefficients: Float[Numbers, "latent_s latent_t"],
        intercept: Float[Numbers, " latent_t"],
        residual: Float[Numbers, "latent_t latent_t"],
    ) -> None:
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.residual = nnx.Param(jnp.asarray(residual, jnp.float32))

    def __call__(self, posterior: Gaussian) -> Gaussian:
        """Return the mapped posteriors."""
        matrix = self.coefficients[...].T
        mean = posterior.mean @ matrix.T + self.intercept[...]
        return Gaussian(mean, matrix @ posterior.covariance @ matrix.T + self.residual[...])


def residual_covariance(
    pairs: Pairs,
    held_out: Float[np.ndarray, "pairs latent"],
    slopes: Float[np.ndarray, "*pairs latent_t latent_s"],
) -> Float[np.ndarray, "latent latent"]:
    r"""Return R, the covariance that a map leaves unexplained, from held-out predictions of the pairs.

    A target interest differs from its prediction by the map's error and by the spread of the target posterior:
    $\mathrm{Cov}(\mu_t - \hat\mu_t) + \overline{\Sigma_t}$ in all. The map already passes $\overline{A \Sigma_s
    A^\top}$ of it on, so R is the rest. Directions in which the rest is negative are set to zero.

    Args:
        pairs: the overlapping users.
        held_out: predicted target means, each from a map that was fitted without the user.
        slopes: A, one for all pairs or one for each.
    """
    miss = np.asarray(pairs.target.mean) - held_out
    passed_on = slopes @ np.asarray(pairs.source.covariance) @ np.swapaxes(slopes, -1, -2)
    spread = miss.T @ miss / len(miss) + np.asarray(pairs.target.covariance).mean(axis=0)
    values, vectors = np.linalg.eigh(spread - passed_on.mean(axis=0))
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def sample_posterior(posterior: Gaussian, *, key: Key | None) -> Float[Array, "*users latent"]:
    r"""Return one sample per user from its posterior, or the mean if ``key`` is None.

    The sample is $\mu + \sigma \epsilon$ with the standard deviations of the posterior; its correlations are not used.
    """
    if key is None:
        return posterior.mean
    spread = jnp.sqrt(jnp.diagonal(posterior.covariance, axis1=-2, axis2=-1))
    return posterior.mean + spread * jax.random.normal(key, posterior.mean.shape)


class MeanMap(nnx.Module):
    """Average several networks; the slope of the average at a user's mean carries the user's covariance.

    Args:
        networks: each maps means [users, latent_s] to means [users, latent_t].
        residual: R, [latent_t, latent_t].
    """

    def __init__(self, networks: Sequence[nnx.Module], residual: Float[Numbers, "latent latent"]) -> None:
        self.networks = nnx.List(networks)
        self.residual = nnx.Param(jnp.asarray(residual, jnp.float32))

    def mean(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_t"]:
        """Return the average of the networks' mapped means."""
        return sum(network(mean) for network in self.networks) / len(self.networks)

    def slope(self, mean: Float[Array, "users latent_s"]) -> Float[Array, "users latent_t latent_s"]:
        """Return the derivative of the mapped mean by the source mean, for each user."""
        return jax.vmap(jax.jacfwd(self.mean))(mean)

    def __call__(self, posterior: Gaussian) -> Gaussian:
        """Return the mapped posteriors."""
        slope = self.slope(posterior.mean)
        covariance = slope @ posterior.covariance @ jnp.swapaxes(slope, -1, -2)
        return Gaussian(self.mean(posterior.mean), covariance + self.residual[...])


def check_pairs(pairs: Pairs, at_least: int = MIN_PAIRS, purpose: str = "") -> None:
    """Raise if there are too few pairs; ``purpose`` ends the message."""
    if len(pairs.source.mean) < at_least:
        raise ValueError(f"pairs: got {len(pairs.source.mean)} users, expected at least {at_least}{purpose}")


def in_double(posterior: Gaussian) -> Gaussian:
    """Return the same Gaussians as NumPy arrays in double precision, which the closed forms compute in."""
    return Gaussian(np.asarray(posterior.mean, np.float64), np.asarray(posterior.covariance, np.float64))


def mean_map(networks: Sequence[nnx.Module], pairs: Pairs, held_out: Float[np.ndarray, "pairs latent"]) -> MeanMap:
    """Return the average of networks, with the residual covariance of their held-out predictions.

    Args:
        networks: each maps means [users, latent_s] to means [users, latent_t].
        pairs: the overlapping users.
        held_out: the predicted target mean of each pair, from a network that was trained without it.
    """
    average = MeanMap(networks, np.zeros(pairs.target.covariance.shape[1:]))
    residual = residual_covariance(pairs, held_out, np.asarray(average.slope(pairs.source.mean)))
    average.residual = nnx.Param(jnp.asarray(residual, jnp.float32))
    return average


def split_folds(users: int, *, key: Key) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split rows at random into five folds; return (all other rows, the fold's rows) for each fold.

    Raises:
        ValueError: there are fewer than five rows.
    """
    if users < FOLDS:
        raise ValueError(f"pairs: got {users} users, expected at least {FOLDS}, one for each fold")
    order = np.asarray(jax.random.permutation(key, users))
    return [(np.setdiff1d(order, fold), fold) for fold in np.array_split(order, FOLDS)]


def average_over_folds(pairs: Pairs, train: Callable[..., nnx.Module], *, key: Key) -> MeanMap:
    """Train one network per fold of the pairs, each without its fold, and return their average.

    Each network predicts the fold that it was trained without; these predictions give the residual covariance.

    Args:
        pairs: the overlapping users; they are split into five folds.
        train: ``train(start, seen, unseen, *, key) -> network``. It starts from the ridge map of the pairs seen (all
            but the fold), trains a network on them that maps means [users, latent], and may stop by the pairs unseen
            (the fold).

    Raises:
        ValueError: there are fewer than five pairs.
    """
    keys = named_keys(key, "folds", "networks")
    split = split_folds(len(pairs.source.mean), key=keys["folds"])
    networks, held_out = [], np.zeros(pairs.target.mean.shape)
    for (rest, fold), key in zip(split, jax.random.split(keys["networks"], FOLDS), strict=True):
        seen, unseen = take_rows(pairs, rest), take_rows(pairs, fold)
        network = train(fit_ridge(seen.source.mean, seen.target.mean), seen, unseen, key=key)
        networks.append(network)
        held_out[fold] = network(unseen.source.mean)
    return mean_map(networks, pairs, held_out)


def dense_counts(pairs: Pairs) -> Pairs:
    """Return the pairs with their target counts as a dense array [pairs, items], which a decoder's loss needs."""
    counts = pairs.counts.toarray() if sparse.issparse(pairs.counts) else pairs.counts
    return pairs._replace(counts=jnp.asarray(counts, jnp.float32))


def take_rows(tree: Any, rows: np.ndarray) -> Any:
    """Return the same rows of every array in a pytree."""
    return jax.tree.map(lambda array: array[rows], tree)

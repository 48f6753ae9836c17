"""Aligners: from what is believed of a user in the source domain to what is believed in the target domain.

Every one is fitted by ``fit(pairs, *, unpaired, decode, key)`` and maps ``Gaussian -> Gaussian``: the mean through the
map, the covariance through its slope plus the map's own residual, $A \\Sigma A^\\top + R$.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rec_transfer import likelihoods, training
from rec_transfer.keys import named_keys
from rec_transfer.ridge import fit_ridge
from rec_transfer.types import Gaussian, Key, Pairs, PerUser, Unpaired

HIDDEN = 32
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


def fit_ridge_map(pairs: Pairs, *, unpaired: Unpaired | None = None, decode=None, key: Key | None = None) -> LinearMap:
    r"""Ridge regression of target on source posterior means, lambda by leave-one-out squared error.

    $B = (Z_s^\top Z_s + \lambda I)^{-1} Z_s^\top Z_t$ with users as rows and both sides centred, $A = B^\top$. Only
    ``pairs`` is used; it is deterministic.
    """
    ridge = fit_ridge(pairs.source.mean, pairs.target.mean)
    residual = residual_covariance(pairs, ridge.left_out, ridge.coefficients.T)
    return LinearMap(ridge.coefficients, ridge.intercept, residual)


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


class MLPMap(nnx.Module):
    """A linear map plus a small tanh network whose last layer starts at zero: before training it is the linear map."""

    def __init__(self, coefficients, intercept, *, key: Key):
        keys = named_keys(key, "hidden", "output")
        inputs, outputs = coefficients.shape
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.hidden = nnx.Linear(inputs, HIDDEN, rngs=nnx.Rngs(keys["hidden"]))
        self.output = nnx.Linear(HIDDEN, outputs, rngs=nnx.Rngs(keys["output"]), kernel_init=nnx.initializers.zeros)

    def __call__(self, mean: Float[Array, "*users latent"]) -> Float[Array, "*users latent"]:
        return mean @ self.coefficients[...] + self.intercept[...] + self.output(jnp.tanh(self.hidden(mean)))


def decoded_loss(model: MLPMap, batch: Pairs, decode, *, key: Key | None, epoch) -> PerUser:
    """Negative log-likelihood, in nats, of a user's target clicks under the decoded mapped interest.

    While training the source interest is a draw from its posterior, which keeps a network from leaning on
    differences the encoder itself is not sure of.
    """
    latent = batch.source.mean
    if key is not None:
        spread = jnp.sqrt(jnp.diagonal(batch.source.covariance, axis1=-2, axis2=-1))
        latent = latent + spread * jax.random.normal(key, latent.shape)
    return -likelihoods.multinomial_log_likelihood(decode(model(latent)), batch.counts)


class MeanMap(nnx.Module):
    """The average of several networks; its slope at a user carries the user's covariance through."""

    def __init__(self, networks, residual):
        self.networks = nnx.List(networks)
        self.residual = nnx.Param(jnp.asarray(residual, jnp.float32))

    def mean(self, mean):
        return sum(network(mean) for network in self.networks) / len(self.networks)

    def __call__(self, belief: Gaussian) -> Gaussian:
        slope = jax.vmap(jax.jacfwd(self.mean))(belief.mean)
        covariance = slope @ belief.covariance @ jnp.swapaxes(slope, -1, -2)
        return Gaussian(self.mean(belief.mean), covariance + self.residual[...])


def fit_mlp_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode,
    key: Key,
    epochs: int = 60,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
) -> MeanMap:
    """Networks trained through the target decoder, each stopped on pairs it does not see, then averaged.

    The pairs are dealt into five folds. For each, a ridge map is fitted on the other four, a network grows from it to
    explain the target *clicks* through the frozen decoder, and the epoch that best explains the fold left out is kept.
    The fold's predictions give the residual covariance.
    """
    keys = named_keys(key, "folds", "networks")
    order = np.asarray(jax.random.permutation(keys["folds"], len(pairs.counts)))
    networks, held_out = [], np.zeros(pairs.target.mean.shape)
    for fold, key in zip(np.array_split(order, FOLDS), jax.random.split(keys["networks"], FOLDS), strict=True):
        keys = named_keys(key, "initialise", "train")
        rest = np.setdiff1d(order, fold)
        seen, unseen = (jax.tree.map(lambda array, rows=rows: array[rows], pairs) for rows in (rest, fold))
        start = fit_ridge(seen.source.mean, seen.target.mean)
        fitted = training.fit(
            MLPMap(start.coefficients, start.intercept, key=keys["initialise"]),
            decoded_loss,
            seen,
            key=keys["train"],
            context=decode,
            validation=unseen,
            epochs=epochs,
            batch_size=50,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        networks.append(fitted.model)
        held_out[fold] = fitted.model(unseen.source.mean)
    average = MeanMap(networks, np.zeros(pairs.target.covariance.shape[1:]))
    slopes = np.asarray(jax.vmap(jax.jacfwd(average.mean))(pairs.source.mean))
    average.residual = nnx.Param(jnp.asarray(residual_covariance(pairs, held_out, slopes), jnp.float32))
    return average

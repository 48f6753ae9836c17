r"""A Gaussian process between two domains' factor models, with both ends uncertain.

Coordinate by coordinate $z_t = f(z_s) + \epsilon$, $\epsilon \sim N(0, s)$, $f \sim GP(0, k)$ with
$k(x, x') = c + l\, x^\top x' + b \exp(-\lVert x - x' \rVert^2 / 2 \ell^2)$: a level, a line, a bend. Nobody's interests
are known: a source interest enters as its posterior $N(m, C)$, through the expected kernel (Girard et al. 2003), and
the target clicks as Gaussian evidence (``laplace``), so that quiet users count for less. The four variances and the
length are those that make the overlapping users' target evidence most probable; nothing is trained by steps.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.methods.gains import expected_gains
from rec_transfer.models.factor_model import FactorModel, domain_factor_models, evidence_of
from rec_transfer.models.laplace import Evidence, belief
from rec_transfer.types import Gaussian, History, Key, TrainingData

LENGTHS = (2.5,)  # of interests with unit variance
START = (0.05, 0.05, 0.3, 0.5)  # level, line, bend, noise: where the search for the variances begins
MOST_PAIRS = 500  # the cost grows with the cube of pairs x latent
DRAWS = 400  # common to all users, so that nobody hangs on the others; with 100 the share moves by .02
USERS_AT_ONCE = 50


class Prior(NamedTuple):
    """The kernel's variances (level, line, bend), the noise, and the length of the bend."""

    level: float
    line: float
    bend: float
    noise: float
    length: float


def expected_bend(here: Gaussian, there: Gaussian, *, length: float) -> Float[np.ndarray, "here there"]:
    r"""$E \exp(-\lVert x - x' \rVert^2 / 2 \ell^2)$ for independent $x \sim N(m, C)$ and $x' \sim N(m', C')$.

    $\lvert I + S / \ell^2 \rvert^{-1/2} \exp(-\frac12 (m - m')^\top (\ell^2 I + S)^{-1} (m - m'))$ with $S = C + C'$.
    """
    mean, other = (np.asarray(side.mean, float) for side in (here, there))
    spread = np.asarray(here.covariance, float)[:, None] + np.asarray(there.covariance, float)[None]
    factor = np.linalg.cholesky(spread / length**2 + np.eye(mean.shape[1]))
    apart = np.linalg.solve(factor, ((mean[:, None] - other[None]) / length)[..., None])[..., 0]
    log_determinant = 2 * np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
    return np.exp(-0.5 * np.sum(apart**2, axis=-1) - 0.5 * log_determinant)


def prior_covariance(source: Gaussian, bend: Float[np.ndarray, "pairs pairs"], prior: Prior):
    """Of one coordinate of the pairs' target interests, and what it is the sum of: [pairs, pairs], [4, pairs, pairs].

    A user with itself has the kernel's own expectation, so that not knowing x makes f(x) vary more.
    """
    mean, own = np.asarray(source.mean, float), np.trace(np.asarray(source.covariance), axis1=1, axis2=2)
    bend = bend + np.diag(1 - np.diag(bend))
    parts = np.stack([np.ones_like(bend), mean @ mean.T + np.diag(own), bend, np.eye(len(mean))])
    return np.tensordot(np.array(prior[:4]), parts, 1), parts


def negative_log_evidence(
    log_variances: Float[np.ndarray, "4"],
    source: Gaussian,
    bend: Float[np.ndarray, "pairs pairs"],
    roots: Float[np.ndarray, "pairs latent latent"],
    shift: Float[np.ndarray, "pairs latent"],
) -> tuple[float, Float[np.ndarray, "4"]]:
    r"""Of the pairs' target clicks, in nats up to a constant: $\frac12 \log \lvert M \rvert + \frac12 y^\top M^{-1} y$.

    The target evidence of a pair, $\exp(h^\top z - z^\top P z / 2)$ with $P = L L^\top$, is that of seeing
    $y = L^{-1} h$ with unit noise at $L^\top z$, so $M = I + L^\top (K \otimes I) L$ with K the covariance of one
    coordinate. Returned with its gradient.
    """
    prior = Prior(*np.exp(log_variances), 1.0)
    covariance, parts = prior_covariance(source, bend, prior)
    inverse, log_determinant, weights, seen = _solve(covariance, roots, shift)
    # The trace over coordinates of L M^-1 L', pair by pair, is all that the derivative by K needs.
    trace = np.einsum("iab,ibjc,jac->ij", roots, inverse, roots, optimize=True)
    slope = 0.5 * (trace - weights @ weights.T)
    gradient = np.einsum("ij,kij->k", slope, parts) * np.array(prior[:4])
    return 0.5 * (log_determinant + seen), gradient


def _solve(covariance, roots, shift):
    r"""M's inverse in blocks, its log-determinant, $L M^{-1} y$ and $y^\top M^{-1} y$."""
    from scipy import linalg

    pairs, latent = shift.shape
    matrix = np.einsum("iab,ij,jac->ibjc", roots, covariance, roots, optimize=True).reshape(pairs * latent, -1)
    matrix[np.diag_indices(len(matrix))] += 1
    factor = linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    inverse = linalg.lapack.dpotri(factor, lower=True)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    seen = np.linalg.solve(roots, shift[..., None]).ravel()
    solution = inverse @ seen
    weights = np.einsum("iab,ib->ia", roots, solution.reshape(pairs, latent))
    return inverse.reshape(pairs, latent, pairs, latent), log_determinant, weights, float(seen @ solution)


class GaussianProcessTransfer(NamedTuple):
    """A fitted recommender for users of the source who are new in the target; its scores are expected gains.

    ``weights`` and ``spread`` turn a user's kernel with the pairs into the mean of f and into what the pairs took off
    its prior variance (averaged over coordinates).
    """

    source: FactorModel
    target: FactorModel
    prior: Prior
    pairs: Gaussian
    weights: Float[Array, "pairs latent"]
    spread: Float[Array, "pairs pairs"]
    clicks: Float[Array, " users"]
    key: Key

    def believe(self, history: History) -> Float[Array, "users draws latent"]:
        """Draws of each user's interest in the target: of the source interest, then of f there, then of the noise."""
        known = belief(evidence_of(self.source, history.source))
        return _draw(self.prior, self.pairs, self.weights, self.spread, known, self.key)

    def __call__(self, history: History, *, gain: str = "NDCG@10") -> np.ndarray:
        """Scores [users, items]: the expected gain of every item for the metric named."""
        return np.asarray(expected_gains(self.target, self.believe(history), self.clicks, key=self.key)[gain])


def fit_gaussian_process(
    train: TrainingData,
    *,
    key: Key,
    latent: int = 8,
    lengths: Sequence[float] = LENGTHS,
    factor_models: Callable[..., FactorModel] | None = None,
) -> GaussianProcessTransfer:
    """Fit both domains' factor models, then the process on the overlapping users; a ``FitMethod``.

    Args:
        train: the training data of one direction. Of more than 500 overlapping users, 500 are drawn for the process.
        latent: dimensions of the interests.
        lengths: those of the bend to choose from.
        factor_models: those of ``domain_factor_models``, to share them with other methods; fitted anew if None.

    Raises:
        ValueError: no length to choose from.
    """
    from scipy.optimize import minimize

    if not len(lengths):
        raise ValueError("lengths: got none, expected at least one")
    keys = named_keys(key, "pairs", "score")
    factor_models = factor_models or domain_factor_models(latent)
    here, there = factor_models(train.source, key=key), factor_models(train.target, key=key)
    users = np.sort(numpy_generator(keys["pairs"]).permutation(train.overlapping_users)[:MOST_PAIRS])
    source = belief(evidence_of(here, train.source.select(users).counts))
    roots, shift = _roots(evidence_of(there, train.target.select(users).counts))
    best = None
    for length in lengths:
        bend = expected_bend(source, source, length=length)
        start = np.log(START) if best is None else best[0].x  # the lengths' optima lie close together
        found = minimize(
            negative_log_evidence, start, args=(source, bend, roots, shift), jac=True, method="L-BFGS-B",
            bounds=[(-9, 3)] * 4, options={"maxiter": 15, "ftol": 1e-5},
        )  # fmt: skip
        if best is None or found.fun < best[0].fun:
            best = found, length, bend
    found, length, bend = best
    prior = Prior(*map(float, np.exp(found.x)), length)
    covariance, _ = prior_covariance(source, bend, prior)
    inverse, _, weights, _ = _solve(covariance, roots, shift)
    spread = np.einsum("iab,ibjc,jac->ij", roots, inverse, roots, optimize=True) / latent
    clicks = np.asarray(train.target.counts.sum(axis=1), np.float32)
    arrays = (jnp.asarray(array, jnp.float32) for array in (weights, spread, clicks))
    return GaussianProcessTransfer(here, there, prior, source, *arrays, keys["score"])


def _roots(evidence: Evidence):
    """L with $P = L L^\\top$, and h, of each user; directions of which nothing is known get a trace of precision."""
    precision = np.maximum(np.asarray(evidence.precision, float), 1e-4)
    axes = np.asarray(evidence.axes, float)
    return axes * np.sqrt(precision)[:, None, :], np.einsum("nij,nj->ni", axes, np.asarray(evidence.shift, float))


@jax.jit
def _draw(prior: Prior, pairs: Gaussian, weights, spread, known: Gaussian, key: Key):
    keys = named_keys(key, "source", "target")
    latent = pairs.mean.shape[1]
    noise = jax.random.normal(keys["source"], (DRAWS, latent))  # the same for all: nobody hangs on the others
    beyond = jax.random.normal(keys["target"], (DRAWS, latent))
    precision = jnp.linalg.inv(pairs.covariance + prior.length**2 * jnp.eye(latent))
    height = -0.5 * jnp.linalg.slogdet(pairs.covariance / prior.length**2 + jnp.eye(latent))[1]
    towards = jnp.einsum("nij,nj->ni", precision, pairs.mean)

    def one(known):
        interests = known.mean + noise @ jnp.linalg.cholesky(known.covariance).T
        squares = (interests[:, :, None] * interests[:, None, :]).reshape(DRAWS, -1) @ precision.reshape(
            -1, latent**2
        ).T
        distance = squares - 2 * interests @ towards.T + jnp.sum(towards * pairs.mean, axis=1)
        kernel = prior.level + prior.line * interests @ pairs.mean.T + prior.bend * jnp.exp(height - 0.5 * distance)
        own = prior.level + prior.line * jnp.sum(interests**2, axis=1) + prior.bend
        variance = jnp.maximum(own - jnp.sum(kernel @ spread * kernel, axis=1), 0) + prior.noise
        return kernel @ weights + jnp.sqrt(variance)[:, None] * beyond

    return jax.lax.map(one, known, batch_size=USERS_AT_ONCE)

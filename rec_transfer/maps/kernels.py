r"""Aligners that bend with the data: a linear map plus radial bumps, one at each overlapping user.

Both are $f(z) = \sum_i \alpha_i k(z, z_i) + b$ with $k$ a linear plus an RBF kernel, on source latents that were given
mean zero and standard deviation one. Their slope is known in closed form, so that covariances pass as in ``alignment``.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import linalg

from rec_transfer.maps.base import residual_covariance
from rec_transfer.maps.ridge import PENALTIES
from rec_transfer.types import Gaussian, Key, Pairs, Unpaired

Numbers: TypeAlias = np.ndarray | Array
LEAST_PAIRS = 10
LENGTHS = (1.0, 2.0, 4.0)  # length scales, times the root of the number of latents
AMPLITUDES = (0.0, 0.3, 1.0, 3.0)  # variance of the bumps beside that of the linear part; none is the linear map
NOISES = (0.1, 0.3, 1.0)  # what the map leaves unexplained, in variances of the target latent
LEAST_EVIDENCE = 0.02  # a target posterior as wide as the prior would be an observation with infinite noise


def _variances(covariance: Float[Numbers, "*users latent latent"]) -> Float[Numbers, "*users latent"]:
    return jnp.diagonal(covariance, axis1=-2, axis2=-1)


@jax.jit
def expected_kernel(x: Gaussian, others: Gaussian, length, amplitude) -> Float[Numbers, "users others"]:
    r"""$E\, k(z, z')$ for independent $z \sim N(m, \mathrm{diag}\,s)$, $z' \sim N(m', \mathrm{diag}\,s')$ of d latents.

    With $k(z, z') = z^\top z' / d + a \exp(-\|z - z'\|^2 / 2 \ell^2)$ it is $m^\top m' / d + a \prod_j
    (1 + v_j / \ell^2)^{-1/2} \exp(-(m_j - m'_j)^2 / 2 (\ell^2 + v_j))$, $v = s + s'$ (Girard et al. 2003). Without
    covariance it is k. Of the covariances the diagonals count, which is all that an encoder gives.
    """
    spread = length**2 + _variances(x.covariance)[:, None] + _variances(others.covariance)
    apart = x.mean[:, None] - others.mean
    bump = jnp.exp(-0.5 * jnp.sum(apart**2 / spread + jnp.log(spread / length**2), axis=-1))
    return x.mean @ others.mean.T / x.mean.shape[1] + amplitude * bump


class KernelMap(NamedTuple):
    r"""$\mu \mapsto \sum_i \alpha_i\, E\,k(z, z_i) + b$, $\Sigma \mapsto A \Sigma A^\top + R$, A the slope in $\mu$.

    The weights alpha, the length and the amplitude differ from one target latent to the next. ``blur`` is 1 where the
    kernel is averaged over the user's posterior and 0 where it is taken at its mean.
    """

    centres: Gaussian
    weights: Float[Numbers, "pairs latent_t"]
    lengths: Float[Numbers, " latent_t"]
    amplitudes: Float[Numbers, " latent_t"]
    intercept: Float[Numbers, " latent_t"]
    shift: Float[Numbers, " latent_s"]
    scale: Float[Numbers, " latent_s"]
    blur: Float[Numbers, ""]
    residual: Float[Numbers, "latent_t latent_t"]

    def mean_and_slope(
        self, belief: Gaussian
    ) -> tuple[Float[Numbers, "users latent_t"], Float[Numbers, "users latent_t latent_s"]]:
        r"""Slope: $\partial k / \partial m = m' / d - a\, \mathrm{bump} \cdot (m - m') / (\ell^2 + v)$, weighted."""
        belief = standardised(belief._replace(covariance=self.blur * belief.covariance), self.shift, self.scale)
        latent = belief.mean.shape[1]
        spread = _variances(belief.covariance)[:, None] + _variances(self.centres.covariance)
        apart = belief.mean[:, None] - self.centres.mean

        def one(column):
            weights, length, amplitude, intercept = column
            kernel = expected_kernel(belief, self.centres, length, amplitude)
            bump = kernel - belief.mean @ self.centres.mean.T / latent
            bend = jnp.einsum("ui,uij->uj", bump * weights, apart / (length**2 + spread))
            return kernel @ weights + intercept, (weights @ self.centres.mean / latent - bend) / self.scale

        mean, slope = jax.lax.map(one, (self.weights.T, self.lengths, self.amplitudes, self.intercept))
        return mean.T, jnp.swapaxes(slope, 0, 1)

    def __call__(self, belief: Gaussian) -> Gaussian:
        mean, slope = self.mean_and_slope(belief)
        return Gaussian(mean, slope @ belief.covariance @ jnp.swapaxes(slope, 1, 2) + self.residual)


def standardised(belief: Gaussian, shift: Float[Numbers, " latent"], scale: Float[Numbers, " latent"]) -> Gaussian:
    """The Gaussians of $(z - \\text{shift}) / \\text{scale}$."""
    return Gaussian((belief.mean - shift) / scale, belief.covariance / (scale[:, None] * scale))


def _prepare(pairs: Pairs) -> tuple[Gaussian, np.ndarray, np.ndarray]:
    if len(pairs.source.mean) < LEAST_PAIRS:
        raise ValueError(f"pairs: got {len(pairs.source.mean)} users, expected at least {LEAST_PAIRS}")
    mean = np.asarray(pairs.source.mean, np.float64)
    shift, scale = mean.mean(axis=0), np.maximum(mean.std(axis=0), 1e-6)
    source = Gaussian(mean, np.asarray(pairs.source.covariance, np.float64))
    return Gaussian(*map(np.asarray, standardised(source, shift, scale))), shift, scale


def _finish(pairs: Pairs, held_out: np.ndarray, **fitted) -> KernelMap:
    """The map in single precision, with the residual that its leave-one-out predictions give."""
    blank = np.zeros(pairs.target.covariance.shape[1:])
    aligner = jax.tree.map(lambda part: jnp.asarray(part, jnp.float32), KernelMap(residual=blank, **fitted))
    slopes = np.asarray(aligner.mean_and_slope(pairs.source)[1], np.float64)
    return aligner._replace(residual=jnp.asarray(residual_covariance(pairs, held_out, slopes), jnp.float32))


# --- kernel ridge
class KernelRidge(NamedTuple):
    r"""$\hat y = K \alpha + b$, and what it predicts for each row when fitted without it."""

    weights: Float[Numbers, "rows outputs"]
    intercept: Float[Numbers, " outputs"]
    left_out: Float[Numbers, "rows outputs"]


def kernel_ridge(
    kernel: Float[Numbers, "rows rows"], y: Float[Numbers, "rows outputs"], penalties=PENALTIES
) -> list[KernelRidge]:
    r"""$\min_{f, b} \sum_i (y_i - f(x_i) - b)^2 + \lambda \|f\|^2$, for each penalty.

    With $H = I - 11^\top / n$: $\alpha = (HKH + \lambda I)^{-1} H y$, $b = \bar y - \overline{K \alpha}$. Row i's
    residual when left out is $(y_i - \hat y_i) / (1 - h_i)$, $h_i$ the diagonal of
    $\frac1n + HKH (HKH + \lambda I)^{-1}$ (as for ridge; Schölkopf and Smola 2002).
    """
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    values, vectors = np.linalg.eigh(centred)
    values, rotated = np.maximum(values, 0.0), vectors.T @ (y - y.mean(axis=0))
    fits = []
    for penalty in penalties:
        weights = (vectors / (values + penalty)) @ rotated
        leverage = 1 / len(y) + vectors**2 @ (values / (values + penalty))
        left_out = y - penalty * weights / np.maximum(1 - leverage, 1e-9)[:, None]
        fits.append(KernelRidge(weights, y.mean(axis=0) - (kernel @ weights).mean(axis=0), left_out))
    return fits


def fit_kernel_ridge_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode=None, key: Key | None = None
) -> KernelMap:
    """Kernel ridge between posterior means: length, amplitude of the bumps and lambda by exact leave-one-out error.

    Without bumps, one of the choices, it is the ridge map on standardised latents. Only ``pairs`` is used; it is
    deterministic.

    Raises:
        ValueError: fewer than ten pairs.
    """
    source, shift, scale = _prepare(pairs)
    y, latent = np.asarray(pairs.target.mean, np.float64), source.mean.shape[1]
    certain = Gaussian(source.mean, np.zeros_like(source.covariance))
    best, least = None, np.inf
    for length in np.sqrt(latent) * np.asarray(LENGTHS):
        for amplitude in AMPLITUDES:
            kernel = np.asarray(expected_kernel(certain, certain, length, amplitude), np.float64)
            for fit in kernel_ridge(kernel, y):
                error = np.mean((fit.left_out - y) ** 2)
                if error < least:
                    best, least = (fit, length, amplitude), error
    fit, length, amplitude = best
    same = np.ones(y.shape[1])
    return _finish(
        pairs, fit.left_out, centres=certain, weights=fit.weights, lengths=length * same, amplitudes=amplitude * same,
        intercept=fit.intercept, shift=shift, scale=scale, blur=0.0,
    )  # fmt: skip


# --- Gaussian process
def log_marginal(covariance: Float[Numbers, "rows rows"], y: Float[Numbers, " rows"]) -> float:
    r"""$\log N(y; 0, C)$ in nats (Rasmussen and Williams 2006, equation 2.30)."""
    factor = linalg.cholesky(covariance, lower=True)
    white = linalg.solve_triangular(factor, y, lower=True)
    return float(-0.5 * white @ white - np.sum(np.log(np.diag(factor))) - 0.5 * len(y) * np.log(2 * np.pi))


def condition(
    covariance: Float[Numbers, "rows rows"], y: Float[Numbers, " rows"]
) -> tuple[Float[Numbers, " rows"], Float[Numbers, " rows"]]:
    r"""$C^{-1} y$, and y's leave-one-out predictions $y_i - [C^{-1} y]_i / [C^{-1}]_{ii}$ (equation 5.12 there)."""
    inverse = np.linalg.inv(covariance)
    return inverse @ y, y - inverse @ y / np.diag(inverse)


def prior_covariance(source: Gaussian, length, amplitude) -> Float[Numbers, "users users"]:
    r"""Covariance of $f(z_i)$ with uncertain inputs: ``expected_kernel``, but on the diagonal both inputs are the same.

    There it is $E\,k(z, z) = (m^\top m + \mathrm{tr}\,S) / d + a$: what a vague input hides acts as noise.
    """
    covariance = np.array(expected_kernel(source, source, length, amplitude), np.float64)
    size = np.sum(source.mean**2, axis=1) + np.trace(source.covariance, axis1=1, axis2=2)
    np.fill_diagonal(covariance, size / source.mean.shape[1] + amplitude)
    return covariance


def fit_gaussian_process_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode=None, key: Key | None = None
) -> KernelMap:
    r"""A Gaussian process per target latent: inputs as uncertain as the source posteriors, noise as the target's.

    A target posterior of variance s is the prior N(0, 1) and an observation $\mu / (1 - s)$ with noise $s / (1 - s)$;
    to that comes the noise of the map itself. Length, amplitude and that noise are, for each latent, those of the
    highest marginal likelihood on a small grid. Only ``pairs`` is used; it is deterministic.

    Raises:
        ValueError: fewer than ten pairs.
    """
    source, shift, scale = _prepare(pairs)
    evidence = np.maximum(1 - np.asarray(_variances(pairs.target.covariance), np.float64), LEAST_EVIDENCE)
    observed, noise = np.asarray(pairs.target.mean, np.float64) / evidence, 1 / evidence - 1
    intercept = (evidence * observed).sum(axis=0) / evidence.sum(axis=0)
    best: list[tuple[float, Any, float, float]] = [(-np.inf, None, 0.0, 0.0)] * observed.shape[1]
    for length in np.sqrt(source.mean.shape[1]) * np.asarray(LENGTHS):
        for amplitude in AMPLITUDES:
            prior = prior_covariance(source, length, amplitude)
            for extra in NOISES:
                for latent, y in enumerate((observed - intercept).T):
                    covariance = prior + np.diag(noise[:, latent] + extra)
                    best[latent] = max(
                        best[latent], (log_marginal(covariance, y), covariance, length, amplitude), key=lambda b: b[0]
                    )
    _, covariances, lengths, amplitudes = zip(*best, strict=True)
    pieces = [condition(covariance, y) for covariance, y in zip(covariances, (observed - intercept).T, strict=True)]
    weights, left_out = zip(*pieces, strict=True)
    return _finish(
        pairs, np.stack(left_out, axis=1) + intercept, centres=source, weights=np.stack(weights, axis=1),
        lengths=np.array(lengths), amplitudes=np.array(amplitudes), intercept=intercept, shift=shift, scale=scale,
        blur=1.0,
    )  # fmt: skip

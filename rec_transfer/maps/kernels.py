r"""Maps that bend with the data: a linear map plus a radial bump at each overlapping user.

Both are $f(z) = \sum_i \alpha_i k(z, z_i) + b$, where $k$ is a linear plus an RBF kernel. The source latents are first
standardised to mean zero and standard deviation one. The slope of f is known in closed form, so covariances are mapped
as in ``maps.base``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import linalg

from rec_transfer.maps.base import Numbers, check_pairs, in_double, residual_covariance
from rec_transfer.maps.ridge import PENALTIES
from rec_transfer.types import Gaussian, Key, Pairs, Unpaired

Scalar = float | Float[Numbers, ""]
LENGTHS = (1.0, 2.0, 4.0)  # times the square root of the number of latents
AMPLITUDES = (0.0, 0.3, 1.0, 3.0)  # variance of the bumps beside that of the linear part; none is the linear map
NOISE_VARIANCES = (0.1, 0.3, 1.0)  # what the map leaves unexplained, in variances of the target latent
MIN_EVIDENCE = 0.02  # a target posterior as wide as the prior would have infinite noise


def _variances(covariance: Float[Numbers, "*users latent latent"]) -> Float[Numbers, "*users latent"]:
    return jnp.diagonal(covariance, axis1=-2, axis2=-1)


@jax.jit
def expected_kernel(x: Gaussian, others: Gaussian, length: Scalar, amplitude: Scalar) -> Float[Numbers, "users others"]:
    r"""Return $E\, k(z, z')$ for independent $z \sim N(m, \mathrm{diag}\,s)$, $z' \sim N(m', \mathrm{diag}\,s')$.

    With d latents and $k(z, z') = z^\top z' / d + a \exp(-\|z - z'\|^2 / 2 \ell^2)$ it is $m^\top m' / d + a \prod_j (1
    + v_j / \ell^2)^{-1/2} \exp(-(m_j - m'_j)^2 / 2 (\ell^2 + v_j))$, $v = s + s'$ (Girard et al. 2003). Without
    covariance it is k. Only the diagonals of the covariances are used; an encoder gives no more.

    Args:
        x, others: z and z'.
        length: $\ell$, in units of the latents.
        amplitude: a, the variance of the bumps.
    """
    spread = length**2 + _variances(x.covariance)[:, None] + _variances(others.covariance)
    apart = x.mean[:, None] - others.mean
    bump = jnp.exp(-0.5 * jnp.sum(apart**2 / spread + jnp.log(spread / length**2), axis=-1))
    return x.mean @ others.mean.T / x.mean.shape[1] + amplitude * bump


class KernelMap(NamedTuple):
    r"""Map posteriors by $\mu \mapsto \sum_i \alpha_i\, E\,k(z, z_i) + b$, $\Sigma \mapsto A \Sigma A^\top + R$.

    A is the slope in $\mu$. Each target latent has its own weights $\alpha$, length and amplitude. ``blur`` is 1 if the
    kernel is averaged over the user's posterior and 0 if it is taken at the posterior mean.
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
        self, posterior: Gaussian
    ) -> tuple[Float[Numbers, "users latent_t"], Float[Numbers, "users latent_t latent_s"]]:
        r"""Return the mapped means, and their derivatives by the source means.

        The slope is the weighted sum of $\partial k / \partial m = m' / d - a\, \mathrm{bump} \cdot (m - m') / (\ell^2
        + v)$.
        """
        posterior = standardise_gaussian(
            posterior._replace(covariance=self.blur * posterior.covariance), self.shift, self.scale
        )
        latent = posterior.mean.shape[1]
        spread = _variances(posterior.covariance)[:, None] + _variances(self.centres.covariance)
        apart = posterior.mean[:, None] - self.centres.mean

        def one(column):
            weights, length, amplitude, intercept = column
            kernel = expected_kernel(posterior, self.centres, length, amplitude)
            bump = kernel - posterior.mean @ self.centres.mean.T / latent
            bend = jnp.einsum("ui,uij->uj", bump * weights, apart / (length**2 + spread))
            return kernel @ weights + intercept, (weights @ self.centres.mean / latent - bend) / self.scale

        mean, slope = jax.lax.map(one, (self.weights.T, self.lengths, self.amplitudes, self.intercept))
        return mean.T, jnp.swapaxes(slope, 0, 1)

    def __call__(self, posterior: Gaussian) -> Gaussian:
        """Return the mapped posteriors."""
        mean, slope = self.mean_and_slope(posterior)
        return Gaussian(mean, slope @ posterior.covariance @ jnp.swapaxes(slope, 1, 2) + self.residual)


def standardise_gaussian(
    posterior: Gaussian, shift: Float[Numbers, " latent"], scale: Float[Numbers, " latent"]
) -> Gaussian:
    r"""Return the Gaussians of $(z - \text{shift}) / \text{scale}$."""
    return Gaussian((posterior.mean - shift) / scale, posterior.covariance / (scale[:, None] * scale))


def _standardised_source(pairs: Pairs) -> tuple[Gaussian, np.ndarray, np.ndarray]:
    """Return the standardised source posteriors in double precision, with their shift and scale."""
    check_pairs(pairs)
    source = in_double(pairs.source)
    shift, scale = source.mean.mean(axis=0), np.maximum(source.mean.std(axis=0), 1e-6)
    return Gaussian(*map(np.asarray, standardise_gaussian(source, shift, scale))), shift, scale


def _with_residual(pairs: Pairs, held_out: np.ndarray, **fitted) -> KernelMap:
    """Return the map in single precision, with the residual of its leave-one-out predictions."""
    blank = np.zeros(pairs.target.covariance.shape[1:])
    fitted_map = jax.tree.map(lambda part: jnp.asarray(part, jnp.float32), KernelMap(residual=blank, **fitted))
    slopes = np.asarray(fitted_map.mean_and_slope(pairs.source)[1], np.float64)
    return fitted_map._replace(residual=jnp.asarray(residual_covariance(pairs, held_out, slopes), jnp.float32))


# --- kernel ridge
class KernelRidge(NamedTuple):
    r"""The fitted $\hat y = K \alpha + b$, and its prediction for each row when fitted without that row."""

    weights: Float[Numbers, "rows outputs"]
    intercept: Float[Numbers, " outputs"]
    left_out: Float[Numbers, "rows outputs"]


def kernel_ridge(
    kernel: Float[Numbers, "rows rows"], y: Float[Numbers, "rows outputs"], penalties: Sequence[float] = PENALTIES
) -> list[KernelRidge]:
    r"""Fit $\min_{f, b} \sum_i (y_i - f(x_i) - b)^2 + \lambda \|f\|^2$ for each penalty.

    With $H = I - 11^\top / n$: $\alpha = (HKH + \lambda I)^{-1} H y$, $b = \bar y - \overline{K \alpha}$. The residual
    of row i when left out is $(y_i - \hat y_i) / (1 - h_i)$, $h_i$ the diagonal of $\frac1n + HKH (HKH + \lambda
    I)^{-1}$ (as for ridge; Schölkopf and Smola 2002).

    Args:
        kernel: K, between the rows.
        y: outputs, row by row.
        penalties: the lambdas.
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
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key | None = None
) -> KernelMap:
    """Fit kernel ridge between posterior means; the exact leave-one-out error chooses length, amplitude and lambda.

    An amplitude of zero, one of the choices, gives the ridge map on standardised latents. The fit uses only ``pairs``
    and is deterministic.

    Raises:
        ValueError: there are fewer than ten pairs.
    """
    source, shift, scale = _standardised_source(pairs)
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
    fitted = {"centres": certain, "weights": fit.weights, "intercept": fit.intercept, "shift": shift, "scale": scale}
    return _with_residual(pairs, fit.left_out, **fitted, lengths=length * same, amplitudes=amplitude * same, blur=0.0)


# --- Gaussian process
def log_normal_density(covariance: Float[Numbers, "rows rows"], y: Float[Numbers, " rows"]) -> float:
    r"""Return $\log N(y; 0, C)$ in nats, the log marginal likelihood of a Gaussian process.

    Rasmussen and Williams 2006, equation 2.30.
    """
    factor = linalg.cholesky(covariance, lower=True)
    white = linalg.solve_triangular(factor, y, lower=True)
    return float(-0.5 * white @ white - np.sum(np.log(np.diag(factor))) - 0.5 * len(y) * np.log(2 * np.pi))


def condition(
    covariance: Float[Numbers, "rows rows"], y: Float[Numbers, " rows"]
) -> tuple[Float[Numbers, " rows"], Float[Numbers, " rows"]]:
    """Return $C^{-1} y$, and y's leave-one-out predictions $y_i - [C^{-1} y]_i / [C^{-1}]_{ii}$.

    Rasmussen and Williams 2006, equation 5.12.
    """
    inverse = np.linalg.inv(covariance)
    return inverse @ y, y - inverse @ y / np.diag(inverse)


def expected_covariance(source: Gaussian, length: Scalar, amplitude: Scalar) -> Float[Numbers, "users users"]:
    r"""Return the prior covariance of $f(z_i)$ between users whose inputs $z_i$ are uncertain.

    It is ``expected_kernel``, except on the diagonal, where both inputs are the same: $E\,k(z, z) = (m^\top m +
    \mathrm{tr}\,S) / d + a$. What a wide posterior hides acts as noise.

    Args:
        source: the inputs' posteriors.
        length, amplitude: see ``expected_kernel``.
    """
    covariance = np.array(expected_kernel(source, source, length, amplitude), np.float64)
    size = np.sum(source.mean**2, axis=1) + np.trace(source.covariance, axis1=1, axis2=2)
    np.fill_diagonal(covariance, size / source.mean.shape[1] + amplitude)
    return covariance


def fit_gaussian_process_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key | None = None
) -> KernelMap:
    r"""Fit a Gaussian process per target latent: uncertain inputs, and noise from the target posteriors.

    A target posterior of variance s equals the prior N(0, 1) and an observation $\mu / (1 - s)$ with noise $s / (1 -
    s)$; the map adds noise of its own. For each latent, the marginal likelihood chooses length, amplitude and that
    noise on a small grid. The fit uses only ``pairs`` and is deterministic.

    Raises:
        ValueError: there are fewer than ten pairs.
    """
    source, shift, scale = _standardised_source(pairs)
    evidence = np.maximum(1 - np.asarray(_variances(pairs.target.covariance), np.float64), MIN_EVIDENCE)
    observed, noise = np.asarray(pairs.target.mean, np.float64) / evidence, 1 / evidence - 1
    intercept = (evidence * observed).sum(axis=0) / evidence.sum(axis=0)
    best: list[tuple[float, Any, float, float]] = [(-np.inf, None, 0.0, 0.0)] * observed.shape[1]
    for length in np.sqrt(source.mean.shape[1]) * np.asarray(LENGTHS):
        for amplitude in AMPLITUDES:
            prior = expected_covariance(source, length, amplitude)
            for extra in NOISE_VARIANCES:
                for latent, y in enumerate((observed - intercept).T):
                    covariance = prior + np.diag(noise[:, latent] + extra)
                    best[latent] = max(
                        best[latent],
                        (log_normal_density(covariance, y), covariance, length, amplitude),
                        key=lambda b: b[0],
                    )
    _, covariances, lengths, amplitudes = zip(*best, strict=True)
    pieces = [condition(covariance, y) for covariance, y in zip(covariances, (observed - intercept).T, strict=True)]
    weights, left_out = (np.stack(part, axis=1) for part in zip(*pieces, strict=True))
    fitted = {"centres": source, "weights": weights, "intercept": intercept, "shift": shift, "scale": scale}
    lengths, amplitudes = np.array(lengths), np.array(amplitudes)
    return _with_residual(pairs, left_out + intercept, **fitted, lengths=lengths, amplitudes=amplitudes, blur=1.0)

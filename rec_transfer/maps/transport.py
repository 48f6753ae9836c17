r"""Closed-form maps between the distributions of two domains' interests, each taken as one Gaussian.

The distribution of a domain is the aggregated posterior of its unpaired users, $\frac1n \sum_i N(\mu_i, \Sigma_i)$.
Matching needs no overlapping user and does not say which user corresponds to which: any map that follows a transport by
a symmetry of the target distribution matches as well.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from rec_transfer.maps.base import LinearMap, check_pairs, in_double, residual_covariance
from rec_transfer.types import Gaussian, Key, Pairs, Unpaired


def moments(posterior: Gaussian) -> tuple[Float[np.ndarray, " latent"], Float[np.ndarray, "latent latent"]]:
    r"""Return mean and covariance of the aggregated posterior.

    They are $\bar\mu$ and $\mathrm{Cov}(\mu_i) + \overline{\Sigma_i}$.
    """
    mean, covariance = in_double(posterior)
    centred = mean - mean.mean(axis=0)
    return mean.mean(axis=0), centred.T @ centred / len(mean) + covariance.mean(axis=0)


def matrix_power(matrix: Float[np.ndarray, "latent latent"], exponent: float) -> Float[np.ndarray, "latent latent"]:
    r"""Return $S^p = U \mathrm{diag}(d^p) U^\top$ of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-9) ** exponent) @ vectors.T


def transport_matrix(
    source: Float[np.ndarray, "latent latent"], target: Float[np.ndarray, "latent latent"]
) -> Float[np.ndarray, "latent latent"]:
    r"""Return the matrix of the optimal transport between two Gaussians with covariances $S_s$ and $S_t$.

    $A = S_s^{-1/2} (S_s^{1/2} S_t S_s^{1/2})^{1/2} S_s^{-1/2}$. Of all matrices with $A S_s A^\top = S_t$ it is the
    only symmetric positive definite one. It is therefore the gradient of a convex function and optimal for squared
    distance (Monge map; Knott and Smith 1984; Peyré and Cuturi 2019, section 2.6).
    """
    root, inverse = matrix_power(source, 0.5), matrix_power(source, -0.5)
    return inverse @ matrix_power(root @ target @ root, 0.5) @ inverse


def recolouring_matrix(
    source: Float[np.ndarray, "latent latent"], target: Float[np.ndarray, "latent latent"]
) -> Float[np.ndarray, "latent latent"]:
    r"""Return $A = S_t^{1/2} S_s^{-1/2}$, which whitens the source and recolours it as the target.

    This is CORAL (Sun, Feng and Saenko 2016) without the identity that they add to each covariance. It also has $A S_s
    A^\top = S_t$, but is symmetric, and the optimal transport, only if the two covariances commute.
    """
    return matrix_power(target, 0.5) @ matrix_power(source, -0.5)


def _match_moments(pairs: Pairs, unpaired: Unpaired | None, matrix_between: Callable) -> LinearMap:
    """Return the affine map that takes the source's mean and covariance to the target's, by the matrix asked for."""
    check_enough(pairs, unpaired)
    (source_mean, source), (target_mean, target) = (moments(side) for side in unpaired)
    matrix = matrix_between(source, target)
    intercept = target_mean - matrix @ source_mean
    predicted = np.asarray(pairs.source.mean) @ matrix.T + intercept  # the map was fitted without the pairs
    return LinearMap(matrix.T, intercept, residual_covariance(pairs, predicted, matrix))


def check_enough(pairs: Pairs, unpaired: Unpaired | None) -> None:
    """Raise if there are too few pairs to measure a residual, or too few unpaired users to measure a covariance."""
    check_pairs(pairs, 2, " to measure the residual")
    found, latent = min(len(side.mean) for side in unpaired) if unpaired else 0, pairs.source.mean.shape[1]
    if found <= latent:
        raise ValueError(
            f"unpaired: got {found} users in one of the domains, expected more than the {latent} latents in each"
        )


def fit_wasserstein_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key | None = None
) -> LinearMap:
    """Fit the optimal transport between the two distributions, each taken as one Gaussian (``transport_matrix``).

    The map depends only on ``unpaired``; the pairs measure its residual. The fit is deterministic.

    Raises:
        ValueError: a domain has no more unpaired users than latents, or there are fewer than two pairs.
    """
    return _match_moments(pairs, unpaired, transport_matrix)


def fit_coral_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key | None = None
) -> LinearMap:
    """Fit the map that whitens the source and recolours it as the target (``recolouring_matrix``).

    The map depends only on ``unpaired``; the pairs measure its residual. The fit is deterministic.

    Raises:
        ValueError: a domain has no more unpaired users than latents, or there are fewer than two pairs.
    """
    return _match_moments(pairs, unpaired, recolouring_matrix)

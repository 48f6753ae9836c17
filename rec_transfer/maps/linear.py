"""Linear maps in closed form or by EM: ridge, Procrustes, canonical correlation, and a fit that weighs its evidence."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float
from scipy import linalg

from rec_transfer.maps.base import LinearMap, check_pairs, in_double, residual_covariance, split_folds
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.types import Gaussian, Key, Pairs, Unpaired

RANK_TOLERANCE = 1e-6  # times the largest singular value: single precision resolves no more
MIN_VARIANCE = 1e-6  # where an inverse is taken; interests have a variance of about one
EM_STEPS = 50


def fit_ridge_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key | None = None
) -> LinearMap:
    r"""Fit the ridge regression of target on source posterior means; leave-one-out squared error chooses lambda.

    $B = (Z_s^\top Z_s + \lambda I)^{-1} Z_s^\top Z_t$ with users as rows and both sides centred, $A = B^\top$. The fit
    uses only ``pairs`` and is deterministic.

    Raises:
        ValueError: there are fewer than three pairs.
    """
    ridge = fit_ridge(pairs.source.mean, pairs.target.mean)
    residual = residual_covariance(pairs, ridge.left_out, ridge.coefficients.T)
    return LinearMap(ridge.coefficients, ridge.intercept, residual)


class Affine(NamedTuple):
    r"""The function $y = x B + c$, users as rows; its slope is $A = B^\top$."""

    coefficients: Float[np.ndarray, "inputs outputs"]
    intercept: Float[np.ndarray, " outputs"]

    def __call__(self, x: Float[np.ndarray | Array, "rows inputs"]) -> Float[np.ndarray, "rows outputs"]:
        """Return the outputs of the rows of x, in double precision."""
        return np.asarray(x, np.float64) @ self.coefficients + self.intercept


def _held_out_map(pairs: Pairs, fit: Callable[[Gaussian, Gaussian], Affine], *, key: Key) -> LinearMap:
    """Return ``fit(source, target) -> Affine`` of all pairs as a map; folds fitted apart give the residual."""
    check_pairs(pairs)
    source, target = (in_double(side) for side in (pairs.source, pairs.target))
    held_out = np.zeros(target.mean.shape)
    for rest, fold in split_folds(len(held_out), key=key):
        part = fit(Gaussian(*(x[rest] for x in source)), Gaussian(*(y[rest] for y in target)))
        held_out[fold] = part(source.mean[fold])
    whole = fit(source, target)
    return LinearMap(*whole, residual_covariance(pairs, held_out, whole.coefficients.T))


# --- Procrustes
def procrustes(x: Float[np.ndarray, "rows inputs"], y: Float[np.ndarray, "rows inputs"]) -> Affine:
    r"""Fit the rotation (or reflection) Q, scale s and shift that bring x closest to y in squared distance.

    With both sides centred and $X^\top Y = U D V^\top$: $Q = U V^\top$, $s = \mathrm{tr} D / \|X\|^2$, $B = s Q$
    (Schönemann 1966; the scale: Schönemann and Carroll 1970).
    """
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    rotation, trace = linalg.orthogonal_procrustes(x - x_mean, y - y_mean)
    coefficients = rotation * (trace / np.sum((x - x_mean) ** 2))
    return Affine(coefficients, y_mean - x_mean @ coefficients)


def fit_procrustes_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key
) -> LinearMap:
    """Fit the best rotation with one scale between the posterior means.

    It has few numbers to learn and cannot bend or stretch the space. The fit uses only ``pairs``; the key splits them
    into the folds that give the residual covariance.

    Raises:
        ValueError: there are fewer than ten pairs, or the domains have different numbers of latents.
    """
    sizes = pairs.source.mean.shape[1], pairs.target.mean.shape[1]
    if sizes[0] != sizes[1]:
        raise ValueError(f"pairs: got {sizes[0]} source and {sizes[1]} target latents, expected as many: a rotation")
    return _held_out_map(pairs, lambda source, target: procrustes(source.mean, target.mean), key=key)


# --- canonical correlation
def canonical_regression(x: Float[np.ndarray, "rows inputs"], y: Float[np.ndarray, "rows outputs"]) -> list[Affine]:
    r"""Fit y from the k leading canonical directions of x; return one function for every k from none to all.

    With both sides centred, $X = U_x D_x V_x^\top$, $Y = U_y D_y V_y^\top$, and $U_x^\top U_y = P C Q^\top$, where C
    holds the canonical correlations: $\hat Y_k = U_x P_k C_k Q_k^\top U_y^\top Y$. At full k this is least squares
    (Hotelling 1936; as reduced-rank regression: Izenman 1975).
    """
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x_left, x_values, x_right = _thin_svd(x - x_mean)
    y_left, y_values, y_right = _thin_svd(y - y_mean)
    left, correlations, right = np.linalg.svd(x_left.T @ y_left, full_matrices=False)
    whiten, colour = x_right.T / x_values, y_values[:, None] * y_right
    maps = []
    for rank in range(len(correlations) + 1):
        coefficients = whiten @ (left[:, :rank] * correlations[:rank]) @ right[:rank] @ colour
        maps.append(Affine(coefficients, y_mean - x_mean @ coefficients))
    return maps


def _thin_svd(centred):
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    kept = values > RANK_TOLERANCE * values[0]
    return left[:, kept], values[kept], right[kept]


def fit_cca_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key
) -> LinearMap:
    r"""Fit a map that carries the directions most correlated between the domains, by canonical correlation.

    Held-out pairs choose the number of directions. Their squared error is measured where the target means are white,
    $(y - \hat y)^\top S_{yy}^{-1} (y - \hat y)$. No invertible linear change of either side therefore changes what is
    predicted. The fit uses only ``pairs``; the key splits them into folds.

    Raises:
        ValueError: there are fewer than ten pairs.
    """
    check_pairs(pairs)
    x, y = in_double(pairs.source).mean, in_double(pairs.target).mean
    _, values, right = _thin_svd(y - y.mean(axis=0))
    predictions: dict[int, np.ndarray] = {}
    for rest, fold in split_folds(len(x), key=key):
        for rank, part in enumerate(canonical_regression(x[rest], y[rest])):
            predictions.setdefault(rank, np.full(y.shape, np.nan))[fold] = part(x[fold])
    complete = {rank: found for rank, found in predictions.items() if not np.isnan(found).any()}
    errors = {rank: np.sum(((y - found) @ right.T / values) ** 2) for rank, found in complete.items()}
    best = min(errors, key=errors.__getitem__)
    maps = canonical_regression(x, y)
    chosen = maps[min(best, len(maps) - 1)]
    return LinearMap(*chosen, residual_covariance(pairs, predictions[best], chosen.coefficients.T))


# --- errors in both variables
def target_evidence(
    target: Gaussian,
) -> tuple[Float[np.ndarray, "users latent latent"], Float[np.ndarray, "users latent"]]:
    r"""Return what the target clicks say without the prior: precision $P = \Sigma^{-1} - I$ and $h = \Sigma^{-1} \mu$.

    The posterior is prior times likelihood. The prior N(0, I) is divided out, because the map takes its place. A
    direction in which the posterior is no narrower than the prior carries no evidence; precision and shift are zero
    there.
    """
    values, vectors = np.linalg.eigh(target.covariance)
    inverse = np.where(values < 1, 1 / np.maximum(values, MIN_VARIANCE), 0.0)
    precision = (vectors * np.maximum(inverse - 1, 0.0)[:, None]) @ np.swapaxes(vectors, 1, 2)
    shift = np.einsum("nij,nj,nkj,nk->ni", vectors, inverse, vectors, target.mean)
    return precision, shift


def errors_in_variables(source: Gaussian, target: Gaussian, *, penalty: float, steps: int = EM_STEPS) -> Affine:
    r"""Fit $z_t = A z_s + c + e$, $e \sim N(0, R)$, by EM; each interest is known only through its posterior.

    E-step for each pair, from the prediction $m = A \mu_s + c$, $V = A \Sigma_s A^\top + R$ and the target evidence: $S
    = (V^{-1} + P)^{-1}$, $E z_t = S (V^{-1} m + h)$, and with the gain $G = \Sigma_s A^\top V^{-1}$, $E z_s = \mu_s + G
    (E z_t - m)$, $\mathrm{Cov}(z_s) = \Sigma_s + G (S - V) G^\top$, $\mathrm{Cov}(z_s, z_t) = G S$. M-step: ridge
    regression on these moments, penalised by lambda around their mean; R is the covariance of its residuals (Dempster,
    Laird and Rubin 1977; a factor analyser with known loadings on one side: Ghahramani and Hinton 1996).

    Args:
        source, target: the pairs' posteriors.
        penalty: lambda, in pairs.
        steps: EM steps.
    """
    precision, shift = target_evidence(target)
    users, inputs = source.mean.shape
    outputs = target.mean.shape[1]
    matrix, intercept, residual = np.zeros((outputs, inputs)), np.zeros(outputs), np.eye(outputs)
    for _ in range(steps):
        predicted = source.mean @ matrix.T + intercept
        cross = source.covariance @ matrix.T
        spread = matrix @ cross + residual
        after = np.linalg.solve(np.eye(outputs) + spread @ precision, spread)
        z_t = predicted + np.einsum("nij,nj->ni", after, shift - np.einsum("nij,nj->ni", precision, predicted))
        gain = np.swapaxes(np.linalg.solve(spread, np.swapaxes(cross, 1, 2)), 1, 2)
        z_s = source.mean + np.einsum("nij,nj->ni", gain, z_t - predicted)
        s_covariance = source.covariance + gain @ (after - spread) @ np.swapaxes(gain, 1, 2)

        x, y = z_s - z_s.mean(axis=0), z_t - z_t.mean(axis=0)
        xx = x.T @ x + s_covariance.sum(axis=0) + penalty * np.eye(inputs)
        xy = x.T @ y + (gain @ after).sum(axis=0)
        yy = y.T @ y + after.sum(axis=0)
        matrix = np.linalg.solve(xx, xy).T
        intercept = z_t.mean(axis=0) - matrix @ z_s.mean(axis=0)
        residual = (yy - matrix @ xy - xy.T @ matrix.T + matrix @ xx @ matrix.T) / users
        residual = (residual + residual.T) / 2 + MIN_VARIANCE * np.eye(outputs)
    return Affine(matrix.T, intercept)


def fit_weighted_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable | None = None, key: Key, penalty: float = 1.0
) -> LinearMap:
    """Fit the linear map that weighs each pair by how well its interests are known, by ``errors_in_variables``.

    Narrow posteriors count more than wide ones. The fit uses only ``pairs``; the key splits them into the folds that
    give the residual covariance.

    Args:
        penalty: lambda, in pairs: it acts like so many users whose domains are unrelated.

    Raises:
        ValueError: there are fewer than ten pairs, or the penalty is negative.
    """
    if penalty < 0:
        raise ValueError(f"penalty: got {penalty}, expected a number of at least 0")
    return _held_out_map(pairs, lambda source, target: errors_in_variables(source, target, penalty=penalty), key=key)

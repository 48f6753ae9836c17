"""Ridge regression for many penalties at once, with exact leave-one-out predictions for each."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

PENALTIES = tuple(10.0**exponent for exponent in np.arange(-2, 5.01, 0.5))


class Ridge(NamedTuple):
    """The fitted $y = x B + c$, its penalty, and its prediction for each row when fitted without that row."""

    coefficients: Float[np.ndarray, "inputs outputs"]
    intercept: Float[np.ndarray, " outputs"]
    penalty: float
    left_out: Float[np.ndarray, "rows outputs"]


def fit_ridge(
    x: Float[np.ndarray | Array, "rows inputs"],
    y: Float[np.ndarray | Array, "rows outputs"],
    *,
    criterion: Callable[[np.ndarray], float] | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> Ridge:
    r"""Fit a ridge regression, $B = (X^\top X + \lambda I)^{-1} X^\top Y$ with X and Y centred.

    Lambda is the penalty whose leave-one-out predictions maximise the criterion. They need no refitting: row i's
    residual is $(y_i - \hat y_i) / (1 - h_i)$, with $h_i$ the diagonal of the hat matrix $\frac1n + X (X^\top X +
    \lambda I)^{-1} X^\top$ (Allen 1974).

    Args:
        x, y: inputs and outputs, one row per user.
        criterion: leave-one-out predictions [rows, outputs] -> a number to maximise; None is minus the squared error.
        penalties: the lambdas to choose from.

    Raises:
        ValueError: x and y differ in rows, there are fewer than three rows, or the criterion is NaN for every penalty.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) != len(y):
        raise ValueError(f"users in the source and target differ: got {len(x)} and {len(y)} rows")
    if len(x) < 3:
        raise ValueError(f"x: got {len(x)} rows, expected at least 3 to leave one out")
    if criterion is None:

        def criterion(left_out):
            return -np.mean((left_out - y) ** 2)

    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    left, singular, right = np.linalg.svd(x - x_mean, full_matrices=False)
    rotated = left.T @ (y - y_mean)
    best, best_score = None, -np.inf
    for penalty in penalties:
        shrink = singular**2 / (singular**2 + penalty)
        fitted = y_mean + (left * shrink) @ rotated
        leverage = 1 / len(x) + (left**2) @ shrink
        left_out = y - (y - fitted) / np.maximum(1 - leverage, 1e-9)[:, None]
        score = criterion(left_out)
        if score > best_score:
            coefficients = right.T @ ((singular / (singular**2 + penalty))[:, None] * rotated)
            best_score = score
            best = Ridge(coefficients, y_mean - x_mean @ coefficients, float(penalty), left_out)
    if best is None:
        raise ValueError(f"criterion: got no number for any of {len(penalties)} penalties, expected one to choose by")
    return best

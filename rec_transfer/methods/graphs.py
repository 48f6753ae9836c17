"""Methods on one graph of all users and the items of both domains: its first axes, and walks through it."""

import numpy as np
from scipy import sparse

from rec_transfer.keys import once_per_key
from rec_transfer.models.axes import Axes, FitAxes, domain_axes
from rec_transfer.models.forms import beside, both_domains, item_degrees, normalised_graph, unit_rows
from rec_transfer.types import FitMethod, History, Key, Scorer, TrainingData

CHUNK = 256  # users that walk at a time: their rows over the items of both domains are dense


def joint_axes(number: int) -> FitAxes:
    """Return ``fit(train, *, key) -> Axes`` of the graph of both domains, computed once per data and key.

    Candidates that differ in the number of factors share one such function, made for the largest of them.
    """

    def fit(train: TrainingData, *, key: Key) -> Axes:
        return domain_axes(normalised_graph, number)(both_domains(train), key=key)

    return once_per_key(fit)


def stacked_axes(factors: int, *, axes: FitAxes | None = None) -> FitMethod:
    r"""Return the first axes of one graph of all users and the items of both domains: $s = x D_i^{-1/2} V V_t^\top$.

    x has length 1 over the items of both domains (see ``normalised_graph``). The overlapping users hold the two halves
    together, so no map is fitted. Target histories are used where given. The scores were divided by a root of the
    items' popularity: ``with_popularity(..., power=0.5)`` undoes it.

    Args:
        factors: axes used, the first ones.
        axes: ``joint_axes(number)``, to share axes among candidates.
    """
    fit_axes = axes or joint_axes(factors)

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        found, first, items = fit_axes(train, key=key), len(train.source.items), len(train.target.items)
        right = found.right[:, :factors]
        back = right[first:].T

        def score(history: History) -> np.ndarray:
            return (found.rows(beside(*history, items)) @ right).astype(right.dtype) @ back

        return score

    return fit


def diffusion(steps: int) -> FitMethod:
    r"""Return where walks from a user's items end, in one graph of all users and the items of both domains.

    $s = \sum_{k=1}^{K} x D_i^{-1/2} (R^\top R)^k$ with $R = D_u^{-1/2} X D_i^{-1/2}$ (see ``normalised_graph``). k = 1
    counts items that share users with the user's own; every further step goes on to what those users have (the random
    walks of Cooper et al. 2014). Nothing is fitted. No direction of the graph is left out, as its first axes do. The
    popular items, which every walk comes to, stand out more with each step; ``with_popularity(..., power=)`` lifts them
    further. Users walk in chunks, since their rows over all items are dense.

    Args:
        steps: K.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        both, first, items = both_domains(train), len(train.source.items), len(train.target.items)
        scale = sparse.diags_array(item_degrees(both) ** -0.5)
        walk = sparse.csr_array(unit_rows(both.counts) @ scale).astype(np.float32)
        back = sparse.csr_array(walk.T)

        def score(history: History) -> np.ndarray:
            rows = sparse.csr_array(unit_rows(beside(*history, items)) @ scale).astype(np.float32)
            result = np.zeros((rows.shape[0], items), np.float32)
            for start in range(0, rows.shape[0], CHUNK):
                part = rows[start : start + CHUNK].toarray().T
                for _ in range(steps):
                    part = back @ (walk @ part)
                    result[start : start + CHUNK] += part[first:].T
            return result

        return score

    return fit


def with_target_history(method: FitMethod) -> FitMethod:
    """Return a method for users with a target history: the target's columns join the source's, in every history.

    The method's source is then both domains, and its target the target; a target history that is not given is zeros.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        items = len(train.target.items)
        scorer = method(TrainingData(both_domains(train), train.target), key=key)
        return lambda history: scorer(History(beside(*history, items)))

    return fit

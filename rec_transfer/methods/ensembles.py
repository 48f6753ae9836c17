"""Scores put together: popularity added to a method, and a mixture grown on held-out rows.

``sparse_models.mixture`` is the method that such weights make.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from rec_transfer.methods.sparse_models import popular
from rec_transfer.types import (
    FitMethod,
    History,
    Key,
    Scorer,
    TrainingData,
)

Scores = Float[np.ndarray, "users items"]


def with_popularity(method: FitMethod, *, weight: float = 0.0, power: float = 0.0) -> FitMethod:
    r"""A method's scores with popularity in them: $s_j\, p_j^{\,q} + w\,p_j$.

    p is the share of the target's training users that have an item, one user at least.

    Args:
        method: what popularity is added to.
        weight: w, for scores that estimate a share themselves (ridge, EASE).
        power: q, for scores that were divided by a root of the popularity (axes, diffusion).
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        scorer, share = method(train, key=key), shares(train)

        def score(history: History) -> np.ndarray:
            return np.asarray(scorer(history)) * share**power + np.float32(weight) * share

        return score

    return fit


def shares(train: TrainingData) -> Float[np.ndarray, " items"]:
    """Share of the target's training users that have each item, as if one had it that nobody has."""
    return np.maximum(popular(train.target), np.float32(1 / len(train.target.users)))


def grow_mixture(
    scores: Mapping[str, Scores],
    judge: Callable[[Scores], float],
    *,
    weights: Sequence[float] = (1.0, 0.3, 0.1),
    most: int = 6,
    gain: float = 0.005,
) -> dict[str, float]:
    r"""Weights of a sum of scores, grown one part at a time while a judge likes it better (Caruana et al. 2004).

    The best part alone has the weight 1; then whichever part, with whichever weight, helps most is added, a part that
    is in perhaps once more. Stepwise growth tries few of the mixtures there are, and so can fit little of the judge's
    noise.

    Args:
        scores: one array per part, on one scale (``item_models.standardised``).
        judge: scores -> a number to be made large, above zero, from rows that nothing was fitted on.
        weights: what a part may be added with.
        most: additions at most.
        gain: growth ends where the judge's number would rise by less than this share.

    Returns:
        The parts used and their weights.

    Raises:
        ValueError: no part.
    """
    if not scores:
        raise ValueError("scores: got none, expected at least one part to mix")
    alone = {name: judge(part) for name, part in scores.items()}
    first = max(alone, key=alone.get)
    total, best, grown = scores[first], alone[first], {first: 1.0}
    for _ in range(most):
        tried = {
            (name, weight): judge(total + np.float32(weight) * scores[name]) for name in scores for weight in weights
        }
        (name, weight), value = max(tried.items(), key=lambda item: item[1])
        if value < best * (1 + gain):
            break
        total, best = total + np.float32(weight) * scores[name], value
        grown[name] = grown.get(name, 0.0) + weight
    return grown


def averaged(methods: Mapping[str, FitMethod]) -> FitMethod:
    """The mean of several methods' scores, all fitted with one key.

    For scores that are expected gains (``shared_latents``, ``gaussian_process``) it is the expected gain under the
    equal mixture of their posteriors: what one is wrong about, another may not be. Scores in different units have no
    mean worth ranking by.

    Raises:
        ValueError: no method.
    """
    if not methods:
        raise ValueError("methods: got none, expected at least one to average")

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        scorers = [fit_one(train, key=key) for fit_one in methods.values()]
        return lambda history: np.mean([scorer(history) for scorer in scorers], axis=0)

    return fit

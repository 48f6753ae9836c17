"""Scores put together: popularity added to a method, the mean and the mixture of several, weights grown."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rec_transfer.models.forms import NO_SPREAD, binary
from rec_transfer.types import FitMethod, History, Key, Scorer, TrainingData

Scores = Float[np.ndarray, "users items"]


def with_popularity(method: FitMethod, *, weight: float = 0.0, power: float = 0.0) -> FitMethod:
    r"""Return a method whose scores contain popularity: $s_j\, p_j^{\,q} + w\,p_j$.

    p is ``shares``: the share of the target's training users that have an item, one user at least.

    Args:
        method: what popularity is added to.
        weight: w, for scores that estimate a share themselves (ridge, EASE) or say nothing of many items (cosine).
        power: q, for scores that were divided by a root of the popularity (cosine, axes, diffusion).
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        scorer, share = method(train, key=key), shares(train)

        def score(history: History) -> np.ndarray:
            return add_popularity(np.asarray(scorer(history)), share, weight=weight, power=power)

        return score

    return fit


def add_popularity(
    scores: Scores, share: Float[np.ndarray, " items"], *, weight: float = 0.0, power: float = 0.0
) -> Scores:
    r"""Return $s_j\, p_j^{\,q} + w\,p_j$, as ``with_popularity`` does it, from finished scores and ``shares``."""
    return scores * share ** np.float32(power) + np.float32(weight) * share


def shares(train: TrainingData) -> Float[np.ndarray, " items"]:
    """Return the share of the target's training users that have each item; an item nobody has counts as one user's."""
    has = np.maximum(binary(train.target.counts).sum(axis=0), 1.0)
    return np.asarray(has / len(train.target.users), np.float32)


def standardised(scores: Float[np.ndarray, "users items"]) -> Float[np.ndarray, "users items"]:
    """Return the scores with mean 0 and variance 1 in every row; a row of equals becomes zeros."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = scores.std(axis=1, keepdims=True)
    return centred / np.where(spread > NO_SPREAD, spread, 1.0) * (spread > NO_SPREAD)


def mixture(methods: Mapping[str, FitMethod], weights: Mapping[str, float]) -> FitMethod:
    r"""Return the sum of several methods' standardised scores: $\sum_m w_m (s_m - \bar s_m) / \sigma_m$, per user.

    A low-dimensional map loses item-level detail, such as two listings of one product; nearest-neighbour methods keep
    it. Neighbours say nothing about items that no similar user has; the map does. The mixture uses both.

    Args:
        methods: name -> method; one with weight 0 is not fitted.
        weights: name -> w, as ``grow_mixture`` returns them.

    Raises:
        ValueError: methods and weights of other names, or no weight above zero.
    """
    if set(methods) != set(weights) or not any(weight > 0 for weight in weights.values()):
        raise ValueError(
            f"weights: got {dict(weights)}, expected one for each of {sorted(methods)}, with one above zero"
        )
    used = {name: weight for name, weight in weights.items() if weight != 0}

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        scorers = {name: methods[name](train, key=key) for name in used}

        def score(history: History) -> Scores:
            return sum(used[name] * standardised(np.asarray(scorer(history))) for name, scorer in scorers.items())

        return score

    return fit


def grow_mixture(
    scores: Mapping[str, Scores],
    judge: Callable[[Scores], float],
    *,
    weights: Sequence[float] = (1.0, 0.3, 0.1),
    most: int = 6,
    gain: float = 0.005,
) -> dict[str, float]:
    r"""Return the weights of a sum of scores, grown while each added part raises a number (Caruana et al. 2004).

    The best part alone has the weight 1; then whichever part, with whichever weight, helps most is added, a part that
    is in perhaps once more. Stepwise growth tries few of the mixtures there are, and so can fit little of the judge's
    noise. ``mixture`` is the method that such weights make.

    Args:
        scores: one array per part, on one scale (``standardised``).
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
        if value <= best or value < best * (1 + gain):
            break
        total, best = total + np.float32(weight) * scores[name], value
        grown[name] = grown.get(name, 0.0) + weight
    return grown


class Averaged(NamedTuple):
    """The mean of several scorers' scores; ``choice`` is what each of them chose, where it chose anything."""

    scorers: dict[str, Scorer]

    @property
    def choice(self) -> str:
        """Return the settings that were chosen, by name."""
        chosen = {name: getattr(scorer, "choice", "") for name, scorer in self.scorers.items()}
        return "; ".join(f"{name}: {choice}" for name, choice in chosen.items() if choice)

    def __call__(self, history: History) -> Scores:
        """Return scores [users, items]."""
        return np.mean([scorer(history) for scorer in self.scorers.values()], axis=0)


def averaged(methods: Mapping[str, FitMethod]) -> FitMethod:
    """Return the method whose scores are the mean of several methods' scores, all fitted with one key.

    For scores that are expected gains (``shared_latents``, ``gaussian_process``) it is the expected gain under the
    equal mixture of their posteriors: what one is wrong about, another may not be. Scores in different units have no
    mean worth ranking by.

    Raises:
        ValueError: no method.
    """
    if not methods:
        raise ValueError("methods: got none, expected at least one to average")

    def fit(train: TrainingData, *, key: Key) -> Averaged:
        return Averaged({name: fit_one(train, key=key) for name, fit_one in methods.items()})

    return fit

"""Choosing among candidates on the overlapping users, the only ones whose target rows a method may be checked on."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rec_transfer.evaluation import metrics
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.types import FitMethod, History, Key, Scorer, TrainingData


class Tuned(NamedTuple):
    """The scorer of the candidate chosen, with what it was chosen by: mean NDCG@10 of every candidate."""

    scorer: Scorer
    choice: str
    means: dict[str, float]

    def __call__(self, history: History) -> np.ndarray:
        return self.scorer(history)


def cross_validate(candidates: Mapping[str, FitMethod], train: TrainingData, *, key: Key, folds: int = 5):
    """NDCG@10 of every candidate for every overlapping user, fitted without the target row of that user.

    The users of a fold lose their target rows and keep their source rows, as cold-start users do; all candidates
    meet the same folds, the same fitting keys and the same order of ties.

    Args:
        candidates: name -> ``fit(train, *, key) -> scorer``.
        train: the training data of one direction.
        folds: parts that the overlapping users are dealt into.

    Returns:
        Frame [overlapping users, candidates].

    Raises:
        ValueError: no candidate, or fewer than two folds or overlapping users for them.
    """
    import pandas as pd

    if not candidates:
        raise ValueError("candidates: got none, expected at least one")
    shared = train.overlapping_users
    if not 2 <= folds <= len(shared):
        raise ValueError(f"folds: got {folds}, expected 2 to {len(shared)}, the number of overlapping users")
    keys = named_keys(key, "folds", "fit", "ties")
    parts = []
    for users in np.array_split(numpy_generator(keys["folds"]).permutation(shared), folds):
        seen = TrainingData(train.source, train.target.without(users))
        history = History(train.source.select(users).counts)
        relevant = train.target.select(users).counts.toarray()
        values = {}
        for name, fit in candidates.items():
            ranks = metrics.ranks_of(fit(seen, key=keys["fit"])(history), key=keys["ties"])
            values[name] = metrics.ndcg_at_k(ranks, relevant, 10)
        parts.append(pd.DataFrame(values, index=users))
    return pd.concat(parts).loc[shared]


def tuned(candidates: Mapping[str, FitMethod], *, folds: int = 5) -> FitMethod:
    """The method that cross-validates the candidates, then fits the best (the first of equals) on everything.

    What it fits is a ``Tuned``: a scorer that shows its choice.
    """

    def fit(train: TrainingData, *, key: Key) -> Tuned:
        keys = named_keys(key, "choose", "fit")
        means = cross_validate(candidates, train, key=keys["choose"], folds=folds).mean()
        choice = means.idxmax()
        return Tuned(candidates[choice](train, key=keys["fit"]), choice, means.to_dict())

    return fit

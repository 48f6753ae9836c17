"""Choosing among candidates on the overlapping users, the only ones whose target rows a method may be checked on.

A scorer whose settings were chosen on its training users says which in its attribute ``choice``, a line of text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rec_transfer.evaluation import splits
from rec_transfer.evaluation.metrics import ndcg_at_k
from rec_transfer.evaluation.protocol import score_blocks
from rec_transfer.evaluation.ranking import ranks, stacked
from rec_transfer.keys import named_keys
from rec_transfer.types import FitMethod, History, Key, Scorer, TrainingData

if TYPE_CHECKING:
    import pandas as pd


class Tuned(NamedTuple):
    """The scorer of the candidate chosen, with what it was chosen by: mean NDCG@10 of every candidate."""

    scorer: Scorer
    choice: str
    means: dict[str, float]

    def __call__(self, history: History) -> np.ndarray:
        return self.scorer(history)


def cross_validate(
    candidates: Mapping[str, FitMethod], train: TrainingData, *, key: Key, folds: int = 5
) -> pd.DataFrame:
    """Return the NDCG@10 of every candidate for every overlapping user, fitted without the target row of that user.

    The users of a fold lose their target rows and keep their source rows, as cold-start users do. All candidates meet
    the same folds, the same fitting keys and the same order of ties.

    Args:
        candidates: name -> ``fit(train, *, key) -> scorer``.
        train: the training data of one direction.
        key: splits the users, fits the candidates and breaks ties.
        folds: parts that the overlapping users are split into.

    Returns:
        Frame [overlapping users, candidates].

    Raises:
        ValueError: no candidate, or fewer than two folds or overlapping users for them.
    """
    import pandas as pd

    if not candidates:
        raise ValueError("candidates: got none, expected at least one")
    keys = named_keys(key, "folds", "fit", "ties")
    parts = []
    for fold in splits.folds(train, folds, key=keys["folds"]):
        values = {
            name: _ndcg(fit(fold.train, key=keys["fit"]), fold, key=keys["ties"]) for name, fit in candidates.items()
        }
        parts.append(pd.DataFrame(values, index=fold.users))
    return pd.concat(parts).loc[train.overlapping_users]


def _ndcg(scorer, fold, *, key):
    parts = [
        ranks(scores, fold.hidden[first : first + len(scores)], key=key, first=first)
        for first, scores in score_blocks(scorer, fold.history, len(fold.train.target.items))
    ]
    return ndcg_at_k(stacked(parts), 10)


def tuned(candidates: Mapping[str, FitMethod], *, folds: int = 5) -> FitMethod:
    """Return the method that cross-validates the candidates, then fits the best (the first of equals) on everything.

    What it fits is a ``Tuned``: a scorer that shows its choice.

    Args:
        candidates: name -> ``fit(train, *, key) -> scorer``.
        folds: parts that the overlapping users are split into.
    """

    def fit(train: TrainingData, *, key: Key) -> Tuned:
        keys = named_keys(key, "choose", "fit")
        means = cross_validate(candidates, train, key=keys["choose"], folds=folds).mean()
        choice = means.idxmax()
        return Tuned(candidates[choice](train, key=keys["fit"]), choice, means.to_dict())

    return fit


def telling(fit: FitMethod, tell: Callable[[str], None]) -> FitMethod:
    """Return the method; every fit also tells the scorer's ``choice``, or "" where no setting was chosen.

    So a table can store a row's setting beside its number: ``evaluate`` returns numbers alone.

    Args:
        fit: the method.
        tell: is called with the choice, such as ``partial(chosen.__setitem__, name)``.
    """

    def fit_and_tell(train: TrainingData, *, key: Key) -> Scorer:
        scorer = fit(train, key=key)
        tell(getattr(scorer, "choice", ""))
        return scorer

    return fit_and_tell

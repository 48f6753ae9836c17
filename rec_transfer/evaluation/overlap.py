"""Is the overlap large enough? What a method adds to popularity, measured on the overlapping users themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rec_transfer.evaluation.floors import fit_popularity
from rec_transfer.evaluation.statistics import bootstrap_interval
from rec_transfer.evaluation.tuning import cross_validate
from rec_transfer.keys import key_for, named_keys, numpy_generator
from rec_transfer.types import FitMethod, Interactions, Key, TrainingData

if TYPE_CHECKING:
    import pandas as pd

MIN_USERS = 20  # below, a bootstrap interval of so few values promises more than it holds
QUANTILE = 1.96  # of the standard normal, for 95 %


class Lift(NamedTuple):
    """NDCG@10 of a method less that of popularity, mean over ``users`` overlapping users, with its interval.

    ``needed`` is how many users an interval without zero takes if lift and spread stay what they are; infinite where
    the lift is not above zero.
    """

    users: int
    lift: float
    low: float
    high: float
    needed: float

    @property
    def enough(self) -> bool:
        """Whether the interval lies above zero, and the users are enough for an interval."""
        return self.users >= MIN_USERS and self.low > 0

    def __str__(self) -> str:
        measured = (
            f"{self.users} overlapping users: lift over popularity {self.lift:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        )
        if self.enough:
            return f"{measured}: transfer pays"
        more = f"about {self.needed:.0f} users would show such a lift" if np.isfinite(self.needed) else "no lift to see"
        return f"{measured}: not shown to pay, recommend popularity ({more})"


def overlap_lift(train: TrainingData, fit: FitMethod, *, key: Key, folds: int = 5) -> Lift:
    r"""Measure what a method adds to popularity for new users, cross-validated on the overlapping users of ``train``.

    $\bar d = \frac1n \sum_u d_u$, $d_u$ the difference of NDCG@10 over all target items for a user whose target row
    was hidden; a 95 % bootstrap interval over users; $n^* = (1.96\, s_d / \bar d)^2$ users are needed, $s_d$ the
    standard deviation of the $d_u$.

    Args:
        train: the training data of one direction; see ``tuning.cross_validate`` for how users are hidden.
        fit: the method, ``fit(train, *, key) -> scorer``.
        folds: parts that the overlapping users are split into.

    Raises:
        ValueError: fewer overlapping users than folds.
    """
    keys = named_keys(key, "folds", "interval")
    values = cross_validate({"popularity": fit_popularity, "method": fit}, train, key=keys["folds"], folds=folds)
    difference = (values["method"] - values["popularity"]).to_numpy()
    mean, spread = float(difference.mean()), float(difference.std(ddof=1))
    low, high = bootstrap_interval(difference, key=keys["interval"]) if spread > 0 else (mean, mean)
    return Lift(len(difference), mean, low, high, (QUANTILE * spread / mean) ** 2 if mean > 0 else np.inf)


def with_overlap(train: TrainingData, users: Sequence[str] | np.ndarray, *, drop: bool = False) -> TrainingData:
    """Return the same data with only these users overlapping.

    Every other overlapping user is renamed in the target, so that their two rows can no longer be paired.

    Args:
        train: the training data of one direction.
        users: ids that stay overlapping.
        drop: drop both rows of every other overlapping user instead.

    Raises:
        ValueError: users that do not overlap, or none.
    """
    if not len(users) or not np.isin(users, train.overlapping_users).all():
        unknown = np.setdiff1d(users, train.overlapping_users)
        raise ValueError(f"users: got {len(users)}, {len(unknown)} of them not overlapping, expected overlapping users")
    others = np.setdiff1d(train.overlapping_users, users)
    if drop:
        return TrainingData(train.source.without(others), train.target.without(others))
    source, target = train.source, train.target
    alone = np.isin(target.users, others)
    names = np.where(alone, np.char.add(target.users.astype(str), ", unpaired"), target.users.astype(str))
    if source.users.dtype.kind != "U":  # the new names are text, and so all have to be
        source = Interactions(source.domain, source.counts, source.users.astype(str), source.items)
    return TrainingData(source, Interactions(target.domain, target.counts, names, target.items))


def lift_by_overlap(
    train: TrainingData, fit: FitMethod, sizes: Sequence[int], *, key: Key, repeats: int = 5, folds: int = 5
) -> pd.DataFrame:
    """Return ``overlap_lift`` as it would have come out with fewer overlapping users, drawn at random.

    Args:
        train, fit, folds: see ``overlap_lift``.
        sizes: numbers of overlapping users.
        repeats: draws of users for each.

    Returns:
        Frame ``repeat, users, lift, low, high, needed, enough``, one row per size and draw.

    Raises:
        ValueError: a size above the overlap, or fewer than folds.
    """
    import pandas as pd

    shared = train.overlapping_users
    if not all(folds <= size <= len(shared) for size in sizes):
        raise ValueError(
            f"sizes: got {list(sizes)}, expected {folds} to {len(shared)}, the number of overlapping users"
        )
    rows = []
    for size in sizes:
        for repeat in range(repeats):
            keys = named_keys(key_for(key, f"{size} {repeat}"), "users", "lift")
            users = numpy_generator(keys["users"]).permutation(shared)[:size]
            found = overlap_lift(with_overlap(train, users), fit, key=keys["lift"], folds=folds)
            rows.append({"repeat": repeat, **found._asdict(), "enough": found.enough})
    return pd.DataFrame(rows)

"""Leaks of public data sets: one product listed in both domains, one person twice, test rows seen in training."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from rec_transfer.evaluation.ranking import entries_of
from rec_transfer.types import Interactions, Split, TrainingData

if TYPE_CHECKING:
    import pandas as pd


class Clean(NamedTuple):
    """An experiment without leaking items: ``touched`` tells for each hidden entry whether one would have leaked it."""

    split: Split
    touched: Bool[np.ndarray, " entries"]


def identical_audiences(source: Interactions, target: Interactions, minimum: int = 3) -> pd.DataFrame:
    """Find pairs of items, one of each domain, that exactly the same overlapping users have: most likely one product.

    Args:
        source, target: the data, hidden rows among them (``DomainPair.whole``, ``Ratings.interactions``): a leak shows
            itself in whole audiences. The users in both are compared, whatever their counts.
        minimum: smallest audience that counts; by chance two items often share one user, hardly ever three.

    Returns:
        Frame ``source_item, target_item, users`` (ids, and how many users), in the order of the ids' columns.

    Raises:
        ValueError: a minimum below 1: everything nobody has would be a pair.
    """
    import pandas as pd

    if minimum < 1:
        raise ValueError(f"minimum: got {minimum}, expected at least 1")
    shared = np.intersect1d(source.users, target.users)
    audiences = [_groups(side.select(shared).counts.T, minimum) for side in (source, target)]
    rows = [
        (left, right, len(audience) // 8)  # eight bytes for each column number
        for audience, lefts in audiences[0].items()
        for left, right in product(lefts, audiences[1].get(audience, ()))
    ]
    rows.sort()
    columns = ("source_item", "target_item", "users")
    frame = pd.DataFrame(rows, columns=columns).astype(int)
    return frame.assign(source_item=source.items[frame.source_item], target_item=target.items[frame.target_item])


def duplicated_users(domain: Interactions, minimum: int = 3) -> list[tuple[str, ...]]:
    """Find groups of users with exactly the same items, at least ``minimum`` of them: one person twice, or a bot."""
    groups = _groups(domain.counts, minimum).values()
    return [tuple(str(user) for user in domain.users[list(rows)]) for rows in groups if len(rows) > 1]


def rows_in_training(split: Split) -> Int[np.ndarray, " found"]:
    """Return the positions of hidden entries that the target's training rows hold too; none, if the split is sound."""
    user, item = entries_of(split.hidden).nonzero()
    return np.flatnonzero(_holds(split.train.target.rows_of(split.users), user, item))


def without_leaks(split: Split, pairs: pd.DataFrame) -> Clean:
    """Remove the source items of leaking pairs from training rows and histories.

    The hidden entries and the candidates stay the same; only the source items that reveal the answer are removed. A
    training user left without any source item is dropped from the source domain.

    Args:
        split: the experiment as it is.
        pairs: what ``identical_audiences`` gives.

    Returns:
        The experiment without these items, and which hidden entries they touch: the target item of a pair whose source
        item the user has. To leave those out too, keep ``values[~touched[values.row]]``.
    """
    train = split.train
    column_of = {item: column for column, item in enumerate(train.source.items)}
    target_of = {item: column for column, item in enumerate(train.target.items)}
    left = np.array([column_of[item] for item in pairs.source_item], dtype=int)
    right = np.array([target_of[item] for item in pairs.target_item], dtype=int)
    twins = sparse.csr_array(
        (np.ones(len(left)), (left, right)), shape=(len(train.source.items), len(train.target.items))
    )
    given_away = sparse.csr_array((split.history.source > 0).astype(float) @ twins)
    touched = _holds(given_away, *entries_of(split.hidden).nonzero())
    keep = np.ones(len(train.source.items), train.source.counts.dtype)
    keep[left] = 0

    def cut(counts):
        result = sparse.csr_array(counts @ sparse.diags_array(keep, format="csr", dtype=keep.dtype))
        result.eliminate_zeros()
        return result

    counts = cut(train.source.counts)
    active = np.flatnonzero(np.diff(counts.indptr))
    source = Interactions(train.source.domain, counts[active], train.source.users[active], train.source.items)
    history = split.history._replace(source=cut(split.history.source))
    return Clean(split._replace(train=TrainingData(source, train.target), history=history), touched)


def _holds(matrix, row, column):
    """Whether a sparse matrix has something above zero at each place."""
    entries = entries_of(matrix).tocoo()
    width = matrix.shape[1]
    codes = entries.coords[0].astype(np.int64) * width + entries.coords[1]
    return np.isin(np.asarray(row, np.int64) * width + column, codes)


def _groups(counts, minimum):
    """Rows of a matrix with the same non-zero columns, at least ``minimum`` of them: columns as bytes -> rows."""
    counts = entries_of(sparse.csr_array(counts))
    groups = {}
    for row in np.flatnonzero(np.diff(counts.indptr) >= minimum):
        columns = counts.indices[counts.indptr[row] : counts.indptr[row + 1]]
        groups.setdefault(columns.astype(np.int64).tobytes(), []).append(int(row))
    return groups

"""Leaks of public data sets: one product listed in both domains, one person twice, test rows seen in training."""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from rec_transfer.types import HeldOut, Interactions, TrainingData


class Clean(NamedTuple):
    """Data without leaking pairs: ``touched`` tells for each held-out row whether a pair would have given it away."""

    train: TrainingData
    held: HeldOut
    touched: Bool[np.ndarray, " rows"]


def identical_audiences(source: Interactions, target: Interactions, minimum: int = 3):
    """Pairs of items, one of each domain, that exactly the same overlapping users have: most likely one product.

    Args:
        source, target: the data, held-out rows among them (``Pair.whole``, ``Ratings.interactions``): a leak shows
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
    """Groups of users with exactly the same items, at least ``minimum`` of them: one person twice, or a bot."""
    groups = _groups(domain.counts, minimum).values()
    return [tuple(str(user) for user in domain.users[list(rows)]) for rows in groups if len(rows) > 1]


def rows_in_training(train: TrainingData, held: HeldOut) -> Int[np.ndarray, " found"]:
    """Positions of held-out rows that stand in the target's training rows as well; none, if the split is sound."""
    row_of = {user: row for row, user in enumerate(train.target.users)}
    row = np.array([row_of.get(user, -1) for user in held.users], dtype=int)[held.user]
    trained = np.flatnonzero(row >= 0)
    return trained[_holds(train.target.counts, row[trained], held.item[trained])]


def without_leaks(train: TrainingData, held: HeldOut, pairs) -> Clean:
    """Take the source items of leaking pairs out of training and histories; target items and held-out rows stay.

    So the same rows are ranked against the same candidates, and nobody can read the answer off the source side. A
    training user whose every source row leaked is no source user any more.

    Args:
        train, held: the data as they are.
        pairs: what ``identical_audiences`` gives.

    Returns:
        The data without, and the rows touched: the positive is the target item of a pair whose source item the user
        has. To leave them out too, keep ``values[~touched[values.row]]``.
    """
    column_of = {item: column for column, item in enumerate(train.source.items)}
    target_of = {item: column for column, item in enumerate(train.target.items)}
    left = np.array([column_of[item] for item in pairs.source_item], dtype=int)
    right = np.array([target_of[item] for item in pairs.target_item], dtype=int)
    twins = sparse.csr_array(
        (np.ones(len(left)), (left, right)), shape=(len(train.source.items), len(train.target.items))
    )
    given_away = sparse.csr_array((held.source > 0).astype(float) @ twins)
    touched = _holds(given_away, held.user, held.item)
    keep = np.ones(len(train.source.items), train.source.counts.dtype)
    keep[left] = 0

    def cut(counts):
        result = sparse.csr_array(counts @ sparse.diags_array(keep, format="csr", dtype=keep.dtype))
        result.eliminate_zeros()
        return result

    counts = cut(train.source.counts)
    active = np.flatnonzero(np.diff(counts.indptr))
    source = Interactions(train.source.domain, counts[active], train.source.users[active], train.source.items)
    return Clean(TrainingData(source, train.target), held._replace(source=cut(held.source)), touched)


def _holds(matrix, row, column):
    """Whether a sparse matrix has something above zero at each place."""
    entries = matrix.tocoo()
    there = entries.data > 0
    width = matrix.shape[1]
    codes = entries.coords[0][there].astype(np.int64) * width + entries.coords[1][there]
    return np.isin(np.asarray(row, np.int64) * width + column, codes)


def _groups(counts, minimum):
    """Rows of a matrix with the same non-zero columns, at least ``minimum`` of them: columns as bytes -> rows."""
    counts = sparse.csr_array(counts)
    counts.eliminate_zeros()
    counts.sort_indices()
    groups = {}
    for row in np.flatnonzero(np.diff(counts.indptr) >= minimum):
        columns = counts.indices[counts.indptr[row] : counts.indptr[row + 1]]
        groups.setdefault(columns.astype(np.int64).tobytes(), []).append(int(row))
    return groups

"""Batches of compressed rows: the counts of a few users, laid out by user and by item for the native kernels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import sparse


class SparseBatch(NamedTuple):
    """Counts of a batch of users at their entries, and which of them the encoder sees, by row and by column.

    ``counts``, ``users`` and ``items`` have one value per entry, row by row; entries past the last user's are padding:
    their counts are 0 and their items lie one past the last. ``seen`` holds the positions of the entries that the
    encoder sees (all, or those that dropout keeps); those of user u are ``seen[row_starts[u]:row_starts[u+1]]``.
    ``by_column`` holds the same positions sorted by item, and ``column_starts`` where each item's begin.
    """

    counts: Float[Array, "*steps entries"]
    users: Int[Array, "*steps entries"]
    items: Int[Array, "*steps entries"]
    seen: Int[Array, "*steps entries"]
    row_starts: Int[Array, "*steps users_and_one"]
    by_column: Int[Array, "*steps entries"]
    column_starts: Int[Array, "*steps items_and_one"]


def compress(
    counts: sparse.csr_array,
    rows: Int[np.ndarray, "steps users"],
    entries: int,
    seen: Bool[np.ndarray, " all_entries"] | None = None,
) -> SparseBatch:
    """Return batches of these rows, stacked, each padded to the same number of entries; NumPy arrays.

    Args:
        counts: users x items, no entry stored twice (``sum_duplicates``).
        rows: the users of each batch.
        entries: room for entries in a batch.
        seen: of all the entries of the rows, one after the other, those that the encoder sees; None is all.

    Raises:
        ValueError: a batch has more entries than that.
    """
    (steps, users), items = rows.shape, counts.shape[1]
    used = np.diff(counts.indptr)[rows].sum(axis=1)
    if used.max() > entries:
        raise ValueError(f"entries: got room for {entries} in a batch, expected at least {used.max()}")
    batches = SparseBatch(
        np.zeros((steps, entries), np.float32),
        np.zeros((steps, entries), np.int32),
        np.full((steps, entries), items, np.int32),
        np.zeros((steps, entries), np.int32),
        np.zeros((steps, users + 1), np.int32),
        np.zeros((steps, entries), np.int32),
        np.zeros((steps, items + 1), np.int32),
    )
    first = np.cumsum(used) - used
    for step, chosen in enumerate(rows):  # batch by batch: what is made on the way stays in the cache
        batch, size = counts[chosen], used[step]
        batches.counts[step, :size] = batch.data
        batches.users[step, :size] = np.repeat(np.arange(users, dtype=np.int32), np.diff(batch.indptr))
        batches.items[step, :size] = batch.indices
        positions, starts = np.arange(size, dtype=np.int32), batch.indptr
        if seen is not None:
            positions = np.flatnonzero(seen[first[step] : first[step] + size]).astype(np.int32)
            starts = np.searchsorted(positions, starts).astype(np.int32)
        # Sorting the entries' own positions by column gives the order that the values follow as well.
        columns = sparse.csr_array((positions, batch.indices[positions], starts), batch.shape).tocsc()
        batches.seen[step, : len(positions)] = positions
        batches.row_starts[step] = starts
        batches.by_column[step, : len(positions)] = columns.data
        batches.column_starts[step] = columns.indptr
    return batches


def capacity(counts: sparse.csr_array, batch_size: int) -> int:
    """Return room for the entries of a random batch: six standard deviations above the mean, or the most possible."""
    per_user = np.diff(counts.indptr)
    most = int(np.sort(per_user)[-batch_size:].sum())
    likely = int(batch_size * per_user.mean() + 6 * np.sqrt(batch_size) * per_user.std()) + 1
    return max(min(most, likely), 1)

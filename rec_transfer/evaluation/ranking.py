"""The one ranker: the place of every hidden item in its user's list, by counting; and negatives to rank it against.

An item's rank is 1 + the items of the list that score higher + the items with an equal score that chance puts above
it. Chance is one random number per user and item, so that the order of equals is the same for all of a user's items.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num
from scipy import sparse

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.types import Key, Split

CELLS_AT_ONCE = 1_000_000  # users x items counted at a time: 4 MB, which stay in the processor's cache
ITEMS_AT_ONCE = 32  # compared before the sums are written
COLUMNS = 4  # hidden items of a user that a chunk has room for, or 2, 3, 4, 8, 16 ... times as many


class Ranked(NamedTuple):
    """Ranks of hidden items: ``rank`` and ``user`` (a row number) have one entry per item, ``users`` is how many."""

    rank: Int[np.ndarray, " entries"]
    user: Int[np.ndarray, " entries"]
    users: int

    def by_row(self) -> "Ranked":
        """Return the same ranks with every item judged for itself, as if each belonged to a user of its own."""
        return Ranked(self.rank, np.arange(len(self.rank)), len(self.rank))


def stacked(parts: Sequence[Ranked]) -> Ranked:
    """Return the ranks of chunks of users, one after the other, as those of all users."""
    first = np.cumsum([0, *(part.users for part in parts)])
    user = np.concatenate([start + part.user for start, part in zip(first, parts, strict=False)])
    return Ranked(np.concatenate([part.rank for part in parts]), user, int(first[-1]))


def ranks(
    scores: Num[np.ndarray, "users items"] | Num[Array, "users items"],
    hidden: sparse.csr_array | np.ndarray,
    *,
    key: Key,
    known: sparse.csr_array | None = None,
    candidates: Bool[np.ndarray, " items"] | None = None,
    alone: bool = False,
    first: int = 0,
) -> Ranked:
    r"""Rank every entry of ``hidden`` in its user's list: $1 + \#\{s_j > s_i\} + \#\{s_j = s_i, t_j > t_i\}$.

    j runs over the list and t is one random number per user and item. Scores are compared in single or
    double precision, as they come. The ranks do not depend on how users are cut into chunks.

    Args:
        scores: one row per user, [users, items].
        hidden: what must be found again, [users, items]; everything above zero counts. Its entries are ranked row by
            row, in the order of their columns.
        key: breaks ties.
        known: items that a user has already. They stand in no list but their own.
        candidates: items that lists are made of, all if None. A hidden item always stands in its own list.
        alone: leave a user's other hidden items out of the list, as protocols do that rank one positive at a time.
        first: number of the first row, where ``scores`` are a part of all users: ties follow the user's number.

    Raises:
        ValueError: matrices of different shapes, or a score that is NaN, of a user with a hidden item.
    """
    hidden = entries_of(hidden)
    for name, matrix in (("scores", scores), ("known", known)):
        if matrix is not None and matrix.shape != hidden.shape:
            raise ValueError(f"{name}: got shape {matrix.shape}, expected that of hidden, {hidden.shape}")
    if candidates is not None and len(candidates) != hidden.shape[1]:
        raise ValueError(f"candidates: got {len(candidates)} items, expected {hidden.shape[1]}")
    scores = _floats(scores)
    known = None if known is None else entries_of(known)
    user = np.repeat(np.arange(hidden.shape[0]), np.diff(hidden.indptr))
    higher, equal = np.empty(hidden.nnz, int), np.empty(hidden.nnz, int)
    waiting = []
    for rows, place in _chunks(hidden):
        chunk = _lay_out(scores[rows], rows, place, hidden, known, candidates, alone)
        waiting.append((chunk, _count(chunk)))
        if len(waiting) > 1:  # one chunk is laid out while the device counts the one before
            _write(*waiting.pop(0), higher, equal, hidden, key=key, first=first)
    for chunk, counts in waiting:
        _write(chunk, counts, higher, equal, hidden, key=key, first=first)
    return Ranked(1 + higher + equal, user, hidden.shape[0])


def ranks_among(
    scores: Num[np.ndarray, "users items"] | Num[Array, "users items"],
    hidden: sparse.csr_array,
    others: Int[np.ndarray, "entries others"],
    *,
    key: Key,
    first: int = 0,
) -> Ranked:
    """Rank every entry of ``hidden`` among a few other items of its own: those of ``draw_negatives``.

    Args:
        scores, hidden, key, first: see ``ranks``.
        others: columns of the items that each entry is ranked against.

    Raises:
        ValueError: matrices of different shapes, another number of rows than entries, or a score that is NaN.
    """
    hidden = entries_of(hidden)
    if scores.shape != hidden.shape or len(others) != hidden.nnz:
        raise ValueError(
            f"scores and others: got shape {scores.shape} and {len(others)} rows, expected {hidden.shape} and one row "
            f"for each of {hidden.nnz} hidden items"
        )
    scores = _floats(scores)
    user = np.repeat(np.arange(hidden.shape[0]), np.diff(hidden.indptr))
    own, theirs = scores[user, hidden.indices], scores[user[:, None], others]
    if np.isnan(own).any() or np.isnan(theirs).any():
        raise ValueError("scores: got NaN, expected numbers")
    higher, tied = (theirs > own[:, None]).sum(axis=1), theirs == own[:, None]
    for entry in np.flatnonzero(tied.any(axis=1)):
        chance = _chance(key, first + user[entry], scores.shape[1])
        higher[entry] += np.count_nonzero(chance[others[entry, tied[entry]]] > chance[hidden.indices[entry]])
    return Ranked(1 + higher, user, hidden.shape[0])


def _floats(scores):
    """Scores in single precision as they are, in half precision as single, all others as double."""
    scores = np.asarray(scores)
    if scores.dtype in (np.float32, np.float64):
        return scores
    return scores.astype(np.float32 if scores.dtype.itemsize <= 2 and scores.dtype.kind not in "iub" else np.float64)


def entries_of(matrix: sparse.csr_array | np.ndarray) -> sparse.csr_array:
    """Return the entries above zero as compressed rows, each once, in the order of rows and columns."""
    matrix = sparse.csr_array(matrix)
    if matrix.nnz and not (matrix.has_canonical_format and (matrix.data > 0).all()):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.data = np.where(matrix.data > 0, matrix.data, 0)
        matrix.eliminate_zeros()
    return matrix


def _chunks(hidden):
    """Rows of users, and the position of each user's entries [users, columns], -1 where one has fewer.

    Users with about as many entries go together, so that little is padded; few widths, so that few are compiled.
    """
    number = np.diff(hidden.indptr)
    order = np.argsort(number, kind="stable")
    order = order[number[order] > 0]
    size = max(1, min(CELLS_AT_ONCE // hidden.shape[1], len(order)))
    for start in range(0, len(order), size):
        rows = np.resize(order[start : start + size], size)  # the last is filled up with users again
        columns = -(-int(number[rows].max()) // COLUMNS)
        column = np.arange(COLUMNS * (columns if columns <= 4 else 1 << (columns - 1).bit_length()))
        yield rows, np.where(column < number[rows][:, None], hidden.indptr[rows][:, None] + column, -1)


class _Chunk(NamedTuple):
    rows: np.ndarray  # users
    place: np.ndarray  # [users, columns]: positions of their entries, -1 where a user has fewer
    own: np.ndarray  # the scores of those entries
    itself: int  # 1 where an entry stands in ``lists`` too
    lists: np.ndarray  # [users, items] of scores: ``_NOWHERE`` where an item stands in no list


_NOWHERE = -1  # the bits of a NaN, which no score has; ``_ordered`` makes them the least number


def _ordered(scores: Array) -> Array:
    """Whole numbers in the order of the scores, above the least one, which no score has.

    They are the bits of the floats. XLA takes the smallest floats for zero; whole numbers it compares as they are.
    """
    kind = jnp.int32 if scores.dtype == jnp.float32 else jnp.int64
    bits = jax.lax.bitcast_convert_type(scores, kind)
    least = jnp.iinfo(kind).min
    bits = jnp.where(bits == least, 0, bits)  # one zero, without a sign
    return jnp.where(bits < 0, bits ^ jnp.iinfo(kind).max, bits)


def _lay_out(scores, rows, place, hidden, known, candidates, alone):
    if np.isnan(scores).any():
        raise ValueError(f"scores: got {int(np.isnan(scores).sum())} NaN, expected numbers")
    columns = hidden.indices[np.maximum(place, 0)]
    own, entries = np.take_along_axis(scores, columns, axis=1), hidden[rows]
    where = np.repeat(np.arange(len(rows)), np.diff(entries.indptr)), entries.indices
    theirs, bits = scores[where], scores.view(np.int32 if scores.dtype == np.float32 else np.int64)
    if candidates is not None:
        bits[:, ~candidates] = _NOWHERE
    if known is not None:
        part = known[rows]
        bits[np.repeat(np.arange(len(rows)), np.diff(part.indptr)), part.indices] = _NOWHERE
    if alone:
        bits[where] = _NOWHERE
    else:
        scores[where] = theirs
    return _Chunk(rows, place, own, int(not alone), scores)


def _count(chunk):
    with _precision_of(chunk.lists):
        return _higher_and_equal(chunk.lists, chunk.own)


def _precision_of(scores):
    return jax.enable_x64(True) if scores.dtype == np.float64 else nullcontext()


@jax.jit
def _higher_and_equal(
    lists: Num[Array, "users items"], own: Num[Array, "users columns"]
) -> tuple[Int[Array, "users columns"], Int[Array, "users columns"]]:
    """How many of a user's scores are higher than, and equal to, each of the user's own.

    Item by item for all users and columns at once: sums along a row of scores would not be vectorised on the CPU.
    """
    lists, own = _ordered(lists), _ordered(own)
    nowhere = jnp.iinfo(lists.dtype).min
    columns = jnp.pad(lists.T, ((0, -lists.shape[1] % ITEMS_AT_ONCE), (0, 0)), constant_values=nowhere)
    own = own.T

    def of_items(block, sums):
        higher, equal = sums
        for place in range(ITEMS_AT_ONCE):  # each is read where it is compared: a slice of all would be copied first
            item = jax.lax.dynamic_index_in_dim(columns, block * ITEMS_AT_ONCE + place, keepdims=False)
            higher, equal = higher + (item > own), equal + (item == own)  # neither where the item is padding
        return higher, equal

    start = jnp.zeros(own.shape, jnp.int32)
    higher, equal = jax.lax.fori_loop(0, len(columns) // ITEMS_AT_ONCE, of_items, (start, start))
    return higher.T, equal.T


def _write(chunk, counts, higher, equal, hidden, *, key, first):
    """Write what was counted; of equals, how many chance puts above."""
    above, same = (np.asarray(count) for count in counts)
    there = chunk.place >= 0
    higher[chunk.place[there]], equal[chunk.place[there]] = above[there], 0
    tied = there & (same > chunk.itself)
    for line in np.flatnonzero(tied.any(axis=1)):
        chance = _chance(key, first + chunk.rows[line], hidden.shape[1])
        for column in np.flatnonzero(tied[line]):
            entry = chunk.place[line, column]
            equals = chunk.lists[line] == chunk.own[line, column]  # NumPy tells small floats apart, and NaN from all
            equal[entry] = np.count_nonzero(chance[equals] > chance[hidden.indices[entry]])


def _chance(key, user, items):
    return numpy_generator(key, int(user)).random(items)


def draw_negatives(split: Split, negatives: int, *, key: Key) -> Int[np.ndarray, "entries negatives"]:
    """Sample items that a user lacks, without replacement, for every hidden entry: candidates not known nor hidden.

    They depend on the key and the entry alone, so that every method meets the same.

    Raises:
        ValueError: a user with fewer such items than that.
    """
    seed = np.asarray(numpy_generator(named_keys(key, "negatives", "ties")["negatives"]).integers(2**63, size=2))
    owned, hidden = entries_of(split.hidden + split.known), entries_of(split.hidden)
    candidates = np.flatnonzero(split.candidates)
    drawn = np.empty((hidden.nnz, negatives), np.int32)
    for entry, user in enumerate(np.repeat(np.arange(len(split.users)), np.diff(hidden.indptr))):
        known = owned.indices[owned.indptr[user] : owned.indptr[user + 1]]
        known = known[split.candidates[known]]
        if len(candidates) - len(known) < negatives:
            raise ValueError(
                f"negatives: got {negatives}, expected at most {len(candidates) - len(known)}, the items user {user} "
                "lacks"
            )
        some = min(negatives + len(known), len(candidates))  # enough are left without the known ones
        chosen = candidates[np.random.default_rng([*seed, entry]).choice(len(candidates), some, replace=False)]
        drawn[entry] = chosen[~np.isin(chosen, known)][:negatives]
    return drawn


def most_negatives(split: Split) -> int:
    """Return how many negatives every user has: the candidates that the user who owns the most of them lacks."""
    owned = entries_of(split.hidden + split.known).astype(bool)
    return int(split.candidates.sum() - (owned.astype(int) @ split.candidates.astype(int)).max())

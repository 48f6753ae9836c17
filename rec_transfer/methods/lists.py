"""Turn scores into lists, and give reasons for a recommended item."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from rec_transfer.types import History, Scorer


def recommend(
    scores: np.ndarray,
    items: Sequence[str] | np.ndarray,
    k: int,
    *,
    seen: sparse.csr_array | np.ndarray | None = None,
) -> np.ndarray:
    """Return the ids of the k best items of each user, best first: [users, k].

    Items with equal scores keep the order of the catalogue.

    Args:
        scores: [users, items].
        items: ids in the order of the columns.
        k: length of the lists.
        seen: counts [users, items] of what each user has already; these items are left out.

    Raises:
        ValueError: the number of ids is not that of the columns, or a user has fewer than k items left.
    """
    scores, items = np.array(scores, float), np.asarray(items)
    if scores.shape[1] != len(items):
        raise ValueError(f"items: got {len(items)} ids, expected one per column of scores, {scores.shape[1]}")
    if seen is not None:
        seen = seen.toarray() if sparse.issparse(seen) else np.asarray(seen)
        scores[seen > 0] = -np.inf
    left = np.isfinite(scores).sum(axis=1).min()
    if not 1 <= k <= left:
        raise ValueError(f"k: got {k}, expected 1 to {left}, the fewest items a user has left")
    return items[np.argsort(-scores, axis=1, kind="stable")[:, :k]]


def reasons(scorer: Scorer, source: sparse.csr_array, item: int) -> np.ndarray:
    """Return how much each source item a user clicked contributes to one recommended item: [source items], in logits.

    Entry j is how much the item's score, relative to the mean score, falls if the user's clicks on j are removed. It is
    zero for items without a click. The values are exact for the fitted model, not an explanation fitted afterwards.

    Args:
        scorer: a fitted method.
        source: the user's source counts, [1, source items].
        item: column of the recommended target item.

    Raises:
        ValueError: there is more than one user, or the user has no clicks.
    """
    clicked = source.nonzero()[1]
    if source.shape[0] != 1 or not len(clicked):
        raise ValueError(
            f"source: got {source.shape[0]} users with {source.nnz} clicked items, expected one user with some"
        )
    without = np.repeat(source.toarray(), len(clicked) + 1, axis=0)
    without[np.arange(len(clicked)), clicked] = 0  # the last row keeps all clicks
    scores = scorer(History(sparse.csr_array(without)))
    lead = scores[:, item] - scores.mean(axis=1)
    result = np.zeros(source.shape[1])
    result[clicked] = lead[-1] - lead[:-1]
    return result

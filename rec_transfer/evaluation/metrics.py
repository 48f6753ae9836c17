"""Ranking metrics: ranks of hidden items -> one value per user.

Every metric takes what ``ranking.ranks`` returns; ``ndcg`` is the one short cut from scores. A user without a hidden
item has no value (NaN). Of ranks ``by_row`` each hidden item is judged for itself, and a metric gives one value per
item.
"""

import numpy as np
from jaxtyping import Array, Float, Num
from scipy import sparse

from rec_transfer.evaluation.ranking import Ranked, ranks
from rec_transfer.types import Key

Values = Float[np.ndarray, " users"]


def ndcg(
    scores: Num[np.ndarray, "users items"] | Num[Array, "users items"],
    relevant: sparse.csr_array | np.ndarray,
    k: int = 10,
    *,
    key: Key,
) -> Values:
    """Return every user's NDCG@k straight from scores: ``ndcg_at_k(ranks(scores, relevant, key=key), k)``.

    Args:
        scores: one row per user.
        relevant: [users, items]; everything above zero is relevant.
        k: length of the list.
        key: breaks ties.
    """
    return ndcg_at_k(ranks(scores, relevant, key=key), k)


def ndcg_at_k(ranked: Ranked, k: int) -> Values:
    r"""Return the normalised discounted cumulative gain with gains 0 and 1 (Järvelin and Kekäläinen 2002).

    $\sum_{i: r_i \le k} 1 / \log_2(1 + r_i)$ over the same sum for the best order, which has
    $\min(k, |\mathrm{rel}|)$ terms.
    """
    number = _number(ranked, k)
    gain = _sums(ranked, np.where(ranked.rank <= k, 1 / np.log2(1.0 + ranked.rank), 0.0))
    ideal = np.concatenate([[np.nan], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    return gain / ideal[np.minimum(number, k)]


def recall_at_k(ranked: Ranked, k: int) -> Values:
    r"""Return the share of what could be found in k places: $|\mathrm{hits}| / \min(k, |\mathrm{rel}|)$."""
    number = _number(ranked, k)
    return _sums(ranked, ranked.rank <= k) / np.where(number > 0, np.minimum(number, k), np.nan)


def hit_rate_at_k(ranked: Ranked, k: int) -> Values:
    """Return 1 where at least one hidden item stands among the first k, else 0."""
    number = _number(ranked, k)
    return np.where(number > 0, _sums(ranked, ranked.rank <= k) > 0, np.nan)


def reciprocal_rank(ranked: Ranked) -> Values:
    """Return one over the rank of the best placed hidden item; its mean over users is the MRR."""
    best = np.full(ranked.users, np.inf)
    np.minimum.at(best, ranked.user, ranked.rank)
    return np.where(np.isfinite(best), 1 / best, np.nan)


def _number(ranked, k):
    if k < 1:
        raise ValueError(f"k: got {k}, expected at least 1")
    return np.bincount(ranked.user, minlength=ranked.users)


def _sums(ranked, values):
    return np.bincount(ranked.user, values, minlength=ranked.users)

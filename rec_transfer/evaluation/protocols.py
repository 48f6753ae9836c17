"""The papers' protocols for held-out rows: leave the last row out (Douban), users new in a domain (CDRIB).

A row is one positive of one user. It is ranked twice: ``"sampled"``, against random items the user is not known to
have, as the papers do, and ``"full"``, against every candidate, the user's other known items left out. The negatives
depend on the key and the row alone, so that every method meets the same; ties are broken at random.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Int

from rec_transfer.evaluation import metrics
from rec_transfer.keys import key_for, named_keys, numpy_generator
from rec_transfer.types import HeldOut, History, Key, Scorer

BLOCK = 128 * 2**20  # bytes of scores asked for at a time
ROW_METRICS: dict[str, Callable] = {
    "MRR": metrics.reciprocal_of_rank,
    "NDCG@10": partial(metrics.ndcg_of_rank, k=10),
    "HR@10": partial(metrics.hit_of_rank, k=10),
}
RANKINGS = ("sampled", "full")


def leave_last_rows(scorer: Scorer, held: HeldOut, *, key: Key, negatives: int = 99, **options):
    """The protocol of GA-DTCDR (Zhu et al. 2020) on rows of ``leave_last_out``: HR@10 and NDCG@10, 99 negatives.

    Negatives are items the user has not rated (before the held-out row, when tuning). See ``measure_rows``.
    """
    measures = {name: ROW_METRICS[name] for name in ("NDCG@10", "HR@10")}
    return measure_rows(scorer, held, key=key, negatives=negatives, measures=measures, **options)


def cold_start_rows(scorer: Scorer, held: HeldOut, *, key: Key, negatives: int = 999, **options):
    """The protocol of CDRIB (Cao et al. 2022) on rows of ``loaders.read_cdrib_pair``: MRR, NDCG@10, HR@10.

    Negatives are items that somebody has in train, without the user's positives. The paper's code passes over rows
    whose positive nobody has in train; here they count. See ``measure_rows``.
    """
    return measure_rows(scorer, held, key=key, negatives=negatives, **options)


def measure_rows(
    scorer: Scorer,
    held: HeldOut,
    *,
    key: Key,
    negatives: int,
    measures: Mapping[str, Callable] = ROW_METRICS,
    block: int = BLOCK,
    rankings: Sequence[str] = RANKINGS,
    drawn: Int[np.ndarray, "rows negatives"] | None = None,
):
    """Rank every held-out row against sampled negatives and against all candidates.

    Args:
        scorer: asked for chunks of users, so that no more than ``block`` bytes of float32 scores exist at a time.
        held: the rows; see ``HeldOut`` for what is known and who the candidates are.
        key: draws negatives and breaks ties; the same key means the same negatives for any scorer.
        negatives: how many per row, drawn without replacement.
        measures: name -> ``f(rank)``, one value per row.
        block: bound on the scores of one chunk, in bytes.
        rankings: both for anything that is reported; ``("sampled",)`` is enough to choose settings by.
        drawn: what ``draw_negatives`` gives for this key, where many methods are to meet the same rows.

    Returns:
        Long frame ``user, row, ranking, metric, value``: ``row`` counts in the file's order, ``ranking`` is
        ``"sampled"`` or ``"full"``.

    Raises:
        ValueError: scores of another shape than [users, items] or NaN, or fewer candidates than negatives.
    """
    import pandas as pd

    drawn = draw_negatives(held, negatives, key=key) if drawn is None else drawn
    ties = numpy_generator(named_keys(key, "negatives", "ties")["ties"]).random((len(RANKINGS), len(held.user)))
    items = held.known.shape[1]
    ranks = {ranking: np.empty(len(held.user), int) for ranking in rankings}
    step = max(1, block // (4 * items))
    order = np.argsort(held.user, kind="stable")
    for start in range(0, len(held.users), step):
        users = slice(start, min(start + step, len(held.users)))
        target = None if held.target is None else held.target[users]
        scores = np.asarray(scorer(History(held.source[users], target)))
        if scores.shape != (users.stop - start, items):
            raise ValueError(f"scores: got shape {scores.shape}, expected {(users.stop - start, items)}")
        if np.isnan(scores).any():
            raise ValueError(f"scores: got {int(np.isnan(scores).sum())} NaN, expected numbers")
        rows = order[slice(*np.searchsorted(held.user[order], [start, users.stop]))]
        own = scores[held.user[rows] - start, held.item[rows]][:, None]
        for ranking, tie in zip(RANKINGS, ties, strict=True):
            if ranking not in ranks:
                continue
            if ranking == "sampled":
                others = scores[(held.user[rows] - start)[:, None], drawn[rows]]
                higher, equal = (others > own).sum(axis=1), (others == own).sum(axis=1)
            else:
                higher, equal = _against_all(scores, held, rows, start)
            ranks[ranking][rows] = 1 + higher + (tie[rows] * (equal + 1)).astype(int)
    users = held.users[held.user]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "user": users,
                    "row": np.arange(len(users)),
                    "ranking": ranking,
                    "metric": name,
                    "value": measure(rank),
                }
            )
            for ranking, rank in ranks.items()
            for name, measure in measures.items()
        ],
        ignore_index=True,
    )


def draw_negatives(held: HeldOut, negatives: int, *, key: Key) -> Int[np.ndarray, "rows negatives"]:
    """Random items of every row's user, without replacement, among the candidates that the user is not known to have.

    Raises:
        ValueError: a user with fewer such items than that.
    """
    seed = np.asarray(numpy_generator(named_keys(key, "negatives", "ties")["negatives"]).integers(2**63, size=2))
    candidates = np.flatnonzero(held.candidates)
    drawn = np.empty((len(held.user), negatives), np.int32)
    for row, user in enumerate(held.user):
        known = held.known.indices[held.known.indptr[user] : held.known.indptr[user + 1]]
        known = known[held.candidates[known]]
        if len(candidates) - len(known) < negatives:
            raise ValueError(
                f"negatives: got {negatives}, expected at most {len(candidates) - len(known)}, the items user {user} "
                "lacks"
            )
        some = min(negatives + len(known), len(candidates))  # enough are left without the known ones
        chosen = candidates[np.random.default_rng([*seed, row]).choice(len(candidates), some, replace=False)]
        drawn[row] = chosen[~np.isin(chosen, known)][:negatives]
    return drawn


def most_negatives(held: HeldOut) -> int:
    """How many negatives every user has: the candidates that the user with the most known ones lacks."""
    return int(held.candidates.sum() - (held.known @ held.candidates).max())


def _against_all(scores, held, rows, start):
    """Of every row: candidates scored higher than the positive, and equal to it, the user's known items left out."""
    higher, equal = np.empty(len(rows), int), np.empty(len(rows), int)
    apart = np.flatnonzero(~held.candidates)
    for place, row in enumerate(rows):
        user, item = held.user[row], held.item[row]
        line = scores[user - start]
        known = held.known.indices[held.known.indptr[user] : held.known.indptr[user + 1]]
        out = line[np.union1d(known[known != item], apart[apart != item])]
        higher[place] = np.count_nonzero(line > line[item]) - np.count_nonzero(out > line[item])
        equal[place] = np.count_nonzero(line == line[item]) - np.count_nonzero(out == line[item]) - 1
    return higher, equal


def summarise_rows(values, *, key: Key, confidence: float = 0.95, resamples: int = 2000):
    """Mean over rows with a percentile interval from users resampled with all their rows, which go together.

    Args:
        values: what ``measure_rows`` returns; a column ``method``, and any other, gives a line of its own per value.

    Returns:
        Frame with the columns of ``values`` but ``user, row, value``, and ``rows, mean, low, high``.
    """
    import pandas as pd

    by = [column for column in values.columns if column not in ("user", "row", "value")]
    lines, draws = [], {}
    for names, part in values.groupby(by, sort=False):
        user, users = pd.factorize(part.user)
        total, number = np.bincount(user, part.value), np.bincount(user)
        if len(users) not in draws:  # the same users for every line: intervals of one table go together
            rng = numpy_generator(key_for(key, "users"))
            draws[len(users)] = rng.multinomial(len(users), np.full(len(users), 1 / len(users)), size=resamples)
        drawn = draws[len(users)]
        low, high = np.quantile(drawn @ total / (drawn @ number), [(1 - confidence) / 2, (1 + confidence) / 2])
        lines.append((*names, len(part), part.value.mean(), low, high))
    return pd.DataFrame(lines, columns=[*by, "rows", "mean", "low", "high"])

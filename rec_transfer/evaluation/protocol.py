"""The one way from methods to numbers: fit, score in chunks, rank what was hidden, a value per user or per item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int
from scipy import sparse

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.ranking import draw_negatives, entries_of, ranks, ranks_among, stacked
from rec_transfer.evaluation.statistics import paired_tests, summarise
from rec_transfer.keys import named_keys
from rec_transfer.types import FitMethod, History, Key, Scorer, Split

if TYPE_CHECKING:
    import pandas as pd

METRICS: dict[str, Callable] = {
    "NDCG@10": partial(metrics.ndcg_at_k, k=10),
    "Recall@20": partial(metrics.recall_at_k, k=20),
    "HR@10": partial(metrics.hit_rate_at_k, k=10),
    "MRR": metrics.reciprocal_rank,
}
BLOCK = 128 * 2**20  # bytes of float32 scores asked for at a time
NO_CEILINGS: Mapping[str, FitMethod] = {}


def evaluate(
    methods: Mapping[str, FitMethod],
    split: Split,
    *,
    keys: Sequence[Key] | Key,
    ceilings: Mapping[str, FitMethod] = NO_CEILINGS,
    measures: Mapping[str, Callable] = METRICS,
    per: Literal["user", "row"] = "user",
    negatives: int = 0,
) -> pd.DataFrame:
    """Fit every method once per key and measure the lists of everybody asked about.

    Args:
        methods: name -> ``fit(train, *, key) -> scorer``.
        split: the experiment.
        keys: one training seed each.
        ceilings: methods that are shown ``split.reference`` as target history, which no recommender has. Its items
            stand in no list of theirs.
        measures, per, negatives: see ``measure``.

    Returns:
        Long frame: ``method, seed`` and the columns of ``measure``; methods first, then ceilings, by seed.

    Raises:
        ValueError: no method or key, a name that is a method's and a ceiling's, ceilings without a reference, or scores
            of another shape than [users, items] or NaN.
    """
    import pandas as pd

    if not (methods or ceilings) or not len(keys):
        raise ValueError(f"methods and keys: got {len(methods)} and {len(keys)}, expected at least one of each")
    if both := sorted(methods.keys() & ceilings.keys()):
        raise ValueError(f"ceilings: got {both}, which are methods too, expected other names")
    if ceilings and split.reference is None:
        raise ValueError("ceilings: got some, expected a split with a reference to show them")
    parts = []
    for seed, key in enumerate(keys):
        purposes = named_keys(key, "fit", "ties")
        drawn = draw_negatives(split, negatives, key=purposes["ties"]) if negatives else None
        for name, fit in {**methods, **ceilings}.items():
            scorer = fit(split.train, key=purposes["fit"])
            asked = _with_reference(split) if name in ceilings else split
            blocks = score_blocks(scorer, asked.history, len(split.train.target.items))
            try:
                values = _measure(blocks, asked, key=purposes["ties"], measures=measures, per=per, drawn=drawn)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            parts.append(values.assign(method=name, seed=seed))
    values = pd.concat(parts, ignore_index=True)
    return values[["method", "seed", *(name for name in values if name not in ("method", "seed"))]]


def _with_reference(split):
    """The experiment as a ceiling meets it: the reference is target history, and its items are known."""
    history = History(split.history.source, split.reference)
    return split._replace(history=history, known=sparse.csr_array(split.known + split.reference))


def measure(
    scores: np.ndarray,
    split: Split,
    *,
    key: Key,
    measures: Mapping[str, Callable] = METRICS,
    per: Literal["user", "row"] = "user",
    negatives: int = 0,
    drawn: Int[np.ndarray, "entries negatives"] | None = None,
) -> pd.DataFrame:
    """Measure finished scores of everybody asked about.

    Args:
        scores: [users, target items], higher is earlier in the list.
        split: the experiment.
        key: draws negatives and breaks ties; the same key means the same of both for any scores.
        measures: name -> metric of ranks (``METRICS``).
        per: "user" ranks a user's hidden items in one list and gives a value per user. "row" ranks each hidden item
            alone, the user's others left out, and gives a value per item, as the papers on real data do.
        negatives: rank each hidden item also among so many sampled items that the user lacks; with "row" alone.
        drawn: the sampled items (``draw_negatives``), where many methods are to meet the same without drawing again.

    Returns:
        Long frame ``user, metric, value``; with negatives also ``ranking`` ("sampled", then "full"); with "row" also
        ``row``, the position of the item among the entries of ``split.hidden``.

    Raises:
        ValueError: scores of another shape or NaN, an unknown ``per``, too many negatives, or some with "user".
    """
    if scores.shape != split.hidden.shape:
        raise ValueError(f"scores: got shape {scores.shape}, expected {split.hidden.shape}")
    if drawn is not None and len(drawn) != (entries := entries_of(split.hidden).nnz):
        raise ValueError(f"drawn: got {len(drawn)} rows, expected one for each of {entries} hidden items")
    if negatives and drawn is None:
        drawn = draw_negatives(split, negatives, key=key)
    return _measure([(0, scores)], split, key=key, measures=measures, per=per, drawn=drawn)


def score_blocks(scorer: Scorer, history: History, items: int) -> Iterable[tuple[int, np.ndarray]]:
    """Ask a scorer for chunks of users, so that no more than ``BLOCK`` bytes of float32 scores exist at a time.

    Returns:
        Pairs of the first user's number and the chunk's scores.

    Raises:
        ValueError: scores of another shape than [users, items].
    """
    users = history.source.shape[0]
    step = max(1, BLOCK // (4 * items))
    for first in range(0, users, step):
        chunk, part = slice(first, first + step), history
        if users > step:
            part = History(history.source[chunk], None if history.target is None else history.target[chunk])
        scores = np.asarray(scorer(part))
        if scores.shape != (part.source.shape[0], items):
            raise ValueError(f"scores: got shape {scores.shape}, expected {(part.source.shape[0], items)}")
        yield first, scores


def all_scores(scorer: Scorer, history: History, items: int) -> np.ndarray:
    """Return the scores of all users as one float32 array [users, items], asked for in chunks."""
    result = np.empty((history.source.shape[0], items), np.float32)
    for first, scores in score_blocks(scorer, history, items):
        result[first : first + len(scores)] = scores
    return result


def _measure(blocks, split, *, key, measures, per, drawn):
    import pandas as pd

    if per not in ("user", "row"):
        raise ValueError(f'per: got {per!r}, expected "user" or "row"')
    if per == "user" and drawn is not None:
        raise ValueError('negatives: got some with per="user", expected per="row", which ranks each hidden item alone')
    ranked = _ranked(blocks, split, key=key, alone=per == "row", drawn=drawn)
    frames = []
    for ranking, found in ranked.items():
        users = split.users[found.user] if per == "row" else split.users
        where = {"user": users} | ({"row": np.arange(len(users))} if per == "row" else {})
        where |= {"ranking": ranking} if drawn is not None else {}
        for name, metric in measures.items():
            values = metric(found.by_row() if per == "row" else found)
            frames.append(pd.DataFrame(where | {"metric": name, "value": values}))
    return pd.concat(frames, ignore_index=True)


def _ranked(blocks, split, *, key, alone, drawn):
    """The ranks of all hidden items, "sampled" where negatives were drawn, and "full"."""
    hidden, parts = entries_of(split.hidden), {}
    for first, scores in blocks:
        users = slice(first, first + len(scores))
        options = {"key": key, "first": first}
        if drawn is not None:
            entries = slice(hidden.indptr[first], hidden.indptr[first + len(scores)])
            found = ranks_among(scores, hidden[users], drawn[entries], **options)
            parts.setdefault("sampled", []).append(found)
        options |= {"known": split.known[users], "candidates": split.candidates, "alone": alone}
        parts.setdefault("full", []).append(ranks(scores, hidden[users], **options))
    return {ranking: stacked(found) for ranking, found in parts.items()}


def compare(
    methods: Mapping[str, FitMethod],
    split: Split,
    *,
    keys: Sequence[Key] | Key,
    metric: str = "NDCG@10",
    ceilings: Mapping[str, FitMethod] = NO_CEILINGS,
) -> pd.DataFrame:
    """Rank methods in one call: every mean with its interval, and its paired test against the best of them.

    Args:
        methods, split, keys, ceilings: see ``evaluate``.
        metric: one of ``METRICS``.

    Returns:
        Frame sorted best first, with columns ``method, mean, low, high, behind, p_holm``: ``behind`` is the best
        method's lead, ``p_holm`` the corrected p-value of that lead.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: got {metric!r}, expected one of {sorted(METRICS)}")
    values = evaluate(methods, split, keys=keys, ceilings=ceilings, measures={metric: METRICS[metric]})
    table = summarise(values, key=keys[0]).sort_values("mean", ascending=False, ignore_index=True)
    table = table.drop(columns=["metric", "seed_spread"])
    if len(table) == 1:
        return table
    best = table.method[0]
    lead = paired_tests(values, best, metric=metric, key=keys[0]).set_index("against")
    return table.assign(behind=table.method.map(lead.difference), p_holm=table.method.map(lead.p_holm))

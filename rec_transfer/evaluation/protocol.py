"""Methods x seeds on one split -> a value per user."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.statistics import paired_tests, summarise
from rec_transfer.keys import named_keys
from rec_transfer.types import FitMethod, History, Key, Split

METRICS: dict[str, Callable] = {
    "NDCG@10": partial(metrics.ndcg_at_k, k=10),
    "Recall@20": partial(metrics.recall_at_k, k=20),
    "HR@10": partial(metrics.hit_rate_at_k, k=10),
    "MRR": metrics.reciprocal_rank,
}
PRIVILEGED = ("ceiling", "oracle", "truth")  # rows so named may see what no recommender does, and say so


def evaluate(methods: Mapping[str, FitMethod], split: Split, *, keys: Sequence[Key] | Key, measures=METRICS):
    """Fit every method once per key and score every test user: a long frame, one row per user and metric.

    Args:
        methods: name -> ``fit(train, *, key) -> scorer``.
        split: one cold-start direction; scored on its ``scored`` half. Methods whose name begins with one of
            ``PRIVILEGED`` are shown the reference half as target history.
        keys: one training seed each.
        measures: name -> ``f(ranks, relevant)``, one value per user.

    Returns:
        Frame with columns ``method, seed, user, metric, value``.

    Raises:
        ValueError: no method or key, or a scorer whose scores have another shape than [test users, items].
    """
    import pandas as pd

    if not methods or not len(keys):
        raise ValueError(f"methods and keys: got {len(methods)} and {len(keys)}, expected at least one of each")
    relevant = split.scored.toarray()
    parts = []
    for seed, key in enumerate(keys):
        for name, fit in methods.items():
            purposes = named_keys(key, "fit", "ties")
            scorer = fit(split.train, key=purposes["fit"])
            seen = split.reference if name.startswith(PRIVILEGED) else None
            scores = np.asarray(scorer(History(split.history.source, seen)))
            if scores.shape != relevant.shape:
                raise ValueError(f"scores of {name!r}: got shape {scores.shape}, expected {relevant.shape}")
            ranks = metrics.ranks_of(scores, key=purposes["ties"])
            for metric, measure in measures.items():
                values = measure(ranks, relevant)
                parts.append(
                    pd.DataFrame({"method": name, "seed": seed, "user": split.users, "metric": metric, "value": values})
                )
    return pd.concat(parts, ignore_index=True)


def compare(methods: Mapping[str, FitMethod], split: Split, *, keys: Sequence[Key] | Key, metric: str = "NDCG@10"):
    """The ranking in one call: every method's mean with interval, and its paired test against the best of them.

    Returns:
        Frame sorted best first, with columns ``method, mean, low, high, behind, p_holm``: ``behind`` is the best
        method's lead, ``p_holm`` the corrected p-value of that lead.
    """
    values = evaluate(methods, split, keys=keys, measures={metric: METRICS[metric]})
    table = summarise(values, key=keys[0]).sort_values("mean", ascending=False, ignore_index=True)
    table = table.drop(columns=["metric", "seed_spread"])
    if len(table) == 1:
        return table
    best = table.method[0]
    lead = paired_tests(values, best, metric=metric, key=keys[0]).set_index("against")
    return table.assign(behind=table.method.map(lead.difference), p_holm=table.method.map(lead.p_holm))

"""What every model has to beat: random order, popularity, and ridge from source clicks to target clicks."""

import numpy as np

from rec_transfer import metrics
from rec_transfer.keys import numpy_generator
from rec_transfer.ridge import fit_ridge
from rec_transfer.types import History, Key, Scorer, TrainingData


def fit_random(train: TrainingData, *, key: Key) -> Scorer:
    """Every item equally good: scores drawn anew for each user."""

    def score(history: History) -> np.ndarray:
        return numpy_generator(key).random((history.source.shape[0], len(train.target.items)))

    return score


def fit_popularity(train: TrainingData, *, key: Key) -> Scorer:
    """The same list for everybody: items by clicks of all training users of the target domain."""
    clicks = np.asarray(train.target.counts.sum(axis=0), float)

    def score(history: History) -> np.ndarray:
        return np.tile(clicks, (history.source.shape[0], 1))

    return score


def damped(counts: np.ndarray) -> np.ndarray:
    r"""$\log(1 + x)$ scaled to length 1 per user: neither a heavy user nor a hundred clicks on one item dominates."""
    logs = np.log1p(counts)
    return logs / np.maximum(np.linalg.norm(logs, axis=1, keepdims=True), 1e-9)


def fit_ridge_counts(train: TrainingData, *, key: Key) -> Scorer:
    r"""Ridge regression from source counts to target counts, $\hat x_t = \bar x_t + (x_s - \bar x_s) B$, no network.

    B is fitted on the overlapping users; the means are over *all* training users of a domain, so that a user without
    any signal gets the popular items. Counts as they are or damped, and lambda, are chosen by the NDCG@10 of
    leave-one-out predictions for the overlapping users: the metric that it is judged by.
    """
    paired_source, paired_target = (side.counts.toarray().astype(float) for side in train.pairs)

    def judge(left_out: np.ndarray) -> float:
        ranks = metrics.ranks_of(left_out, key=key)
        return float(np.nanmean(metrics.ndcg_at_k(ranks, paired_target, 10)))

    def fit(form):
        ridge = fit_ridge(form(paired_source), form(paired_target), judge=judge)
        return judge(ridge.left_out), form, ridge

    _, form, ridge = max((fit(form) for form in (np.asarray, damped)), key=lambda candidate: candidate[0])
    source_mean, target_mean = (
        form(domain.counts.toarray().astype(float)).mean(axis=0) for domain in (train.source, train.target)
    )

    def score(history: History) -> np.ndarray:
        return target_mean + (form(history.source.toarray().astype(float)) - source_mean) @ ridge.coefficients

    return score

"""What every model has to beat: random order, popularity, and what the counts give without a network, tuned."""

from itertools import product

import numpy as np

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.tuning import Tuned, tuned
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.methods.item_models import clicked, damped, ease, emcdr, item_cosine, plain
from rec_transfer.types import History, Key, Scorer, TrainingData

# Twelve candidates each, compared by 5-fold cross-validation on the overlapping users. Ridge on counts has thirty,
# two forms of the counts and the penalties of ``fit_ridge``: its leave-one-out predictions cost next to nothing.
GRIDS = {
    "item cosine": {
        f"{form.__name__}, popularity {popularity:g}": item_cosine(form, popularity)
        for form, popularity in product((clicked, damped), (0.0, 0.1, 0.2, 0.5, 1.0, 2.0))
    },
    "EASE": {
        f"{form.__name__}, evenness {evenness:g}, strangers {strangers:g}, penalty {penalty:g}": ease(
            form, penalty, strangers=strangers, evenness=evenness
        )
        for (form, evenness), strangers, penalty in product(
            ((clicked, 0.0), (damped, 0.0), (damped, 0.5)), (0.0, 1.0), (10.0, 30.0)
        )
    },
    "EMCDR": {
        f"{factors} factors, evenness {evenness:g}": emcdr(factors, evenness)
        for factors, evenness in product((4, 6, 8, 12, 16, 32), (0.0, 1.0))
    },
}


def fit_ridge_counts(train: TrainingData, *, key: Key) -> Scorer:
    r"""Ridge regression from source counts to target counts, $\hat x_t = \bar x_t + (x_s - \bar x_s) B$, no network.

    B is fitted on the overlapping users; the means are over *all* training users of a domain, so that a user without
    any signal gets the popular items. Counts as they are or damped, and lambda, are chosen by the NDCG@10 of
    leave-one-out predictions for the overlapping users: the metric that it is judged by.
    """
    paired_source, paired_target = (side.counts for side in train.pairs)
    relevant = paired_target.toarray()

    def criterion(left_out: np.ndarray) -> float:
        ranks = metrics.ranks_of(left_out, key=key)
        return float(np.nanmean(metrics.ndcg_at_k(ranks, relevant, 10)))

    def fit(form):
        ridge = fit_ridge(form(paired_source).toarray(), form(paired_target).toarray(), criterion=criterion)
        return criterion(ridge.left_out), form, ridge

    _, form, ridge = max((fit(form) for form in (plain, damped)), key=lambda candidate: candidate[0])
    source_mean, target_mean = (form(domain.counts).mean(axis=0) for domain in (train.source, train.target))

    def score(history: History) -> np.ndarray:
        return target_mean + (form(history.source) - source_mean) @ ridge.coefficients

    return score


def fit_item_cosine(train: TrainingData, *, key: Key) -> Tuned:
    """Item-cosine across domains (see ``item_cosine``): form of the counts and weight of popularity tuned."""
    return tuned(GRIDS["item cosine"])(train, key=key)


def fit_ease(train: TrainingData, *, key: Key) -> Tuned:
    """EASE on stacked domains (see ``ease``): form, scale of columns, weight of single-domain users, lambda tuned."""
    return tuned(GRIDS["EASE"])(train, key=key)


def fit_emcdr(train: TrainingData, *, key: Key) -> Tuned:
    """Factors of either domain and a ridge map between them (see ``emcdr``): number and scale of columns tuned."""
    return tuned(GRIDS["EMCDR"])(train, key=key)

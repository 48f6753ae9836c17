"""What every model has to beat besides popularity: four linear methods on the counts, each tuned in the same way.

Each has about twelve candidates, compared by 5-fold cross-validation on the overlapping users. The candidates are made
when a method is fitted: what those of one family share (a similarity, axes) is computed once per fold and freed with
the search.
"""

from collections.abc import Mapping
from itertools import product

from rec_transfer.evaluation.tuning import Tuned, tuned
from rec_transfer.keys import once_per_key
from rec_transfer.methods.ensembles import with_popularity
from rec_transfer.methods.linear import ease, emcdr, item_cosine, ridge
from rec_transfer.models.axes import domain_axes
from rec_transfer.models.forms import binary, centred, log_scaled, raw
from rec_transfer.types import FitMethod, Key, TrainingData

Candidates = Mapping[str, FitMethod]


def item_cosine_candidates() -> Candidates:
    """Return item cosine with two forms of the counts and six powers of popularity.

    A little popularity is added to each, for the items that no item of the user's reaches: their cosines are all zero.
    """
    found = {}
    for form in (binary, log_scaled):
        cosine = once_per_key(item_cosine(form))
        for power in (0.0, 0.15, 0.25, 0.35, 0.5, 1.0):
            found[f"{form.__name__}, popularity power {power:g}"] = with_popularity(cosine, power=power, weight=1e-3)
    return found


def ridge_candidates() -> Candidates:
    """Return ridge on counts with two forms of the counts and six penalties."""
    return {
        f"{form.__name__}, penalty {penalty:g}": ridge(form, penalty)
        for form, penalty in product((raw, log_scaled), (0.3, 1.0, 3.0, 10.0, 30.0, 100.0))
    }


def ease_candidates() -> Candidates:
    """Return EASE with three forms of the counts, single-domain users left out or counted, and two penalties.

    Where single-domain users count there are many times as many rows, and the penalties are larger.
    """
    found = {}
    for form, power in ((binary, 0.0), (log_scaled, 0.0), (log_scaled, 0.5)):
        for weight, penalty in ((0.0, 5.0), (0.0, 15.0), (1.0, 70.0), (1.0, 200.0)):
            name = f"{form.__name__}, column power {power:g}, single-domain users {weight:g}, penalty {penalty:g}"
            found[name] = ease(form, penalty, single_domain=weight, column_power=power)
    return found


def emcdr_candidates() -> Candidates:
    """Return EMCDR with six numbers of factors, of columns as they are and of columns of equal spread."""
    numbers, found = (4, 6, 8, 12, 16, 32), {}
    for power in (0.0, 1.0):
        axes = domain_axes(centred(log_scaled, column_power=power), max(numbers))
        for factors in numbers:
            found[f"{factors} factors, column power {power:g}"] = emcdr(factors, axes=axes)
    return found


def fit_item_cosine(train: TrainingData, *, key: Key) -> Tuned:
    """Fit item cosine across domains (see ``item_cosine``): form of the counts and power of popularity tuned."""
    return tuned(item_cosine_candidates())(train, key=key)


def fit_ridge_counts(train: TrainingData, *, key: Key) -> Tuned:
    """Fit ridge regression from source to target counts (see ``ridge``): form of the counts and lambda tuned."""
    return tuned(ridge_candidates())(train, key=key)


def fit_ease(train: TrainingData, *, key: Key) -> Tuned:
    """Fit EASE on both domains (see ``ease``): form, scale of columns, single-domain users and lambda tuned."""
    return tuned(ease_candidates())(train, key=key)


def fit_emcdr(train: TrainingData, *, key: Key) -> Tuned:
    """Fit factors of either domain with a map between them (see ``emcdr``): their number and column scale tuned."""
    return tuned(emcdr_candidates())(train, key=key)

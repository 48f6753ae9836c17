"""What counts are turned into before a linear method reads them, and the rows of both domains side by side."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from rec_transfer.types import Interactions, TrainingData

Form = Callable[[sparse.csr_array], sparse.csr_array]  # what counts are turned into, user by user
NO_SPREAD = 1e-9  # a length or a standard deviation below this is taken for zero


def raw(counts: sparse.csr_array) -> sparse.csr_array:
    """Return the counts as they are, as floats."""
    return counts.astype(float)


def binary(counts: sparse.csr_array) -> sparse.csr_array:
    """Return 1 where there is a click, else 0."""
    return (counts > 0).astype(float)


def log_scaled(counts: sparse.csr_array) -> sparse.csr_array:
    r"""Return $\log(1 + x)$, scaled to length 1 per user.

    Neither a heavy user nor a hundred clicks on one item dominates. A user without a click stays zero.
    """
    return _unit_length(counts.astype(float).log1p())


def unit_rows(counts: sparse.csr_array) -> sparse.csr_array:
    """Return 1 where there is a click, scaled to length 1 per user; a user without a click stays zero."""
    return _unit_length(binary(counts))


def column_scaled(domain: Interactions, form: Form, power: float) -> Form:
    """Return a form whose columns are divided by their standard deviation over the domain's users, to some power.

    Squared errors count where the variance is, which is in the popular items. Power 0 leaves it so; power 1 gives
    every item an equal say. A column without spread is left alone.

    Args:
        domain: all users of the domain, whose rows give the standard deviations.
        form: what the counts are turned into first, user by user.
        power: exponent of the standard deviation.
    """
    if power == 0:
        return form
    rows = form(domain.counts)
    spread = np.sqrt(np.maximum((rows**2).mean(axis=0) - rows.mean(axis=0) ** 2, 0.0))
    scale = sparse.diags_array(np.where(spread > NO_SPREAD, spread, 1.0) ** -power)
    return lambda counts: sparse.csr_array(form(counts) @ scale)


class DomainForm(NamedTuple):
    """A form as one domain has it: what its factors are computed from.

    Args:
        rows: what counts are turned into, with what the domain says about its columns.
        mean: what is subtracted from every row, zeros where nothing is.
        unit: whether a user's coordinates on the axes are scaled to length 1.
    """

    rows: Form
    mean: Float[np.ndarray, " items"]
    unit: bool


FitForm = Callable[[Interactions], DomainForm]


def centred(form: Form, *, column_power: float = 0.0) -> FitForm:
    """Return the form of a principal component analysis: rows less their mean over all the domain's users.

    Args:
        form: what the counts are turned into, user by user.
        column_power: see ``column_scaled``.
    """

    def fit(domain: Interactions) -> DomainForm:
        rows = column_scaled(domain, form, column_power)
        return DomainForm(rows, np.asarray(rows(domain.counts).mean(axis=0)), unit=False)

    return fit


def normalised_graph(domain: Interactions) -> DomainForm:
    r"""Return the form of the normalised graph of users and items: $D_u^{-1/2} X D_i^{-1/2}$.

    X is 1 where there is a click; $D_u$ and $D_i$ hold its row and column sums. Normalised on both sides, neither the
    active users nor the popular items decide alone (as in Chung 1997). This form is a ``FitForm`` itself.
    """
    scale = sparse.diags_array(item_degrees(domain) ** -0.5)
    return DomainForm(
        lambda counts: sparse.csr_array(unit_rows(counts) @ scale), np.zeros(len(domain.items)), unit=True
    )


def item_degrees(domain: Interactions) -> Float[np.ndarray, " items"]:
    """Return how many users have each item, at least 1."""
    return np.maximum(np.asarray(binary(domain.counts).sum(axis=0)), 1.0)


def most_active_pairs(train: TrainingData, most: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return source and target counts of the overlapping users, aligned.

    Of more than ``most``, those with the most items are taken; of a user's two numbers of items the smaller decides.
    """
    source, target = (side.counts for side in train.pairs)
    if source.shape[0] > most:
        activity = np.minimum(*(binary(side).sum(axis=1) for side in (source, target)))
        chosen = np.sort(np.argsort(-activity, kind="stable")[:most])
        source, target = source[chosen], target[chosen]
    return source, target


def beside(source: sparse.csr_array, target: sparse.csr_array | None, target_items: int) -> sparse.csr_array:
    """Return the rows of both domains as one row per user; zeros for a target that is not given."""
    if target is None:
        target = sparse.csr_array((source.shape[0], target_items), dtype=source.dtype)
    return sparse.csr_array(sparse.hstack([source, target]))


def both_domains(train: TrainingData) -> Interactions:
    """Return both domains as one: a row per user of either, the columns of both, source first."""
    users = np.union1d(train.source.users, train.target.users)
    sides = []
    for side in (train.source, train.target):
        row = np.searchsorted(users, side.users)
        picks = sparse.csr_array((np.ones(len(row), np.int32), (row, np.arange(len(row)))), (len(users), len(row)))
        sides.append(sparse.csr_array(picks @ side.counts))
    items = [f"{side.domain}:{item}" for side in (train.source, train.target) for item in side.items]
    return Interactions("both", beside(sides[0], sides[1], len(train.target.items)), users, np.array(items))


def _unit_length(rows: sparse.csr_array) -> sparse.csr_array:
    length = np.sqrt((rows**2).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(length > NO_SPREAD, length, 1.0)) @ rows)

"""Linear methods on counts: item cosine, ridge, EASE and EMCDR, each a function from its settings to a method.

Each runs at any size: it solves the smaller side of its own algebra (items or people), and both sides give the same
numbers. No score contains popularity on purpose; ``with_popularity`` adds it. Penalties have one unit everywhere: the
mean squared length of the rows of the overlapping users that are learned from. A penalty so means the same whatever
the form of the counts, and whichever side is solved.
"""

import numpy as np
from jaxtyping import Float
from scipy import linalg, sparse

from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.models.axes import FitAxes, coordinates, domain_axes
from rec_transfer.models.forms import (
    FitForm,
    Form,
    beside,
    centred,
    column_scaled,
    log_scaled,
    most_active_pairs,
)
from rec_transfer.types import FitMethod, History, Key, Scorer, TrainingData

MAX_RIDGE = 8000  # largest system that ridge solves: its matrix is 256 MB, its factor takes seconds
MAX_EASE = 4000  # largest matrix that EASE inverts: an inverse takes six times as long as ridge's factor
SINGLE = 2000  # systems above this size are kept and solved in single precision


def item_cosine(form: Form) -> FitMethod:
    r"""Return the method that scores by the items which the same people like: $s_j = \sum_i x_i c_{ij} / \sum_i x_i$.

    $c_{ij}$ is the cosine of the columns of source item i and target item j over the overlapping users. A score is a
    mean of cosines, from 0 to 1, so that popularity can be added in the same proportion for every user. Where there
    are fewer overlapping users than source items, the sum goes through the users and no c is kept.

    Args:
        form: what the counts are turned into, user by user.

    Source: item-based neighbours of Sarwar et al. 2001, taken across domains.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        source, target = (_unit_columns(form(side.counts)) for side in train.pairs)
        users, items = source.shape
        back = sparse.csr_array(source.T)
        cosines = back @ target if items <= users else None

        def score(history: History) -> np.ndarray:
            rows = form(history.source)
            total = rows.sum(axis=1)
            rows = sparse.diags_array(1 / np.where(total > 0, total, 1.0)) @ rows
            return (rows @ back @ target if cosines is None else rows @ cosines).toarray()

        return score

    return fit


def ridge(form: Form, penalty: float, *, most: int = MAX_RIDGE) -> FitMethod:
    r"""Return ridge regression from source rows to target rows, $s = \bar x_t + (x_s - \bar x_s) B$, no network.

    $B = X^\top (X X^\top + \lambda I)^{-1} Y = (X^\top X + \lambda I)^{-1} X^\top Y$ over the overlapping users, X and
    Y centred on their own means. $\bar x_s$ and $\bar x_t$ are means over *all* training users of a domain, so that a
    user without any signal gets the popular items. Solved by Cholesky on the smaller of users x users and source items
    x source items; B itself is not kept. Where both are larger than ``most``, only the ``most`` users who are active in
    both domains are learned from.

    Args:
        form: what the counts are turned into, user by user.
        penalty: lambda, in units of the mean squared length of the overlapping users' source rows.
        most: the largest system solved.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        wide = len(train.source.items) > most
        x, y = (form(rows) for rows in most_active_pairs(train, most if wide else len(train.source.users)))
        source_mean, level = (form(side.counts).mean(axis=0) for side in (train.source, train.target))
        weights_of = _ridge_weights(x, penalty * _mean_square(x), source_mean)
        back = sparse.csr_array(y.T).astype(_dtype(min(x.shape)))

        def score(history: History) -> np.ndarray:
            return level + (back @ weights_of(form(history.source)).T).T

        return score

    return fit


def _ridge_weights(x, penalty, source_mean):
    """New rows -> the weights of the rows learned from, whose weighted sum is the prediction.

    Nothing is centred in memory: means enter as corrections of rank one.
    """
    users, items = x.shape
    dtype = _dtype(min(x.shape))
    x, mean, source_mean = x.astype(dtype), x.mean(axis=0).astype(dtype), source_mean.astype(dtype)

    if items <= users:
        gram = (x.T @ x).toarray() - users * np.outer(mean, mean)
        factor = _factor(gram, penalty)

        def weights_of(rows):
            apart = rows.astype(dtype).toarray().T - source_mean[:, None]
            solved = linalg.cho_solve(factor, apart, overwrite_b=True, check_finite=False)
            return (x @ solved - mean @ solved).T

    else:
        along = x @ mean
        gram = (x @ x.T).toarray()
        gram -= along[:, None] + along - mean @ mean
        factor = _factor(gram, penalty)

        def weights_of(rows):
            rows = rows.astype(dtype)
            products = (x @ rows.T).toarray()  # (x - mean) . (rows - source mean), its four terms one by one
            products -= (x @ source_mean)[:, None] + (rows @ mean - source_mean @ mean)
            return linalg.cho_solve(factor, products, overwrite_b=True, check_finite=False).T

    return weights_of


def ease(
    form: Form, penalty: float, *, single_domain: float = 0.0, column_power: float = 0.0, most: int = MAX_EASE
) -> FitMethod:
    r"""Return EASE on both domains side by side: every item regressed on all others, $s = x B$ (Steck 2019).

    $B = I - P\, \mathrm{diag}(P)^{-1}$ with $P = (X^\top W X + \lambda I)^{-1}$; the rows of X hold the columns of both
    domains. A target history is used where it is given. Where items outnumber rows, P is not formed: with
    $C = (W^{1/2} X X^\top W^{1/2} + \lambda I)^{-1}$ and $\tilde X = W^{1/2} X$ the score of item j is
    $x_j - (x_j - x \tilde X^\top C \tilde X_j) / (1 - \tilde X_j^\top C \tilde X_j)$. Where both items and
    rows outnumber ``most``, only the ``most`` rows with most items are learned from.

    Args:
        form: what the counts of each domain are turned into, user by user.
        penalty: lambda, in units of the mean squared length of the overlapping users' rows over both domains.
        single_domain: weight in W of users of one domain. They have no clicks in the other domain, which is no
            dislike; 0 learns from the overlapping users alone.
        column_power: see ``column_scaled``.
        most: the largest matrix inverted.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        sides, items = (train.source, train.target), len(train.target.items)
        forms = [column_scaled(side, form, column_power) for side in sides]
        rows = beside(*(to(side.counts) for to, side in zip(forms, train.pairs, strict=True)), items)
        scale = penalty * _mean_square(rows)
        if single_domain > 0:
            alone = [to(side.without(train.overlapping_users).counts) for to, side in zip(forms, sides, strict=True)]
            rows = sparse.vstack([rows, np.sqrt(single_domain) * sparse.block_diag(alone, format="csr")])
        if min(rows.shape) > most:
            longest = np.argsort(-np.diff(sparse.csr_array(rows).indptr), kind="stable")[:most]
            rows = sparse.csr_array(rows)[np.sort(longest)]
        score_rows = _ease_scores(sparse.csr_array(rows), scale, len(train.source.items))

        def score(history: History) -> np.ndarray:
            target = None if history.target is None else forms[1](history.target)
            return score_rows(beside(forms[0](history.source), target, items))

        return score

    return fit


def _ease_scores(rows, penalty, first):
    """New rows -> EASE's scores of the columns from ``first`` on."""
    rows = rows.astype(_dtype(min(rows.shape)))
    if rows.shape[1] <= rows.shape[0]:
        weights = ease_weights((rows.T @ rows).toarray(), penalty)[:, first:]
        return lambda new: new @ weights
    inverse = _inverse((rows @ rows.T).toarray(), penalty)
    target = sparse.csr_array(rows[:, first:])
    back = sparse.csr_array(target.T)
    left = 1 - _explained(target, inverse)

    def score_rows(new):
        new = new.astype(rows.dtype)
        known = new[:, first:].toarray()
        explained = (back @ (inverse @ (rows @ new.T).toarray())).T
        return known - (known - explained) / left

    return score_rows


def ease_weights(gram: Float[np.ndarray, "items items"], penalty: float) -> Float[np.ndarray, "items items"]:
    r"""Return the weights of every item regressed on all others: $B = I - P\, \mathrm{diag}(P)^{-1}$.

    $P = (X^\top X + \lambda I)^{-1}$. Column j minimises $\|X_j - X b\|^2 + \lambda \|b\|^2$ under $b_j = 0$.

    Source: Steck 2019.
    """
    inverse = _inverse(np.array(gram, dtype=np.result_type(gram, np.float32)), penalty)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def _explained(target, inverse):
    """$x_j^\top C x_j$ of every column j, from the block of C that belongs to its few users."""
    columns = target.tocsc()
    result = np.zeros(columns.shape[1], inverse.dtype)
    for item in np.flatnonzero(np.diff(columns.indptr)):
        entries = slice(columns.indptr[item], columns.indptr[item + 1])
        users, values = columns.indices[entries], columns.data[entries]
        result[item] = values @ inverse[np.ix_(users, users)] @ values
    return np.minimum(result, 1 - 1e-6)  # below 1 in exact arithmetic


def emcdr(factors: int, *, form: FitForm | None = None, axes: FitAxes | None = None) -> FitMethod:
    r"""Return factors of each domain with a ridge map between them: $s = \bar x_t + (z_s A + c) V_t^\top$.

    $z_d$ are a user's coordinates on the first principal axes $V_d$ of a domain's rows, over *all* its training users;
    A and c are fitted on the overlapping users, lambda by leave-one-out error (Man et al. 2017, with the closed form of
    matrix factorisation and their linear map). Scores are in the units of the form: ``normalised_graph`` has divided
    items by the root of their popularity, which ``with_popularity(..., power=0.5)`` undoes.

    Args:
        factors: axes per domain, or all there are.
        form: what the counts are turned into: ``centred(...)`` or ``normalised_graph``. If None it is
            ``centred(log_scaled, column_power=1)``, in which every item has an equal say.
        axes: ``domain_axes(form, number)``, to share axes among candidates; its form takes the place of ``form``.
    """
    fit_axes = axes or domain_axes(form or centred(log_scaled, column_power=1.0), factors)

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        source, target = (fit_axes(side, key=key) for side in (train.source, train.target))
        paired = (
            coordinates(side, rows.counts, factors) for side, rows in zip((source, target), train.pairs, strict=True)
        )
        between = fit_ridge(*paired)
        items = target.right[:, :factors].T

        def score(history: History) -> np.ndarray:
            mapped = coordinates(source, history.source, factors) @ between.coefficients + between.intercept
            return target.mean + mapped.astype(items.dtype) @ items

        return score

    return fit


def _unit_columns(rows):
    length = np.sqrt((rows**2).sum(axis=0))
    return sparse.csr_array(rows @ sparse.diags_array(1 / np.where(length > 0, length, 1.0)))


def _mean_square(rows):
    """Mean squared length of the rows."""
    return float((rows**2).sum() / rows.shape[0])


def _dtype(side):
    return np.float32 if side > SINGLE else np.float64


def _plus(gram, penalty):
    gram[np.diag_indices_from(gram)] += gram.dtype.type(penalty)
    return gram.T  # symmetric; in LAPACK's order, so that it is overwritten and not copied


def _factor(gram, penalty):
    return linalg.cho_factor(_plus(gram, penalty), overwrite_a=True, check_finite=False)


def _inverse(gram, penalty):
    return linalg.inv(_plus(gram, penalty), overwrite_a=True, check_finite=False)

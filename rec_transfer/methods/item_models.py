"""Models of the counts alone, each a function from its settings to a method: item-cosine, EASE, EMCDR."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import sparse

from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.types import FitMethod, History, Interactions, Key, Scorer, TrainingData

Form = Callable[[sparse.csr_array], sparse.csr_array]  # what counts are turned into, user by user


def plain(counts: sparse.csr_array) -> sparse.csr_array:
    """The counts as they are."""
    return counts.astype(float)


def clicked(counts: sparse.csr_array) -> sparse.csr_array:
    """1 where there is a click, else 0."""
    return (counts > 0).astype(float)


def damped(counts: sparse.csr_array) -> sparse.csr_array:
    r"""$\log(1 + x)$ scaled to length 1 per user: neither a heavy user nor a hundred clicks on one item dominates."""
    logs = counts.astype(float).log1p()
    lengths = sparse.linalg.norm(logs, axis=1)
    return sparse.csr_array(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1.0)) @ logs)


def item_cosine(form: Form, popularity: float) -> FitMethod:
    r"""Items of the target that the same people like: $s_j = \sum_i \tilde x_i \cos(\tilde X_i, \tilde X_j)$.

    The columns run over the overlapping users. The sums are standardised per user, so that they can be added to the
    standardised log-clicks of the target's items in a fixed proportion.

    Args:
        form: what the counts are turned into, user by user.
        popularity: weight of the log-popularity.

    Source: item-based neighbours of Sarwar et al. 2001, taken across domains.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        from sklearn.metrics.pairwise import cosine_similarity

        source, target = (form(side.counts) for side in train.pairs)
        similarity = cosine_similarity(source.T, target.T, dense_output=False)  # few items share a user
        prior = popularity * standardised(np.log1p(train.target.counts.sum(axis=0)[None, :]))

        def score(history: History) -> np.ndarray:
            return standardised((form(history.source) @ similarity).toarray()) + prior

        return score

    return fit


def standardised(scores: Float[np.ndarray, "users items"]) -> Float[np.ndarray, "users items"]:
    """Mean 0 and variance 1 in every row; a row of equals becomes zeros."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = scores.std(axis=1, keepdims=True)
    return centred / np.where(spread > 1e-9, spread, 1.0) * (spread > 1e-9)


def ease_weights(gram: Float[np.ndarray, "items items"], penalty: float) -> Float[np.ndarray, "items items"]:
    r"""Every item regressed on all others: $B = I - P\, \mathrm{diag}(P)^{-1}$, $P = (X^\top X + \lambda I)^{-1}$.

    Column j minimises $\|X_j - X b\|^2 + \lambda \|b\|^2$ under $b_j = 0$ (Steck 2019).
    """
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def ease(form: Form, penalty: float, *, strangers: float = 1.0, evenness: float = 0.0) -> FitMethod:
    r"""EASE on stacked domains: one row per user of either domain, the columns of both; $s = \tilde x_s B_{st}$.

    Users of one domain have no clicks in the other, which is no dislike: their rows count with the weight
    ``strangers``, 0 to learn from the overlapping users alone.

    Args:
        form: what the counts are turned into, user by user.
        penalty: lambda, in units of the mean squared length of a column.
        strangers: weight of users of one domain.
        evenness: see ``even_columns``.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        sides = train.source, train.target
        forms = [even_columns(side, form, evenness) for side in sides]
        both = sparse.hstack([to(side.counts) for to, side in zip(forms, train.pairs, strict=True)])
        gram = (both.T @ both).toarray()
        if strangers > 0:
            shared = train.overlapping_users
            alone = [to(side.without(shared).counts) for to, side in zip(forms, sides, strict=True)]
            gram += strangers * sparse.block_diag([rows.T @ rows for rows in alone]).toarray()
        weights = ease_weights(gram, penalty * np.trace(gram) / len(gram))
        across = weights[: len(train.source.items), len(train.source.items) :]

        def score(history: History) -> np.ndarray:
            return forms[0](history.source) @ across

        return score

    return fit


def emcdr(factors: int, evenness: float) -> FitMethod:
    r"""Factors of each domain with a ridge map between them: $s = \bar x_t + (z_s A + c) V_t^\top$.

    $z_d = (\tilde x_d - \bar x_d) V_d$ are the scores on the first principal axes of a domain's damped counts, over
    *all* its training users; A and c are fitted on the overlapping users (Man et al. 2017, with the closed form of
    matrix factorisation and their linear map).

    Args:
        factors: principal axes per domain, or all there are.
        evenness: see ``even_columns``.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        (source_form, source), (target_form, target) = (
            principal_axes(side, evenness) for side in (train.source, train.target)
        )
        paired_source, paired_target = train.pairs
        ridge = fit_ridge(
            source.transform(source_form(paired_source.counts))[:, :factors],
            target.transform(target_form(paired_target.counts))[:, :factors],
        )

        def score(history: History) -> np.ndarray:
            factor_scores = source.transform(source_form(history.source))[:, :factors]
            mapped = factor_scores @ ridge.coefficients + ridge.intercept
            return target.mean_ + mapped @ target.components_[:factors]

        return score

    return fit


@lru_cache(maxsize=8)  # candidates that differ in the number of factors share them
def principal_axes(domain: Interactions, evenness: float):
    """A domain's form of counts and all principal axes of its users' rows in that form, the widest first."""
    from sklearn.decomposition import PCA

    to = even_columns(domain, damped, evenness)
    return to, PCA(svd_solver="covariance_eigh").fit(to(domain.counts))


def even_columns(domain: Interactions, form: Form, power: float) -> Form:
    """A form whose columns are divided by their standard deviation over all the domain's users, to some power.

    Squared errors count where the variance is, and that is in the popular items. 0 leaves it so, 1 gives each item
    an equal say.
    """
    rows = form(domain.counts)
    spread = np.sqrt(np.maximum((rows**2).mean(axis=0) - rows.mean(axis=0) ** 2, 0.0))
    scale = sparse.diags_array(np.where(spread > 1e-9, spread, 1.0) ** -power)
    return lambda counts: form(counts) @ scale

"""The linear rungs and their mixture for large catalogues: nothing of size users x items or items x items is kept.

Each is a function from its settings to a ``FitMethod``; scores are dense for the chunk of users asked for alone.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import linalg, sparse

from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.methods.item_models import clicked, standardised
from rec_transfer.types import FitMethod, History, Interactions, Key, Scorer, TrainingData

AXES = 512  # computed once per domain; a map takes as many of the first as it is told
PAIRED = 8000  # overlapping users that ridge learns from at most: their products are 256 MB then
INVERTED = 4000  # rows that EASE learns from at most: an inverse takes six times as long as ridge's factor
CHUNK = 256  # users diffused at a time
LEAST = 1e-9


def unit_rows(counts: sparse.csr_array) -> sparse.csr_array:
    """1 where there is a click, scaled to length 1 per user; a user without any stays zero."""
    rows = clicked(counts)
    length = np.sqrt(rows.sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(length, LEAST)) @ rows).astype(np.float32)


@lru_cache(maxsize=5)  # by identity: directions, settings and seeds share the axes of a domain
def principal_axes(domain: Interactions, axes: int = AXES):
    r"""Right singular vectors V [items, axes] of $D_u^{-1/2} X D_i^{-1/2}$, and $d_i$, the users of each item.

    X is 1 where there is a click, $D_u$ and $D_i$ hold its row and column sums: the graph of users and items,
    normalised on both sides so that neither the active nor the popular decide alone (as in Chung 1997).
    """
    from sklearn.utils.extmath import randomized_svd

    degree = np.maximum(np.asarray(clicked(domain.counts).sum(axis=0)).ravel(), 1.0)
    normalised = sparse.csr_array(unit_rows(domain.counts) @ sparse.diags_array(degree**-0.5)).astype(np.float32)
    axes = min(axes, min(normalised.shape) - 1)
    _, _, right = randomized_svd(normalised, axes, n_oversamples=20, n_iter=4, random_state=0)
    return right.T, degree


def places(counts: sparse.csr_array, axes, degree) -> Float[np.ndarray, "users axes"]:
    r"""Users on the axes of a domain, $x D_i^{-1/2} V$, scaled to length 1."""
    rows = np.asarray(unit_rows(counts) @ (axes * degree[:, None] ** -0.5))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), LEAST)


@lru_cache(maxsize=2)
def _map(train: TrainingData, factors: int, axes: int):
    """The ridge map between the first axes of both domains, lambda by leave-one-out error."""
    wholes = train.source, train.target
    sides = [(side.counts, *principal_axes(whole, axes)) for side, whole in zip(train.pairs, wholes, strict=True)]
    return fit_ridge(*(places(counts, first[:, :factors], degree) for counts, first, degree in sides))


def spectral_map(factors: int, popularity: float, *, axes: int = AXES) -> FitMethod:
    r"""EMCDR on the graphs' axes: $s = (z_s A + c) V_t^\top D_i^{\,p}$, $z_d$ from ``places``.

    The axes come from all users of a domain; A and c from the overlapping users (Man et al. 2017 with the axes of a
    normalised graph for factors).

    Args:
        factors: axes per domain, the first of ``axes`` computed once for all maps, the last of which are rough.
        popularity: p; 1/2 undoes the normalisation of the items, more lifts the popular ones.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        source_axes, source_degree = principal_axes(train.source, axes)
        target_axes, target_degree = principal_axes(train.target, axes)
        ridge = _map(train, factors, axes)
        items = (target_axes[:, :factors] * target_degree[:, None] ** popularity).T.astype(np.float32)

        def score(history: History) -> np.ndarray:
            mapped = places(history.source, source_axes[:, :factors], source_degree) @ ridge.coefficients
            return (mapped + ridge.intercept).astype(np.float32) @ items

        return score

    return fit


def popular(domain: Interactions) -> Float[np.ndarray, " items"]:
    """Share of the domain's training users that have each item."""
    return np.asarray(clicked(domain.counts).mean(axis=0), np.float32).ravel()


def _paired(train: TrainingData, most: int):
    """Source and target counts of the overlapping users; those ``most`` who did most in both, if there are more."""
    source, target = (side.counts for side in train.pairs)
    if source.shape[0] > most:
        activity = np.minimum(*(np.asarray(clicked(side).sum(axis=1)).ravel() for side in (source, target)))
        chosen = np.sort(np.argsort(-activity, kind="stable")[:most])
        source, target = source[chosen], target[chosen]
    return source, target


@lru_cache(maxsize=1)  # one factor is as large as the products; settings of one penalty come one after another
def _ridge_factor(train: TrainingData, penalty: float):
    r"""Rows of length 1 of the overlapping users in both domains; the Cholesky factor of $X_s X_s^\top + \lambda I$."""
    source, target = map(unit_rows, _paired(train, PAIRED))
    products = (source @ source.T).toarray()
    products[np.diag_indices_from(products)] += np.float32(penalty)
    return source, target, linalg.cho_factor(products.T, overwrite_a=True, check_finite=False)


def paired_ridge(penalty: float, popularity: float) -> FitMethod:
    r"""Ridge from source to target rows: $s = x_s X_s^\top (X_s X_s^\top + \lambda I)^{-1} X_t + w p$.

    The dual form costs the overlapping users cubed, so that at most ``PAIRED`` are used, whatever the catalogues. It
    remembers: an item that the same few people have in both domains is found again.

    Args:
        penalty: lambda; rows have length 1.
        popularity: w, times the share p of the target's users that have an item.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        source, target, factor = _ridge_factor(train, penalty)
        share = popular(train.target)

        def score(history: History) -> np.ndarray:
            weights = linalg.cho_solve(factor, (source @ unit_rows(history.source).T).toarray()).T
            return (target.T @ weights.T).T + np.float32(popularity) * share

        return score

    return fit


def stacked(history: History, target_items: int) -> sparse.csr_array:
    """Histories over the columns of both domains, rows of length 1; zeros for a target history that is not given."""
    target = history.target
    if target is None:
        target = sparse.csr_array((history.source.shape[0], target_items), dtype=history.source.dtype)
    return unit_rows(sparse.csr_array(sparse.hstack([history.source, target])))


def stacked_axes(factors: int, popularity: float) -> FitMethod:
    r"""One graph of all users and the items of both domains, its first axes: $s = z V_t^\top D_i^{\,p}$.

    The overlapping users hold the two halves together, so no map is fitted; target histories are used where given.
    The arguments are those of ``spectral_map``.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        axes, degree = principal_axes(_both(train))
        axes, first = axes[:, :factors], len(train.source.items)
        items = (axes[first:] * degree[first:, None] ** popularity).T.astype(np.float32)

        def score(history: History) -> np.ndarray:
            rows = stacked(history, items.shape[1])
            return (rows @ (axes * degree[:, None] ** -0.5)).astype(np.float32) @ items

        return score

    return fit


def diffusion(steps: int, popularity: float) -> FitMethod:
    r"""Where walks from a user's items end, in the graph of all users and the items of both domains.

    $s = \sum_{k=1}^{K} x D_i^{-1/2} (R^\top R)^k D_i^{\,p}$ with $R = D_u^{-1/2} X D_i^{-1/2}$: k = 1 is items that
    share users with the user's own, every further step goes on to what those users have (the random walks of Cooper
    et al. 2014, normalised as ``principal_axes``). Nothing is fitted, and no direction of the graph is left out as
    its axes do; the popular items, which every walk comes to, stand out more with each step.

    Args:
        steps: K.
        popularity: see ``spectral_map``.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        both, first = _both(train), len(train.source.items)
        degree = np.maximum(np.asarray(clicked(both.counts).sum(axis=0)).ravel(), 1.0)
        walk = sparse.csr_array(unit_rows(both.counts) @ sparse.diags_array(degree**-0.5)).astype(np.float32)
        back = sparse.csr_array(walk.T)
        items = (degree[first:, None] ** popularity).astype(np.float32)

        def score(history: History) -> np.ndarray:
            rows = stacked(history, len(items)) @ sparse.diags_array(degree**-0.5)
            result = np.zeros((rows.shape[0], len(items)), np.float32)
            for start in range(0, rows.shape[0], CHUNK):
                part = rows[start : start + CHUNK].toarray().T.astype(np.float32)
                for _ in range(steps):
                    part = back @ (walk @ part)
                    result[start : start + CHUNK] += part[first:].T
            return result * items.T

        return score

    return fit


@lru_cache(maxsize=4)
def _both(train: TrainingData) -> Interactions:
    """Both domains as one: a row per user of either, the columns of both."""
    users = np.union1d(train.source.users, train.target.users)
    sides = []
    for side in (train.source, train.target):
        places = np.searchsorted(users, side.users)
        picks = sparse.csr_array(
            (np.ones(len(places), np.int32), (places, np.arange(len(places)))), shape=(len(users), len(places))
        )
        sides.append(picks @ side.counts)
    items = np.concatenate([[f"{side.domain}:{item}" for item in side.items] for side in (train.source, train.target)])
    return Interactions("both", sparse.csr_array(sparse.hstack(sides)), users, items)


def warm(method: FitMethod) -> FitMethod:
    """A method that reads one domain, reading both: the columns of the target join the source's, in every history."""

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        both, items = _both(train), len(train.target.items)
        scorer = method(TrainingData(both, train.target), key=key)

        def score(history: History) -> np.ndarray:
            target = history.target
            if target is None:
                target = sparse.csr_array((history.source.shape[0], items), dtype=history.source.dtype)
            return scorer(History(sparse.csr_array(sparse.hstack([history.source, target]))))

        return score

    return fit


def paired_ease(penalty: float, popularity: float, *, strangers: bool = False) -> FitMethod:
    r"""EASE on the stacked rows of the overlapping users (see ``item_models.ease``), through the users.

    $(X^\top X + \lambda I)^{-1} = (I - X^\top C X) / \lambda$ with $C = (X X^\top + \lambda I)^{-1}$ over stacked rows;
    with $y = x X^\top C X$ and $o_j = X_j^\top C X_j$, EASE scores $s_j = x_j - (x_j - y_j) / (1 - o_j)$: the same
    numbers without items x items. Target histories are used where given.

    Args:
        penalty, popularity: see ``paired_ridge``.
        strangers: learn from users of one domain too; of more than ``INVERTED`` rows, from the longest.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        source = train.source.counts
        rows = _both(train).counts if strangers else sparse.csr_array(sparse.hstack(_paired(train, INVERTED)))
        rows = unit_rows(rows[np.sort(np.argsort(-np.diff(rows.indptr), kind="stable")[:INVERTED])])
        gram = (rows @ rows.T).toarray()
        gram[np.diag_indices_from(gram)] += np.float32(penalty)
        inverse = linalg.inv(gram.T, overwrite_a=True, check_finite=False)
        there = sparse.csr_array(rows[:, source.shape[1] :])
        own, share = _own(there, inverse), np.float32(popularity) * popular(train.target)

        def score(history: History) -> np.ndarray:
            new = stacked(history, there.shape[1])
            known = new[:, source.shape[1] :].toarray()
            explained = (there.T @ ((rows @ new.T).toarray().T @ inverse).T).T
            return known - (known - explained) / (1 - own) + share

        return score

    return fit


def _own(rows, inverse):
    """$x_j^\top C x_j$ of every column j: its few users' block of C."""
    columns = rows.tocsc()
    own = np.zeros(columns.shape[1], np.float32)
    for item in np.flatnonzero(np.diff(columns.indptr)):
        entries = slice(columns.indptr[item], columns.indptr[item + 1])
        users, values = columns.indices[entries], columns.data[entries]
        own[item] = values @ inverse[np.ix_(users, users)] @ values
    return np.minimum(own, 1 - 1e-6)


def mixture(methods: Mapping[str, FitMethod], weights: Mapping[str, float]) -> FitMethod:
    r"""Sum of the methods' scores, each standardised over a user's items: $\sum_m w_m (s_m - \bar s_m) / \sigma_m$.

    What a map through few latent dimensions must forget (two listings of one product), a memory of rows keeps; what
    the memory cannot say of items that no like-minded user has, the map does.

    Raises:
        ValueError: methods and weights of other names, or no weight above zero.
    """
    if set(methods) != set(weights) or not any(weight > 0 for weight in weights.values()):
        raise ValueError(
            f"weights: got {dict(weights)}, expected one for each of {sorted(methods)}, with one above zero"
        )
    used = {name: weight for name, weight in weights.items() if weight != 0}

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        scorers = {name: methods[name](train, key=key) for name in used}

        def score(history: History) -> Float[np.ndarray, "users items"]:
            return sum(used[name] * standardised(np.asarray(scorer(history))) for name, scorer in scorers.items())

        return score

    return fit

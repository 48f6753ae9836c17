"""The first axes of a domain's rows (a truncated singular value decomposition), and users on them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import linalg, sparse

from rec_transfer.keys import numpy_generator, once_per_key
from rec_transfer.models.forms import NO_SPREAD, FitForm, Form
from rec_transfer.types import Interactions, Key

EXACT = 1000  # up to so many users or items the decomposition is exact: a second; above it, it is iterated
TOLERANCE = 1e-3  # largest residual of an iterated axis, as a share of the largest eigenvalue


class Axes(NamedTuple):
    """The first axes of a domain's rows, the widest first.

    Args:
        rows: what counts are turned into (see ``DomainForm``).
        mean: what is subtracted from every row.
        unit: whether a user's coordinates are scaled to length 1.
        right: right singular vectors V, one column per axis.
        singular: singular values, descending.
    """

    rows: Form
    mean: Float[np.ndarray, " items"]
    unit: bool
    right: Float[np.ndarray, "items axes"]
    singular: Float[np.ndarray, " axes"]


FitAxes = Callable[..., Axes]  # fit(domain, *, key) -> Axes


def domain_axes(form: FitForm, number: int, *, tolerance: float = TOLERANCE) -> FitAxes:
    """Return ``fit(domain, *, key) -> Axes``, computed once per domain and key and kept while the domain lives.

    Candidates that differ in the number of factors share one such function, made for the largest of them.

    Args:
        form: what the counts are turned into.
        number: axes computed, or all there are.
        tolerance: see ``leading_axes``; with a looser one, which is faster, the last axes are rough.
    """

    def fit(domain: Interactions, *, key: Key) -> Axes:
        rows, mean, unit = form(domain)
        right, singular = leading_axes(rows(domain.counts), mean, number, key=key, tolerance=tolerance)
        return Axes(rows, mean, unit, right, singular)

    return once_per_key(fit)


def coordinates(axes: Axes, counts: sparse.csr_array, number: int) -> Float[np.ndarray, "users axes"]:
    r"""Return users on the first axes, $z = (\tilde x - \bar x) V$, scaled to length 1 where the form says so."""
    first = axes.right[:, :number]
    result = axes.rows(counts) @ first - axes.mean @ first
    if axes.unit:
        result = result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), NO_SPREAD)
    return result


def leading_axes(
    rows: sparse.csr_array, mean: np.ndarray, number: int, *, key: Key, exact: int = EXACT, tolerance: float = TOLERANCE
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the first right singular vectors of $R - 1 \bar r^\top$ [items, axes] and their singular values.

    The Gram matrix G of the smaller side is decomposed; nothing is centred in memory. Up to ``exact`` users or items,
    or for more than a third of all axes, it is decomposed whole. Otherwise a random block is multiplied by G again and
    again, and the axes are taken from all the products together (block Lanczos, Golub and Underwood 1977), until
    $\|G v - \sigma^2 v\| \le$ ``tolerance`` $\sigma_1^2$ for every axis.

    Args:
        rows: R, one row per user.
        mean: subtracted from every row.
        number: axes wanted, or all there are.
        exact: the largest side that is decomposed whole.
        tolerance: largest residual of an axis, as a share of the largest eigenvalue.
    """
    users, items = rows.shape
    number = min(number, users, items)
    transposed = sparse.csr_array(rows.T)

    def down(vectors):  # users' side to items' side: the transpose of the centred rows
        return transposed @ vectors - np.outer(mean, vectors.sum(axis=0)).astype(vectors.dtype)

    def up(vectors):
        return rows @ vectors - (mean @ vectors).astype(vectors.dtype)

    by_items = items <= users
    gram = (lambda vectors: down(up(vectors))) if by_items else (lambda vectors: up(down(vectors)))
    side = min(users, items)
    if side <= exact or 3 * number > side:
        values, vectors = linalg.eigh(gram(np.eye(side)), subset_by_index=(side - number, side - 1))
    else:
        rows, transposed = rows.astype(np.float32), transposed.astype(np.float32)
        start = numpy_generator(key).normal(size=(side, max(16, number // 8))).astype(np.float32)
        values, vectors = _block_lanczos(gram, start, number, tolerance)
    singular = np.sqrt(np.maximum(values[::-1], 0.0))
    vectors = vectors[:, ::-1]
    if by_items:
        return vectors, singular
    return down(vectors) / np.maximum(singular, NO_SPREAD).astype(vectors.dtype), singular


def _block_lanczos(gram, block, number, tolerance):
    """The largest eigenvalues of ``gram``, ascending, and their vectors: a Krylov basis kept orthogonal throughout."""
    side, checked = len(block), number
    basis, inside = np.empty((side, 0), block.dtype), np.empty((0, 0))
    block, _ = linalg.qr(block, mode="economic", check_finite=False)
    while True:
        product = gram(block)
        known, width = basis.shape[1], block.shape[1]
        basis = np.hstack([basis, block])
        along = basis.T @ product
        inside = np.block([[inside, along[:known]], [along[:known].T, along[known:]]])
        rest = product - basis @ along
        rest -= basis @ (basis.T @ rest)
        block, coupling = linalg.qr(rest, mode="economic", check_finite=False)
        if np.abs(np.diag(coupling)).min() < 1e-3 * np.abs(inside).max():  # little is left: QR's columns may be any
            block -= basis @ (basis.T @ block)
        block, _ = linalg.qr(block[:, : side - known - width], mode="economic", check_finite=False)
        whole = block.shape[1] == 0
        if known + width >= 1.25 * checked or whole:
            checked = known + width
            values, turned = linalg.eigh(inside, subset_by_index=(checked - number, checked - 1))
            residual = np.linalg.norm(coupling @ turned[-width:], axis=0).max()
            if residual <= tolerance * values[-1] or whole:
                return values, basis @ turned.astype(basis.dtype)

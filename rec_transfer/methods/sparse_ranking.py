"""Ranks of what was held out, for all users of a large domain: scored and counted in chunks, nothing sorted."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from rec_transfer.evaluation.metrics import ties_above
from rec_transfer.models.compressed import Precision, SparseBatch, dense_layer, input_values, lay_out, sparse_product
from rec_transfer.models.vae import VAE
from rec_transfer.types import Key

CELLS_AT_ONCE = 1_000_000  # users x items scored at a time: 4 MB, which stay in the processor's cache
ITEMS_AT_ONCE = 32  # compared before the sums are written
PLACES = 8  # held-out entries of a user that a chunk has room for, or 2, 3, 4, 8, 16 ... times as many


def rank_held_out(
    model: VAE, seen: sparse.csr_array, held_out: sparse.csr_array, *, key: Key, precision: Precision = "float32"
) -> Int[np.ndarray, " entries"]:
    """Rank of every stored entry of ``held_out``, in its order, among the items its user has not been seen with.

    The rank is 1 + how many of them score higher, and of e that score the same, 0 to e above, each as likely
    (``metrics.rank_of``). Users with as many entries go together, so that little is padded.

    Args:
        seen: counts [users, items] that the model reads and that take no place in the list; an entry of ``held_out``
            that was seen ranks behind everything.
        held_out: [users, items], compressed rows.

    Raises:
        ValueError: matrices of another shape than each other, or of another number of items than the model, or a
            score that is NaN.
    """
    if seen.shape != held_out.shape or seen.shape[1] != model.items:
        raise ValueError(
            f"seen and held_out: got shapes {seen.shape} and {held_out.shape}, expected one of {model.items} items"
        )
    number = np.diff(held_out.indptr)
    order = np.argsort(number, kind="stable")
    order = order[number[order] > 0]
    size = max(1, min(CELLS_AT_ONCE // model.items, len(order)))
    chunks = np.resize(order, (-(-len(order) // size), size))  # the last is filled up with users again
    room = max((int(np.diff(seen.indptr)[rows].sum()) for rows in chunks), default=0)
    found, places = [], []
    for rows in chunks:
        place = _padded(held_out.indptr, number, rows)
        items = np.where(place < 0, -1, held_out.indices[place])
        batch = jax.tree.map(lambda array: array[0], lay_out(seen, rows[None], max(room, 1)))
        if len(found) > 1:  # two chunks at a time: one is scored while the other is counted
            jax.block_until_ready(found[-2])
        found.append(_higher_and_equal(scores(model, batch, precision=precision), batch, items))
        places.append(place)
    higher, equal = np.zeros(held_out.nnz, int), np.zeros(held_out.nnz, int)
    for place, (above, same, fine) in zip(places, found, strict=True):
        if not fine:
            raise ValueError("model: got scores that are NaN, expected numbers")
        there = place >= 0
        higher[place[there]], equal[place[there]] = np.asarray(above)[there], np.asarray(same)[there]
    return 1 + higher + ties_above(equal, key=key)


def _padded(starts, number, users):
    """Positions of the users' entries [users, places], -1 where one has fewer; few widths, to compile few."""
    places = -(-int(number[users].max()) // PLACES)
    places = PLACES * (places if places <= 4 else 1 << (places - 1).bit_length())
    column = np.arange(places)
    return np.where(column < number[users][:, None], starts[users][:, None] + column, -1)


@partial(jax.jit, static_argnames=("precision",))
def scores(model: VAE, batch: SparseBatch, *, precision: Precision = "float32") -> Float[Array, "users items"]:
    """Logits of all items at the mean of z, from compressed rows: ``model.decoder(model.encoder(counts)[0])``."""

    def layer(linear, inputs):
        return dense_layer(inputs, linear.kernel[...], linear.bias[...], precision)

    first = model.encoder.hidden
    features = jnp.tanh(sparse_product(input_values(batch), batch, first.kernel[...]) + first.bias[...])
    return layer(model.decoder.logits, jnp.tanh(layer(model.decoder.hidden, layer(model.encoder.mean, features))))


@jax.jit  # apart from the scores, which are compiled once and not for every number of places
def _higher_and_equal(logits, batch, items):
    own = jnp.take_along_axis(logits, jnp.maximum(items, 0), axis=1)
    seen = logits.at[batch.users, batch.items].set(-jnp.inf, mode="drop")
    # An item that was seen stays in its own list, as the last: nothing scores like it, and all the others higher.
    own = jnp.where(jnp.take_along_axis(seen, jnp.maximum(items, 0), axis=1) == -jnp.inf, -jnp.inf, own)
    higher, equal = count(seen, own)
    return higher, jnp.where(own == -jnp.inf, 0, equal - 1), ~jnp.isnan(logits).any()


def count(
    scores: Float[Array, "users items"], own: Float[Array, "users places"]
) -> tuple[Int[Array, "users places"], Int[Array, "users places"]]:
    """How many of a user's scores are higher than, and equal to, each of the user's own.

    Item by item for all users and places at once: sums along a row of scores would not be vectorised on the CPU.
    """
    columns = jnp.pad(scores.T, ((0, -scores.shape[1] % ITEMS_AT_ONCE), (0, 0)), constant_values=jnp.nan)
    own = own.T

    def of_items(block, sums):
        higher, equal = sums
        for place in range(ITEMS_AT_ONCE):  # each is read where it is compared: a slice of all would be copied first
            item = jax.lax.dynamic_index_in_dim(columns, block * ITEMS_AT_ONCE + place, keepdims=False)
            higher, equal = higher + (item > own), equal + (item == own)  # neither where the item is padding: NaN
        return higher, equal

    start = jnp.zeros(own.shape, jnp.int32)
    higher, equal = jax.lax.fori_loop(0, len(columns) // ITEMS_AT_ONCE, of_items, (start, start))
    return higher.T, equal.T

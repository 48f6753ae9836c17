"""What a training loop reads: shuffled minibatches of arrays in memory, or of compressed rows laid out on the host."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy import sparse

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.training import devices
from rec_transfer.training.checkpoints import digest
from rec_transfer.training.sparse_batch import SparseBatch, capacity, compress
from rec_transfer.types import Key

CHUNK_ENTRIES = 300_000  # laid out at a time, 20 bytes each: the device waits for the first, and starts anew with each


class Chunk(NamedTuple):
    """Some steps of an epoch: their data, the epoch's steps before them, and how many steps they are."""

    data: Any
    first: int
    count: int


class Batches(NamedTuple):
    """A data set as minibatches; made by ``in_memory`` or ``compressed_rows``.

    Args:
        users: how many there are.
        batch_size: users per step.
        steps: steps per epoch. Every user is seen in each epoch; the last batch is filled up with a few users again.
        chunks: ``chunks(key, number, epochs)`` yields the chunks of an epoch, a function of its arguments alone.
        in_order: ``in_order()`` yields (batch, users) of everybody, unshuffled and without noise, to take a loss on.
        take: ``take(data, index) -> (batch, noise)``, a step of a chunk; a module-level function, called when compiled.
            The noise is what the loss is handed as ``key``.
        mesh: the devices that share a batch; None is one.
        by_share: whether each device's share of a batch is laid out for it, apart; else the compiler splits a batch.
        identity: ``identity()`` returns what a checkpoint must agree in.
    """

    users: int
    batch_size: int
    steps: int
    chunks: Callable[[Key, int, int], Iterator[Chunk]]
    in_order: Callable[[], Iterator[tuple[Any, int]]]
    take: Callable
    mesh: Mesh | None
    by_share: bool
    identity: Callable[[], dict]


def in_memory(data: Any, batch_size: int, *, mesh: Mesh | None = None, name: str = "data") -> Batches:
    """Return batches of a pytree of arrays whose first axis is users.

    The order of users and the noise are drawn by JAX: the key of an epoch is split into one for the order and one for
    the noise, of which every step gets its own.

    Raises:
        ValueError: no users, arrays that disagree on how many there are, or batches that do not divide by the devices.
    """
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{name}: got arrays with {sorted(lengths)} users, expected one number of at least 1")
    (users,) = lengths
    size, steps = _sizes(users, batch_size, mesh)
    arrays = jax.tree.map(jnp.asarray, data) if mesh is None else devices.on_each(mesh, data)

    def chunks(key, number, epochs):
        order = _shuffled(key, number, epochs=epochs, users=users, steps=steps, batch_size=size)
        yield Chunk((arrays, *(order if mesh is None else devices.on_each(mesh, order))), 0, steps)

    return Batches(
        users, size, steps, chunks, lambda: iter([(arrays, users)]), rows_of_step, mesh, False,
        lambda: {name: digest(*jax.tree.leaves(data)), "draws": "jax 1"},
    )  # fmt: skip


@partial(jax.jit, static_argnames=("epochs", "users", "steps", "batch_size"))
def _shuffled(key, number, *, epochs, users, steps, batch_size):
    """Rows [steps, batch size] and a key for the noise of each step."""
    purposes = named_keys(jax.random.split(key, epochs)[number], "shuffle", "noise")
    order = jax.random.permutation(purposes["shuffle"], users)
    rows = jnp.resize(order, (steps, batch_size))  # wraps around: nobody is left out of an epoch
    return rows, jax.random.split(purposes["noise"], steps)


def rows_of_step(data: Any, index: Any) -> Any:
    """Return the rows of arrays in memory that a step reads, and its key."""
    arrays, rows, keys = data
    return jax.tree.map(lambda array: array[rows[index]], arrays), keys[index]


def compressed_rows(
    counts: sparse.csr_array,
    batch_size: int,
    *,
    dropout: float = 0.0,
    noise: int = 0,
    mesh: Mesh | None = None,
    name: str = "data",
    chunk_entries: int = CHUNK_ENTRIES,
) -> Batches:
    """Return batches of compressed rows [users, items] as ``SparseBatch``, which no dense matrix is made of.

    The rows of an epoch are laid out on the host in chunks of steps, while the device computes the chunk before. Order,
    dropout and noise are drawn by NumPy (JAX's generator would add a quarter to the compilation).

    Args:
        counts: no entry stored twice; may lie in a memory-mapped file.
        batch_size: users per step (all of them where there are fewer).
        dropout: share of the entries that the encoder does not see while training.
        noise: numbers per user and step that the loss is handed as ``key``, uniform on [0, 1): [users, noise].
        mesh: a process draws dropout and noise for all devices, but lays out the rows of its own devices alone.
        name: of the counts, in errors and checkpoints.
        chunk_entries: about how many entries are laid out at a time.

    Raises:
        ValueError: no users, or batches that do not divide by the devices.
    """
    users = counts.shape[0]
    if not users:
        raise ValueError(f"{name}: got shape {counts.shape}, expected at least 1 user")
    size, steps = _sizes(users, batch_size, mesh)
    shares = 1 if mesh is None else mesh.size
    room, lengths = capacity(counts, size // shares), np.diff(counts.indptr)
    per_step = shares * room + size * noise // 5  # a number of the noise takes 4 bytes, not 20
    number_of_chunks = min(steps, -(-steps * per_step // chunk_entries))
    per_chunk = -(-steps // number_of_chunks)

    def chunks(key, number, epochs):
        generator = numpy_generator(key, number)  # of order and dropout
        numbers = numpy_generator(key, number, 1)  # of its own, so that no draw depends on where a chunk ends
        # wraps around: nobody is left out
        rows = np.resize(generator.permutation(users), (number_of_chunks, per_chunk, shares, size // shares))
        used = lengths[rows].sum(axis=-1)
        most = max(room, int(used.max()))
        for chunk, chosen in enumerate(rows):
            seen = generator.random(used[chunk].sum(), dtype=np.float32) >= dropout
            uniform = numbers.random((*chosen.shape, noise), dtype=np.float32)
            if mesh is None:
                data = compress(counts, chosen[:, 0], most, seen), uniform[:, 0]
            else:
                data = devices.shard(mesh, shares_of(counts, chosen, most, seen, uniform, devices.local_shares(mesh)))
            first = chunk * per_chunk
            yield Chunk(data, first, min(per_chunk, steps - first))

    return Batches(
        users, size, steps, chunks, partial(_whole_rows, counts, size), entries_of_step, mesh, mesh is not None,
        lambda: {name: digest(counts.data, counts.indices, counts.indptr), "draws": "NumPy 3"},
    )  # fmt: skip


def shares_of(
    counts: sparse.csr_array,
    rows: np.ndarray,
    entries: int,
    seen: np.ndarray,
    uniform: np.ndarray,
    own: list[int],
) -> Any:
    """Return batches and noise [steps, own shares, ...] of rows [steps, shares, users].

    Dropout and noise were drawn for the whole batch, so that each share hides and adds what one device would.
    """
    ends = np.cumsum(np.diff(counts.indptr)[rows].sum(axis=-1))
    parts = np.split(seen, ends[:-1])

    def share(number):
        of_share = np.concatenate(parts[number :: rows.shape[1]])
        return compress(counts, rows[:, number], entries, of_share), uniform[:, number]

    return jax.tree.map(lambda *parts: np.stack(parts, axis=1), *map(share, own))


def entries_of_step(data: Any, index: Any) -> Any:
    """Return the compressed rows that a step reads, and its noise."""
    return jax.tree.map(lambda array: array[index], data)


def _whole_rows(counts: sparse.csr_array, size: int) -> Iterator[tuple[SparseBatch, int]]:
    users = counts.shape[0]
    rows = np.resize(np.arange(users), (-(-users // size), size))
    entries = max(int(np.diff(counts.indptr)[rows].sum(axis=1).max()), 1)
    for number, batch in enumerate(rows):
        layout = compress(counts, batch[None], entries)
        yield jax.tree.map(lambda array: array[0], layout), min(size, users - number * size)


def _sizes(users, batch_size, mesh):
    """Users per step, and steps."""
    size = min(batch_size, users)
    if mesh is not None and size % mesh.size:
        raise ValueError(
            f"batch_size: got batches of {size} users, expected a multiple of the {mesh.size} devices that share them"
        )
    return size, -(-users // size)

"""Training of a domain's VAE on compressed rows: 10^5 users x 10^4 items without a dense matrix, several times faster.

The same network and objective as ``vae.train_vae``. It is a function of its own, and no switch inside that one: here
all that is random is drawn on the host, so that equal keys give other (equally good) parameters, and a log that grows
past some bound should not change what its notebook says. (JAX's generator would add a quarter to compilation.)
"""

import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float
from scipy import sparse

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.models import compressed
from rec_transfer.models.compressed import Precision, sparse_negative_elbo
from rec_transfer.models.vae import VAE, Objective, VAEConfig
from rec_transfer.training import devices
from rec_transfer.training.long_runs import digest, run_epochs
from rec_transfer.training.loop import Fitted
from rec_transfer.types import Key

DEFAULT = VAEConfig()
CHUNK_ENTRIES = 300_000  # laid out at a time, 20 bytes each: the device waits for the first, and starts anew with each


def train_vae_sparse(
    counts: sparse.csr_array,
    *,
    key: Key,
    config: VAEConfig = DEFAULT,
    precision: Precision = "float32",
    validation: sparse.csr_array | None = None,
    model: VAE | None = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    mesh: Mesh | None = None,
) -> Fitted:
    r"""Train the VAE of one domain on its counts [users, items]; the fitted model is ``.model``.

    Adam with a cosine decay of the step size to zero on batches of shuffled users, as in ``training.fit``.

    Args:
        counts: whole numbers of events; compressed rows all the way.
        precision: of the products with dense activations. In "bfloat16" their factors are rounded to 8 bits; sums,
            parameters and Adam's moments stay float32. Fast where the processor multiplies bfloat16 itself.
        validation: users held out, in the form of ``counts``: the parameters of the epoch with the lowest loss on
            them are returned (epoch 0 is the start).
        model: where to start from instead of a fresh model; it is left untouched.
        patience, checkpoint, checkpoint_every: stop early; write the run so far to a file and go on from it, with
            the same bits as without the interruption: see ``long_runs.run_epochs``.
        mesh: devices that share the users of every batch (``devices.all_devices()``), of this process or of several
            that all call this with equal arguments (``workers``). A process draws dropout and noise for all, but lays
            out the rows of its own shares alone, so that ``counts`` may lie in a memory-mapped file. None is one
            device; the result is the same to rounding.

    Raises:
        ValueError: a negative count, no user, another number of items, an unknown precision, or batches that do not
            come out even on the mesh.
    """
    if precision not in compressed.PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {compressed.PRECISIONS}")
    if config.epochs < 1 or config.batch_size < 1:
        raise ValueError(f"epochs and batch_size: got {config.epochs} and {config.batch_size}, expected at least 1")
    counts = _checked("counts", counts, counts.shape[1])
    held_out = None if validation is None else _checked("validation", validation, counts.shape[1])
    if model is not None and model.items != counts.shape[1]:
        raise ValueError(f"model: got one of {model.items} items, expected the counts' {counts.shape[1]}")
    if precision == "bfloat16" and not devices.native_bfloat16():
        warnings.warn(
            "precision: this processor has neither avx512_bf16 nor amx_bf16; products in bfloat16 are emulated, with "
            'the same rounding but slower than "float32"',
            stacklevel=2,
        )
    keys = named_keys(key, "initialise", "train")
    start = _fresh(counts.shape[1], config, key=keys["initialise"]) if model is None else jax.tree.map(jnp.copy, model)
    one_epoch = Epochs(counts, config, precision, mesh)
    training = start, jax.jit(one_epoch.optimizer().init)(start)
    if mesh is not None:
        training = devices.on_each(mesh, training)

    def validate(model, epoch):
        return mean_loss(model, counts=held_out, config=config, precision=precision, epoch=epoch)

    identity = {} if checkpoint is None else _identity(counts, held_out, key, config, precision, start)
    return run_epochs(
        partial(one_epoch, key=keys["train"]),
        training,
        epochs=config.epochs,
        validate=None if held_out is None else validate,
        patience=patience,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        identity=identity,
    )


@partial(jax.jit, static_argnames=("items", "config"))  # one program: layer by layer, some fifty are compiled
def _fresh(items, config, *, key):
    return VAE(items, config, key=key)


def _identity(counts, held_out, key, config, precision, start):
    """What a checkpoint must agree in, so that going on from it gives the run that was begun."""
    return {
        "counts": digest(counts.data, counts.indices, counts.indptr),
        "validation": None if held_out is None else digest(held_out.data, held_out.indices, held_out.indptr),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "precision": precision,
        "draws": 3,  # how order, dropout and noise come from the key: another number wherever that changes
        "model": digest(*jax.tree.leaves(start)),
        **asdict(config),
    }


def mean_loss(
    model: VAE, *, counts: sparse.csr_array, config: VAEConfig, precision: Precision = "float32", epoch: float | int
) -> float:
    """Mean over users of the loss without noise, in nats, with the KL term's weight at this epoch."""
    users = counts.shape[0]
    size = min(config.batch_size, users)
    rows = np.resize(np.arange(users), (-(-users // size), size))
    entries = int(np.diff(counts.indptr)[rows].sum(axis=1).max())
    objective = Objective(config.beta, config.anneal_epochs)
    losses = []
    for batch in rows:
        layout = compressed.lay_out(counts, batch[None], max(entries, 1))
        first = jax.tree.map(lambda array: array[0], layout)
        losses.append(_losses(model, first, objective, epoch, precision=precision))
    return float(np.concatenate(losses)[:users].mean(dtype=float))


@partial(jax.jit, static_argnames=("precision",))
def _losses(model, batch, objective, epoch, *, precision):
    return sparse_negative_elbo(model, batch, objective, epsilon=None, epoch=epoch, precision=precision)


def _checked(name, counts, items):
    if counts.shape[0] == 0 or counts.shape[1] != items:
        raise ValueError(f"{name}: got shape {counts.shape}, expected at least 1 user and {items} items")
    if counts.nnz and counts.data.min() < 0:
        raise ValueError(f"{name}: got a negative entry ({counts.data.min()}), expected counts of events")
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    return counts


class Epochs:
    """One epoch of training on given counts, as a function of the state, the epoch's number and the key alone.

    The users of an epoch are shuffled and laid out in chunks of batches on the host, and a compiled loop runs over
    each chunk; only sizes, the counts, what was compiled and what still computes are kept between epochs.
    """

    def __init__(self, counts: sparse.csr_array, config: VAEConfig, precision: Precision, mesh: Mesh | None = None):
        self.counts, self.config, self.precision, self.mesh = counts, config, precision, mesh
        self.batch_size = min(config.batch_size, counts.shape[0])
        self.shares = 1 if mesh is None else mesh.size
        if self.batch_size % self.shares:
            raise ValueError(
                f"config.batch_size: got batches of {self.batch_size} users, expected a multiple of the {self.shares} "
                "devices that share them"
            )
        self.steps = -(-counts.shape[0] // self.batch_size)
        self.entries = self.shares * compressed.entries_needed(counts, self.batch_size // self.shares)
        per_step = self.entries + self.batch_size * config.latent // 5  # a number of the noise takes 4 bytes, not 20
        self.running = []  # what the last chunks will add up to
        self.chunks = min(self.steps, -(-self.steps * per_step // CHUNK_ENTRIES))

    def optimizer(self) -> optax.GradientTransformation:
        return _optimizer(self.config.learning_rate, self.config.epochs * self.steps)

    def __call__(self, training, number: int, *, key: Key):
        """The state (model, optimiser's) after this epoch and its mean loss; the state handed in is used up.

        Both come before they are computed: the next epoch is laid out meanwhile.
        """
        generator = numpy_generator(key, number)  # of order and dropout
        noise = numpy_generator(key, number, 1)  # of its own, so that no draw depends on where a chunk ends
        order = generator.permutation(self.counts.shape[0])
        per_chunk = -(-self.steps // self.chunks)
        rows = np.resize(order, (self.chunks, per_chunk, self.batch_size))  # wraps around: nobody is left out
        shares = rows.reshape(self.chunks, per_chunk, self.shares, -1)
        used = np.diff(self.counts.indptr)[shares].sum(axis=-1)
        self.entries = max(self.entries, self.shares * int(used.max()))
        objective = Objective(self.config.beta, self.config.anneal_epochs)
        total = np.float32(0.0)
        for chunk, chosen in enumerate(shares):
            first = chunk * per_chunk
            if len(self.running) == 2:  # no further ahead: two chunks lie in memory, however many there are
                self.running.pop(0).block_until_ready()
            seen = generator.random(used[chunk].sum(), dtype=np.float32) >= self.config.dropout
            uniform = noise.random((*chosen.shape, self.config.latent), dtype=np.float32)
            layout = self._lay_out(chosen, used[chunk], seen, uniform)  # while the device computes the chunk before
            training, total = _run_steps(
                training, total, layout, objective,
                Position(number, first, min(per_chunk, self.steps - first), self.steps),
                learning_rate=self.config.learning_rate, updates=self.config.epochs * self.steps,
                precision=self.precision, mesh=self.mesh,
            )  # fmt: skip
            self.running.append(total)
        return training, total

    def _lay_out(self, rows, used, seen, uniform):
        """Batches and noise [steps, ...] on one device, or [steps, shares, ...] of which each device holds one share.

        Both were drawn for the whole batch, so that each share hides and adds what one device would.
        """
        if self.mesh is None:
            return compressed.lay_out(self.counts, rows[:, 0], self.entries, seen), uniform[:, 0]
        parts, room = np.split(seen, np.cumsum(used)[:-1]), self.entries // self.shares

        def share_of(share):
            of_share = np.concatenate(parts[share :: self.shares])
            return compressed.lay_out(self.counts, rows[:, share], room, of_share), uniform[:, share]

        laid_out = [share_of(share) for share in devices.own_shares(self.mesh)]
        return devices.dealt_out(self.mesh, jax.tree.map(lambda *parts: np.stack(parts, axis=1), *laid_out))


def standard_normal(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Standard normal numbers $\Phi^{-1}(u)$ from uniform ones, $\sqrt 2\, \mathrm{erf}^{-1}(2u - 1)$.

    Of NumPy's float32 u = k / 2^24 the middle of each step is taken, so that k = 0 stays finite.
    """
    return jnp.sqrt(2.0) * jax.lax.erf_inv(2.0 * uniform - 1.0 + 2.0**-24)


class Position(NamedTuple):
    """Where a chunk of batches stands: epochs before it, steps of the epoch before it, its steps, the epoch's."""

    epoch: int
    first: int
    count: int
    steps: int


def _optimizer(learning_rate, updates):
    return optax.adam(optax.cosine_decay_schedule(learning_rate, updates))


@partial(jax.jit, static_argnames=("learning_rate", "updates", "precision", "mesh"), donate_argnames=("training",))
def _run_steps(training, total, batches, objective, position, *, learning_rate, updates, precision, mesh=None):
    steps = partial(_steps, learning_rate=learning_rate, updates=updates, precision=precision, mesh=mesh)
    if mesh is not None:
        whole = jax.P()
        steps = jax.shard_map(
            steps, mesh=mesh, in_specs=(whole, jax.P(None, devices.USERS), whole, whole), out_specs=whole,
            check_vma=False,
        )  # fmt: skip
    return steps((training, total), batches, objective, position)


def _steps(carry, batches, objective, position, *, learning_rate, updates, precision, mesh):
    optimizer = _optimizer(learning_rate, updates)
    if mesh is not None:
        batches = jax.tree.map(lambda array: array[:, 0], batches)  # of the shares this device's alone

    def step(index, carry):
        (model, state), total = carry
        epoch = position.epoch + (position.first + index) / position.steps
        batch, uniform = jax.tree.map(lambda array: array[index], batches)
        epsilon = standard_normal(uniform)

        def mean_loss(model):
            losses = sparse_negative_elbo(model, batch, objective, epsilon=epsilon, epoch=epoch, precision=precision)
            return jnp.mean(losses)

        value, gradient = jax.value_and_grad(mean_loss)(model)
        if mesh is not None:
            value, gradient = jax.lax.pmean((value, gradient), devices.USERS)
        change, state = optimizer.update(gradient, state, model)
        return (optax.apply_updates(model, change), state), total + value / position.steps

    return jax.lax.fori_loop(0, position.count, step, carry)

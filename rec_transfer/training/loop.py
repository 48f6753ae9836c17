"""One training loop for every network: AdamW over shuffled minibatches, in compiled chunks of steps.

It knows nothing of recommending. A module of ``flax.nnx`` is a pytree, so plain JAX transforms apply to it: no stored
random state, no optimiser object that mutates.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from rec_transfer.training import devices
from rec_transfer.training.batches import Batches, in_memory
from rec_transfer.training.checkpoints import digest, read_run, write_run
from rec_transfer.types import Key, PerUser

Model = Any
Loss = Callable[..., PerUser]  # loss(model, batch, context, *, key, epoch) -> one value per user


class Fitted(NamedTuple):
    """A trained model, its losses per epoch (mean per user), and the epoch it was taken from."""

    model: Model
    training_loss: Float[Array, " epochs"]
    validation_loss: Float[Array, " epochs"]
    epoch: Array


class State(NamedTuple):
    """What a step changes: the model and Adam's moments."""

    model: Model
    moments: Any


class Progress(NamedTuple):
    """All that a run knows after an epoch: what is trained, the best model so far, and the losses."""

    state: State
    best: Any
    best_epoch: np.ndarray
    best_loss: np.ndarray
    losses: np.ndarray | list  # [epochs so far, 2]: training, validation (nan without); a list while it runs


def fit(
    model: Model,
    loss: Loss,
    data: Any,
    *,
    key: Key,
    epochs: int,
    learning_rate: float,
    batch_size: int | None = None,
    weight_decay: float = 0.0,
    context: Any = None,
    validation: Any = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    identity: dict | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Fitted:
    r"""Return a model trained to minimise the mean of ``loss`` over users, by AdamW with a cosine decay to zero.

    Args:
        model: a pytree of parameters (an ``nnx.Module``, a tuple of them); it is left untouched.
        loss: ``loss(model, batch, context, *, key, epoch)``, one value per user (nats); a module-level function, so
            that the compiled loop is found again. ``key`` is the noise of the step (a JAX key where data are in
            memory); it is None when the validation loss is taken.
        data: pytree of arrays whose first axis is users, or ``Batches``.
        epochs: passes over the data.
        learning_rate: the first, largest step size.
        batch_size: users per step, where ``data`` are arrays (all users where there are fewer).
        weight_decay: AdamW's decoupled decay; 0 is Adam.
        context: what else the loss needs (a frozen decoder, beta), passed as an argument and left untouched.
        validation: held-out users in the form of ``data``. When given, the parameters of the epoch with the lowest
            validation loss are returned (early stopping); epoch 0 is the model as handed in.
        patience: stop after so many epochs without a lower validation loss; None never stops early.
        checkpoint: file that holds the run so far. A run that finds it continues from it, with the same bits as without
            the interruption; a finished run is read back. Of several processes the first writes the file and all read
            it, so it lies in a folder that they share.
        checkpoint_every: epochs between writing it; the last is always written.
        identity: what besides data, model, key and settings makes this run this run (to be written as JSON). A
            checkpoint of another run is refused.
        mesh: devices that share the users of a batch; ``Batches`` are made for theirs. The result is the same to
            rounding, and batches must divide by the devices.
        progress: whether to show a progress bar.

    Raises:
        ValueError: data without users, arrays that disagree on how many there are, batches that do not divide by the
            devices, patience without validation, or a checkpoint of another run or cut short.
    """
    if epochs < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"epochs and batch_size: got {epochs} and {batch_size}, expected at least 1")
    if patience is not None and (validation is None or patience < 1):
        raise ValueError(f"patience: got {patience}, expected at least 1 and users held out to judge by")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: got {checkpoint_every}, expected at least 1")
    batches = _batches("data", data, batch_size, mesh)
    held_out = None if validation is None else _held_out(validation, batch_size, mesh)
    run = Progress(initial_state(model, mesh=batches.mesh), model, np.asarray(0), np.asarray(np.inf), np.zeros((0, 2)))
    path, told = None if checkpoint is None else Path(checkpoint), {}
    if path is not None:
        run = run._replace(best=_copy(run.state.model))
        told = {
            **batches.identity(), **(held_out.identity() if held_out else {}), "model": digest(*jax.tree.leaves(model)),
            "key": np.asarray(jax.random.key_data(key)).tolist(), "epochs": epochs, "batch_size": batches.batch_size,
            "learning_rate": float(learning_rate), "weight_decay": float(weight_decay), **(identity or {}),
        }  # fmt: skip
    if path is not None and path.exists():
        run = read_run(path, run, told)
    elif held_out is not None:
        run = run._replace(best_loss=np.asarray(mean_loss(model, loss, held_out, context=context, epoch=0.0)))
    first = jax.process_index() == 0  # of several processes one speaks and writes; each has read the file by then
    bar = None
    if progress and first:
        from tqdm.auto import tqdm

        bar = tqdm(total=epochs, initial=len(run.losses), unit="epoch", disable=None)  # None: not in a log file
    while not _finished(run, epochs, patience):
        number = len(run.losses)
        state, value = epoch(
            run.state, loss, batches, key=key, number=number, epochs=epochs, learning_rate=learning_rate,
            weight_decay=weight_decay, context=context,
        )  # fmt: skip
        run, judged = run._replace(state=state), np.nan
        if held_out is not None:
            judged = mean_loss(state.model, loss, held_out, context=context, epoch=number + 1.0)
        if judged < run.best_loss:  # never without validation: nan. A copy, since the next epoch uses up the original
            run = run._replace(best=_copy(state.model), best_loss=np.asarray(judged), best_epoch=np.asarray(number + 1))
        run = run._replace(losses=[*run.losses, (value, judged)])
        if path is not None and ((number + 1) % checkpoint_every == 0 or _finished(run, epochs, patience)):
            # All processes wait for what is written, so that none runs ahead of the file.
            written = run._replace(losses=np.asarray(run.losses, float))
            if first:
                write_run(path, written, told)
        if bar is not None:
            bar.update()
    if bar is not None:
        bar.close()
    if held_out is None:
        run = run._replace(best=run.state.model, best_epoch=np.asarray(len(run.losses)))
    losses = np.asarray(run.losses, np.float32).reshape(-1, 2)
    return Fitted(run.best, *jnp.asarray(losses.T), jnp.asarray(run.best_epoch))


def initial_state(model: Model, *, mesh: Mesh | None = None) -> State:
    """Return the state before the first step: a copy of the model, and moments of zero.

    Args:
        mesh: the devices that each hold it; None is one.
    """
    # By shape alone, since every moment (and the count of steps) starts at zero: nothing is compiled for it.
    moments = jax.tree.map(
        lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)),
        jax.eval_shape(_INIT, model),
    )
    state = State(_copy(model), moments)
    return state if mesh is None else devices.on_each(mesh, state)


def epoch(
    state: State,
    loss: Loss,
    batches: Batches,
    *,
    key: Key,
    number: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    context: Any = None,
) -> tuple[State, Float[Array, ""]]:
    """Return the state after one epoch of ``fit``, and the mean loss of its steps; the state handed in is used up.

    Both are returned before they are computed. No more than two chunks of batches lie in memory: a chunk is laid out
    while the device computes the one before, and starts once that has ended.

    Args:
        number: of the epoch, from 0; with the key it determines the order of users and the noise.
        epochs: how many the step size decays over.
    """
    total, before = np.float32(0.0), state.moments
    for chunk in batches.chunks(key, number, epochs):
        jax.block_until_ready(before)
        state, total = _run_steps(
            state, total, chunk.data, context, (number, chunk.first, chunk.count, batches.steps),
            learning_rate, weight_decay, loss=loss, take=batches.take, updates=epochs * batches.steps,
            mesh=batches.mesh, by_share=batches.by_share,
        )  # fmt: skip
        before = total
    return state, total


def mean_loss(model: Model, loss: Loss, batches: Batches, *, context: Any = None, epoch: float) -> float:
    """Return the mean over users of the loss without noise.

    Args:
        epoch: as told to the loss, which may weigh a term by it.
    """
    total = 0.0
    for batch, users in batches.in_order():
        total += users * float(_mean_of_batch(model, batch, users, context, epoch, loss=loss))
    return total / batches.users


@partial(jax.jit, static_argnames=("loss",))
def _mean_of_batch(model, batch, users, context, epoch, *, loss):
    losses = loss(model, batch, context, key=None, epoch=epoch)
    return jnp.sum(jnp.where(jnp.arange(len(losses)) < users, losses, 0.0)) / users


def _optimizer(learning_rate, updates, weight_decay):
    return optax.adamw(optax.cosine_decay_schedule(learning_rate, updates), weight_decay=weight_decay)


_INIT = _optimizer(0.0, 1, 0.0).init  # whatever the settings: one function, so that its shapes are found again


@partial(jax.jit, static_argnames=("loss", "take", "updates", "mesh", "by_share"), donate_argnames=("state",))
def _run_steps(
    state, total, data, context, position, learning_rate, weight_decay, *, loss, take, updates, mesh, by_share
):  # fmt: skip
    steps = partial(_steps, loss=loss, take=take, updates=updates, mesh=mesh, by_share=by_share)
    if by_share:
        whole = jax.P()
        steps = jax.shard_map(
            steps, mesh=mesh, in_specs=(whole, whole, jax.P(None, devices.USERS), *4 * [whole]), out_specs=whole,
            check_vma=False,
        )  # fmt: skip
    return steps(state, total, data, context, position, learning_rate, weight_decay)


def _steps(
    state, total, data, context, position, learning_rate, weight_decay, *, loss, take, updates, mesh, by_share
):  # fmt: skip
    optimizer = _optimizer(learning_rate, updates, weight_decay)
    number, first, count, steps = position  # epochs before; steps of the epoch before; steps here; in the epoch
    if by_share:
        data = jax.tree.map(lambda array: array[:, 0], data)  # of the shares this device's alone

    def step(index, carry):
        (model, moments), sum_of_losses = carry
        batch, noise = take(data, index)
        if mesh is not None and not by_share:  # the compiler derives the rest of data-parallel training from this
            batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, jax.P(devices.USERS)))
        epoch = number + (first + index) / steps

        def mean_of_losses(model):
            return jnp.mean(loss(model, batch, context, key=noise, epoch=epoch))

        value, gradient = jax.value_and_grad(mean_of_losses)(model)
        if by_share:
            value, gradient = jax.lax.pmean((value, gradient), devices.USERS)
        change, moments = optimizer.update(gradient, moments, model)
        return State(optax.apply_updates(model, change), moments), sum_of_losses + value

    state, sum_of_losses = jax.lax.fori_loop(0, count, step, (state, jnp.float32(0.0)))
    return state, total + sum_of_losses / steps


def _batches(name, data, batch_size, mesh):
    if isinstance(data, Batches):
        if batch_size is not None or mesh is not None:
            raise ValueError(f"batch_size and mesh: got {batch_size} and {mesh}, expected None: {name} bring their own")
        return data
    if batch_size is None:
        raise ValueError(f"batch_size: got None, expected users per step, since {name} are arrays")
    return in_memory(data, batch_size, mesh=mesh, name=name)


def _held_out(validation, batch_size, mesh):
    if mesh is not None and not isinstance(validation, Batches):  # they need not divide by the devices
        return _batches("validation", devices.on_each(mesh, validation), batch_size, None)
    return _batches("validation", validation, batch_size, mesh)


def _finished(run, epochs, patience):
    done = len(run.losses)
    return done >= epochs or (patience is not None and done - run.best_epoch >= patience)


def _copy(model):
    def copied(leaf):
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            return jnp.copy(leaf)
        return jax.device_put(leaf, may_alias=False)  # which compiles nothing

    return jax.tree.map(copied, model)

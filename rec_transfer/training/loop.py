"""One trainer for every network here: epochs of shuffled minibatches, scanned on the device.

Pure in key and data; it knows nothing of recommending. A module of ``flax.nnx`` is a pytree, so plain JAX transforms
apply to it: no stored random state, no optimiser object that mutates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys
from rec_transfer.types import Key, PerUser

Model = Any
Batch = Any
Loss = Callable[..., PerUser]  # loss(model, batch, context, *, key, epoch) -> one value per user


class Fitted(NamedTuple):
    """A trained model, its losses per epoch (mean per user), and the epoch it was taken from."""

    model: Model
    training_loss: Float[Array, " epochs"]
    validation_loss: Float[Array, " epochs"]
    epoch: Array


def fit(
    model: Model,
    loss: Loss,
    data: Batch,
    *,
    key: Key,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    context: Any = None,
    validation: Batch | None = None,
    sharding: jax.sharding.NamedSharding | None = None,
) -> Fitted:
    r"""Minimise the mean of ``loss`` over users by AdamW with a cosine decay of the step size to zero.

    Args:
        model: a pytree of parameters (an ``nnx.Module``, a tuple of them).
        loss: ``loss(model, batch, context, *, key, epoch)``, one value per user (nats); a module-level function, so
            that the compiled loop is found again. ``key`` is None when the validation loss is taken: no noise then.
        data: pytree of arrays whose first axis is users.
        epochs: passes over the data. Every user is seen in each; the last batch is filled up with a few users again.
        batch_size: users per step (all of them where there are fewer).
        learning_rate: the first, largest step size.
        weight_decay: AdamW's decoupled decay; 0 is Adam.
        context: what else the loss needs (a frozen decoder, beta), passed as an argument and left untouched.
        validation: held-out users in the form of ``data``. When given, the parameters of the epoch with the lowest
            validation loss are returned (early stopping); epoch 0 is the model as handed in.
        sharding: how the users of a batch are spread over devices (``devices.share_of_users``): each computes on its
            share, and the gradients are averaged. The result is the same to rounding; batches must come out even.

    Raises:
        ValueError: data without users, arrays that disagree on how many there are, or batches that come out uneven.
    """
    users = _users(data, validation, epochs, batch_size)
    given = model, data, validation, context, key, learning_rate, weight_decay
    if sharding is not None:
        if min(batch_size, users) % sharding.num_devices:
            raise ValueError(
                f"batch_size: got batches of {min(batch_size, users)} users, expected a multiple of the "
                f"{sharding.num_devices} devices"
            )
        given = jax.device_put(given, jax.sharding.NamedSharding(sharding.mesh, jax.P()))  # on each of them
    return _fit(*given, loss=loss, epochs=epochs, batch_size=min(batch_size, users), sharding=sharding)


def fit_many(
    models: Sequence[Model],
    loss: Loss,
    data: Batch,
    *,
    keys: Sequence[Key] | Key,
    epochs: int,
    batch_size: int,
    learning_rate: float | Sequence[float],
    weight_decay: float | Sequence[float] = 0.0,
    contexts: Sequence[Any] | None = None,
    validation: Batch | None = None,
    together: bool | None = None,
) -> list[Fitted]:
    """``fit`` for many seeds or variants on the same data: one result each, the same either way to rounding.

    Args:
        models: one per variant, of equal shapes.
        keys: one per variant; equal keys see the same batches and noise.
        learning_rate, weight_decay: of all, or one per variant.
        contexts: one per variant (beta, a frozen decoder), or None.
        together: True trains all at once, their arrays stacked (``vmap``); False calls the one compiled loop for each
            in turn. None is together on an accelerator, which small products leave idle, and in turn on a CPU, whose
            cores one variant fills (eight at once took 1.2 times as long as one after the other).

    Other arguments are those of ``fit``.

    Raises:
        ValueError: as ``fit``; or not one of each per model, or no model.
    """
    number = len(models)
    rates, decays = ([of] * number if np.ndim(of) == 0 else list(of) for of in (learning_rate, weight_decay))
    each = {"keys": list(keys), "contexts": [None] * number if contexts is None else list(contexts),
            "learning_rate": rates, "weight_decay": decays}  # fmt: skip
    found = {name: len(values) for name, values in each.items()}
    if set(found.values()) != {number} or not number:
        raise ValueError(f"models: got {number} with {found}, expected at least one, and one of each per model")
    users = _users(data, validation, epochs, batch_size)
    variants = list(zip(models, *each.values(), strict=True))

    def one(variant):
        model, key, context, rate, decay = variant
        return _fit(
            model, data, validation, context, key, rate, decay,
            loss=loss, epochs=epochs, batch_size=min(batch_size, users),
        )  # fmt: skip

    if together is None:
        together = jax.default_backend() != "cpu"
    if not together:
        return [one(variant) for variant in variants]
    many = jax.vmap(one)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *variants))
    return [jax.tree.map(lambda array, place=place: array[place], many) for place in range(number)]


def _users(data, validation, epochs, batch_size):
    """How many there are to train on; refuses what cannot be trained."""
    for name, part in (("data", data), ("validation", validation)):
        users = {leaf.shape[0] for leaf in jax.tree.leaves(part)}
        if len(users) > 1 or 0 in users or (part is data and not users):
            raise ValueError(f"{name}: got arrays with {sorted(users)} users, expected one number of at least 1")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size: got {epochs} and {batch_size}, expected at least 1")
    return jax.tree.leaves(data)[0].shape[0]


@partial(jax.jit, static_argnames=("loss", "epochs", "batch_size", "sharding"))
def _fit(
    model, data, validation, context, key, learning_rate, weight_decay, *, loss, epochs, batch_size, sharding=None
) -> Fitted:
    users = jax.tree.leaves(data)[0].shape[0]
    steps = -(-users // batch_size)
    optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, epochs * steps), weight_decay=weight_decay)

    def mean_loss(model, batch, key, epoch):
        return jnp.mean(loss(model, batch, context, key=key, epoch=epoch))

    def validate(model, epoch):
        if validation is None:
            return jnp.nan
        return mean_loss(model, validation, None, epoch)

    def step(carry, inputs):
        model, state = carry
        rows, key, epoch = inputs
        batch = jax.tree.map(lambda array: array[rows], data)
        if sharding is not None:  # the one line of data-parallel training: the compiler derives the rest
            batch = jax.lax.with_sharding_constraint(batch, sharding)
        value, gradient = jax.value_and_grad(mean_loss)(model, batch, key, epoch)
        updates, state = optimizer.update(gradient, state, model)
        return (optax.apply_updates(model, updates), state), value

    def one_epoch(carry, inputs):
        training, best, best_loss, best_epoch = carry
        key, number = inputs
        purposes = named_keys(key, "shuffle", "noise")
        order = jax.random.permutation(purposes["shuffle"], users)
        rows = jnp.resize(order, (steps, batch_size))  # wraps around: nobody is left out of an epoch
        epoch = number + jnp.arange(steps) / steps
        training, losses = jax.lax.scan(step, training, (rows, jax.random.split(purposes["noise"], steps), epoch))
        held_out = validate(training[0], number + 1.0)
        better = jnp.logical_or(validation is None, held_out < best_loss)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), training[0], best)
        best_loss = jnp.where(better, held_out, best_loss)
        best_epoch = jnp.where(better, number + 1, best_epoch)
        return (training, best, best_loss, best_epoch), (jnp.mean(losses), held_out)

    start = ((model, optimizer.init(model)), model, validate(model, 0.0), 0)
    numbers = jnp.arange(epochs)
    (_, best, _, best_epoch), (training_loss, validation_loss) = jax.lax.scan(
        one_epoch, start, (jax.random.split(key, epochs), numbers)
    )
    return Fitted(best, training_loss, validation_loss, best_epoch)

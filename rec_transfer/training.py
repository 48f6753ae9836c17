"""One trainer for every network here: epochs of shuffled minibatches, scanned on the device.

Pure in key and data; it knows nothing of recommending. A module of ``flax.nnx`` is a pytree, so plain JAX transforms
apply to it: no stored random state, no optimiser object that mutates.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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

    Raises:
        ValueError: data without users, or arrays that disagree on how many there are.
    """
    for name, part in (("data", data), ("validation", validation)):
        users = {leaf.shape[0] for leaf in jax.tree.leaves(part)}
        if len(users) > 1 or 0 in users or (part is data and not users):
            raise ValueError(f"{name}: got arrays with {sorted(users)} users, expected one number of at least 1")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size: got {epochs} and {batch_size}, expected at least 1")
    users = jax.tree.leaves(data)[0].shape[0]
    return _fit(
        model, data, validation, context, key, learning_rate, weight_decay,
        loss=loss, epochs=epochs, batch_size=min(batch_size, users),
    )  # fmt: skip


@partial(jax.jit, static_argnames=("loss", "epochs", "batch_size"))
def _fit(model, data, validation, context, key, learning_rate, weight_decay, *, loss, epochs, batch_size) -> Fitted:
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

"""The trainer does what AdamW on shuffled minibatches does, and modules of flax stay plain pytrees for it."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from rec_transfer import training

KEY = jax.random.key(0)
EMPTY = {"x": jnp.zeros((0, 2)), "y": jnp.zeros((0, 1))}


def squared_error(model, batch, context, *, key, epoch):
    return jnp.sum((model(batch["x"]) - batch["y"]) ** 2, axis=-1)


def regression(users=53, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(users, 2))
    y = x @ np.array([[1.5], [-0.5]]) + 0.7 + noise * rng.normal(size=(users, 1))
    return {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)}


def line():
    shapes = jax.eval_shape(lambda: nnx.Linear(2, 1, rngs=nnx.Rngs(KEY)))
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.3, leaf.dtype), shapes)


def fit_line(model, data, key):
    return training.fit(model, squared_error, data, key=key, epochs=150, batch_size=20, learning_rate=0.05)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(left, right):
    for one, other in zip(leaves(left), leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


# --- the contract of the architecture: a module is a pytree, plain JAX transforms apply to it


def test_a_module_goes_through_grad_optax_scan_and_vmap_as_a_plain_pytree():
    data = regression()
    optimizer = optax.adam(0.05)

    def mean_loss(model):
        return jnp.mean(squared_error(model, data, None, key=None, epoch=0))

    def step(carry, _):
        model, state = carry
        value, gradient = jax.value_and_grad(mean_loss)(model)
        assert isinstance(gradient, nnx.Linear)
        updates, state = optimizer.update(gradient, state, model)
        return (optax.apply_updates(model, updates), state), value

    def run(key):
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(key))
        (model, _), losses = jax.lax.scan(step, (model, optimizer.init(model)), length=150)
        return model, losses

    models, losses = jax.jit(jax.vmap(run))(jax.random.split(KEY, 3))
    assert isinstance(models, nnx.Linear)
    assert models.kernel.shape == (3, 2, 1)
    design = np.column_stack([data["x"], np.ones(53)])
    squares = np.linalg.lstsq(design, np.asarray(data["y"]), rcond=None)[0]
    for seed in range(3):
        model = jax.tree.map(lambda array, seed=seed: array[seed], models)
        np.testing.assert_allclose(np.vstack([model.kernel[...], model.bias[...][None]]), squares, atol=0.02)
    assert (losses[:, 0] > 10 * losses[:, -1]).all()


# --- the optimiser, where its path is known in closed form


def constant_slope(model, batch, context, *, key, epoch):
    return context * model * jnp.ones(len(batch))


def cosine(steps):
    return 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))


@pytest.mark.parametrize("slope", [1e-2, 5.0])
def test_under_a_constant_gradient_adam_walks_the_cosine_schedule(slope):
    # Adam divides a constant gradient by its own size: each step is the learning rate of the moment.
    fitted = training.fit(
        jnp.float32(2.0), constant_slope, jnp.zeros(10), key=KEY, epochs=4, batch_size=4, learning_rate=0.1,
        context=jnp.float32(slope),
    )  # fmt: skip
    assert fitted.model == pytest.approx(2.0 - 0.1 * cosine(4 * 3).sum(), rel=1e-4)


def test_weight_decay_is_decoupled_from_the_gradient():
    fitted = training.fit(
        jnp.float32(2.0), constant_slope, jnp.zeros(10), key=KEY, epochs=4, batch_size=4, learning_rate=0.1,
        weight_decay=0.5, context=jnp.float32(0.0),
    )  # fmt: skip
    assert fitted.model == pytest.approx(2.0 * np.prod(1 - 0.1 * 0.5 * cosine(4 * 3)), rel=1e-4)


def test_training_reaches_least_squares():
    data = regression()
    fitted = fit_line(line(), data, KEY)
    design = np.column_stack([data["x"], np.ones(53)])
    squares, residual, *_ = np.linalg.lstsq(design, np.asarray(data["y"]), rcond=None)
    found = np.vstack([fitted.model.kernel[...], fitted.model.bias[...][None]])
    np.testing.assert_allclose(found, squares, atol=0.01)
    assert fitted.training_loss.shape == (150,)
    assert fitted.training_loss[-1] == pytest.approx(residual[0] / 53, rel=0.15)
    assert fitted.training_loss[0] > 10 * fitted.training_loss[-1]


# --- the same numbers as the loop written out


def noisy_error(model, batch, context, *, key, epoch):
    noise = 0.0 if key is None else context * jax.random.normal(key, batch["y"].shape)
    return jnp.sum((model(batch["x"]) + noise - batch["y"]) ** 2, axis=-1) / (1 + epoch)


@jax.jit
def by_hand(model, data, held_out, key):
    """AdamW over shuffled minibatches with early stopping, all in two scans: 4 epochs of 53 users by 20."""
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.05, 12), weight_decay=0.1)

    def mean(model, batch, key, epoch):
        return jnp.mean(noisy_error(model, batch, 0.1, key=key, epoch=epoch))

    def step(carry, inputs):
        (model, state), (rows, key, epoch) = carry, inputs
        batch = jax.tree.map(lambda array: array[rows], data)
        value, gradient = jax.value_and_grad(mean)(model, batch, key, epoch)
        updates, state = optimizer.update(gradient, state, model)
        return (optax.apply_updates(model, updates), state), value

    def one_epoch(carry, inputs):
        key, number = inputs
        shuffle, noise = jax.random.split(key)
        rows = jnp.resize(jax.random.permutation(shuffle, 53), (3, 20))
        carry, losses = jax.lax.scan(step, carry, (rows, jax.random.split(noise, 3), number + jnp.arange(3) / 3))
        return carry, (jnp.mean(losses), mean(carry[0], held_out, None, number + 1.0), carry[0])

    return jax.lax.scan(one_epoch, (model, optimizer.init(model)), (jax.random.split(key, 4), jnp.arange(4)))[1]


def test_order_noise_steps_and_losses_are_those_of_the_loop_written_out():
    data, held_out = regression(), regression(20, seed=1)
    training_loss, validation_loss, models = by_hand(line(), data, held_out, jax.random.key(7))
    fitted = training.fit(
        line(), noisy_error, data, key=jax.random.key(7), epochs=4, batch_size=20, learning_rate=0.05,
        weight_decay=0.1, context=0.1, validation=held_out,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.training_loss, training_loss, rtol=1e-6)
    np.testing.assert_allclose(fitted.validation_loss, validation_loss, rtol=1e-6)
    assert fitted.epoch == np.argmin(validation_loss) + 1
    for one, many in zip(leaves(fitted.model), leaves(models), strict=True):
        np.testing.assert_allclose(one, many[int(fitted.epoch) - 1], rtol=1e-6)


def test_epochs_one_by_one_are_a_fit():
    data, key = regression(), jax.random.key(3)
    fitted = training.fit(line(), squared_error, data, key=key, epochs=4, batch_size=20, learning_rate=0.05)
    batches, state, losses = training.in_memory(data, 20), training.initial_state(line()), []
    for number in range(4):
        state, loss = training.epoch(
            state, squared_error, batches, key=key, number=number, epochs=4, learning_rate=0.05
        )
        losses.append(loss)
    assert_same_bits(state.model, fitted.model)
    np.testing.assert_array_equal(losses, fitted.training_loss)


# --- epochs and batches


def own_parameter(model, batch, context, *, key, epoch):
    return (model[batch] - 1.0) ** 2


@pytest.mark.parametrize(("users", "batch_size"), [(10, 3), (7, 100)])
def test_every_user_is_seen_in_every_epoch(users, batch_size):
    # A user's parameter moves only when that user is in a batch.
    fitted = training.fit(
        jnp.zeros(users), own_parameter, jnp.arange(users), key=KEY, epochs=1, batch_size=batch_size,
        learning_rate=0.1,
    )  # fmt: skip
    assert (fitted.model > 0).all()
    assert fitted.epoch == 1


def tells_the_time(model, batch, context, *, key, epoch):
    return 0.0 * model + epoch * jnp.ones(len(batch))


def test_the_loss_is_told_the_epoch_with_its_fraction():
    fitted = training.fit(
        jnp.float32(0.0), tells_the_time, jnp.zeros(8), key=KEY, epochs=3, batch_size=2, learning_rate=0.1,
        validation=jnp.zeros(3),
    )  # fmt: skip
    np.testing.assert_allclose(fitted.training_loss, np.arange(3) + np.mean([0, 0.25, 0.5, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(fitted.validation_loss, [1.0, 2.0, 3.0], rtol=1e-6)


def tells_noise(model, batch, context, *, key, epoch):
    return 0.0 * model + (jnp.ones(len(batch)) if key is None else 2.0 + jax.random.uniform(key, (len(batch),)))


def test_validation_is_free_of_noise_and_training_is_not():
    fitted = training.fit(
        jnp.float32(0.0), tells_noise, jnp.zeros(8), key=KEY, epochs=3, batch_size=8, learning_rate=0.1,
        validation=jnp.zeros(4),
    )  # fmt: skip
    np.testing.assert_array_equal(fitted.validation_loss, 1.0)
    assert ((fitted.training_loss > 2) & (fitted.training_loss < 3)).all()
    assert len(set(fitted.training_loss.tolist())) == 3  # fresh noise in each epoch


def test_without_validation_the_last_epoch_is_returned():
    fitted = training.fit(
        jnp.float32(0.0), tells_noise, jnp.zeros(8), key=KEY, epochs=3, batch_size=8, learning_rate=0.1
    )
    assert fitted.epoch == 3
    assert np.isnan(fitted.validation_loss).all()


# --- early stopping


def distance(model, batch, context, *, key, epoch):
    return jnp.abs(model - batch)


def test_early_stopping_returns_the_best_epoch():
    # Training pulls from 0 to 10 and the optimum of the users held out, 1, is passed on the way.
    fitted = training.fit(
        jnp.float32(0.0), distance, jnp.full(6, 10.0), key=KEY, epochs=20, batch_size=3, learning_rate=0.1,
        validation=jnp.full(2, 1.0),
    )  # fmt: skip
    best = int(np.argmin(fitted.validation_loss))
    assert 0 < best < 19
    assert fitted.epoch == best + 1
    assert fitted.model == pytest.approx(0.2 * cosine(40)[: 2 * (best + 1)].sum() / 2, rel=1e-4)
    assert abs(fitted.model - 1.0) == pytest.approx(float(fitted.validation_loss[best]), rel=1e-4)


def test_early_stopping_returns_the_model_as_handed_in_when_training_only_hurts():
    fitted = training.fit(
        jnp.float32(0.25), distance, jnp.full(6, 10.0), key=KEY, epochs=5, batch_size=3, learning_rate=0.1,
        validation=jnp.full(2, -1.0),
    )  # fmt: skip
    assert fitted.epoch == 0
    assert fitted.model == 0.25
    assert (np.diff(fitted.validation_loss) > 0).all()


# --- purity


def test_training_is_deterministic_in_its_key_and_leaves_the_model_handed_in_alone():
    model, data = line(), regression()
    before = leaves(model)
    first, again, other = (fit_line(model, data, jax.random.key(seed)) for seed in (1, 1, 2))
    assert_same_bits(first, again)
    assert not np.array_equal(first.model.kernel[...], other.model.kernel[...])  # another order of users
    assert_same_bits(before, model)
    assert not np.array_equal(first.model.kernel[...], model.kernel[...])


TRACED = []


def counts_its_traces(model, batch, context, *, key, epoch):
    TRACED.append(1)
    return (model - batch) ** 2


def test_the_compiled_loop_is_found_again_for_another_seed_data_and_learning_rate():
    def run(seed):
        data = jnp.full(4, float(seed))
        return training.fit(
            jnp.float32(0.0), counts_its_traces, data, key=jax.random.key(seed), epochs=2, batch_size=2,
            learning_rate=0.1 * seed, weight_decay=0.01 * seed, validation=data,
        )  # fmt: skip

    run(1)
    traced = len(TRACED)
    assert traced > 0
    run(2)
    assert len(TRACED) == traced


# --- refusals


@pytest.mark.parametrize(
    ("data", "validation", "message"),
    [
        (EMPTY, None, r"data: got arrays with \[0\] users, expected one number of at least 1"),
        ({"x": jnp.zeros((3, 2)), "y": jnp.zeros((4, 1))}, None, r"data: got arrays with \[3, 4\] users"),
        ({}, None, r"data: got arrays with \[\] users"),
        (regression(), EMPTY, r"validation: got arrays with \[0\] users"),
        (regression(), {"x": jnp.zeros((3, 2)), "y": jnp.zeros((4, 1))}, r"validation: got arrays with \[3, 4\]"),
    ],
)
def test_data_without_users_or_at_odds_about_them_is_refused(data, validation, message):
    with pytest.raises(ValueError, match=message):
        training.fit(
            line(), squared_error, data, key=KEY, epochs=1, batch_size=2, learning_rate=0.1, validation=validation
        )


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 5), (5, 0), (-1, 5)])
def test_no_epochs_or_empty_batches_are_refused(epochs, batch_size):
    with pytest.raises(ValueError, match=f"epochs and batch_size: got {epochs} and {batch_size}, expected at least 1"):
        training.fit(
            line(), squared_error, regression(), key=KEY, epochs=epochs, batch_size=batch_size, learning_rate=0.1
        )


@pytest.mark.parametrize("settings", [{}, {"batch_size": 5, "data": training.in_memory(regression(), 5)}])
def test_a_batch_size_belongs_to_arrays_and_to_nothing_else(settings):
    settings = {"data": regression()} | settings
    with pytest.raises(ValueError, match=r"batch_size( and mesh)?: got (None|5)"):
        training.fit(line(), squared_error, settings.pop("data"), key=KEY, epochs=1, learning_rate=0.1, **settings)


# --- patience and checkpoints


def run(epochs=20, towards=-1.0, **settings):
    """Training pulls from 0 to 10, .05 a step on average; the optimum of the users held out is ``towards``."""
    if "patience" in settings:
        settings["validation"] = jnp.full(2, towards)
    return training.fit(
        jnp.float32(0.0), distance, jnp.full(6, 10.0), key=KEY, epochs=epochs, batch_size=3, learning_rate=0.1,
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize(("patience", "more"), [(3, 3), (1, 1)])
def test_patience_counts_from_the_best_epoch(patience, more):
    whole = run(validation=jnp.full(2, 1.0))
    stopped = run(patience=patience, towards=1.0)
    assert stopped.epoch == whole.epoch > 1
    assert len(stopped.training_loss) == int(whole.epoch) + more
    assert stopped.model == whole.model


def test_the_model_as_handed_in_is_returned_when_patience_ends_on_it():
    fitted = run(patience=2)
    assert (fitted.model, fitted.epoch, len(fitted.training_loss)) == (0.0, 0, 2)


def epochs_in(path):
    return len(training.read_arrays(path, format=training.RUN_FORMAT)[0]["losses"])


class StoppedError(Exception):
    pass


def stopping_after(batches, epochs):
    """The same batches, which give out at an epoch."""

    def chunks(key, number, of):
        if number == epochs:
            raise StoppedError
        return batches.chunks(key, number, of)

    return batches._replace(chunks=chunks)


@pytest.mark.parametrize(("every", "stop", "kept"), [(1, 5, 5), (3, 5, 3), (3, 8, 8), (5, 4, None)])
def test_a_run_goes_on_from_the_last_checkpoint_with_the_same_bits(tmp_path, every, stop, kept):
    path, batches = tmp_path / "run", training.in_memory(regression(), 20)
    held_out = training.in_memory(regression(20, seed=1), 20)
    settings = {"key": KEY, "epochs": 8, "learning_rate": 0.05, "validation": held_out, "context": 0.1}
    expected = training.fit(line(), noisy_error, batches, **settings)
    settings |= {"checkpoint": path, "checkpoint_every": every}
    if stop < 8:
        with pytest.raises(StoppedError):
            training.fit(line(), noisy_error, stopping_after(batches, stop), **settings)
    else:
        training.fit(line(), noisy_error, batches, **settings)
    assert path.exists() == (kept is not None)
    if kept is not None:
        assert epochs_in(path) == kept
        with pytest.raises(StoppedError) if kept < 8 else contextlib.nullcontext():
            training.fit(line(), noisy_error, stopping_after(batches, kept), **settings)  # it begins where it stood
    assert_same_bits(training.fit(line(), noisy_error, batches, **settings), expected)
    assert epochs_in(path) == 8  # the last is always written
    assert_same_bits(training.fit(line(), noisy_error, stopping_after(batches, 0), **settings), expected)


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"key": jax.random.key(6)}, r"\['key'\]"),
        ({"data": regression(seed=2)}, r"\['data'\]"),
        ({"epochs": 3}, r"\['epochs'\]"),
        ({"learning_rate": 0.1}, r"\['learning_rate'\]"),
        ({"model": jax.tree.map(lambda leaf: 2 * leaf, line())}, r"\['model'\]"),
        ({"identity": {"loss": "another"}}, r"\['loss'\]"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, differing):
    given = {"model": line(), "data": regression(), "key": KEY, "epochs": 2, "learning_rate": 0.05}
    settings = {"loss": squared_error, "batch_size": 20, "checkpoint": tmp_path / "run.safetensors"}
    training.fit(**given, **settings)
    with pytest.raises(ValueError, match=f"run.safetensors: checkpoint of another run, which differs in {differing}"):
        training.fit(**(given | change), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "patience: got 0, expected at least 1 and users held out"),
        ({"checkpoint_every": 0}, "checkpoint_every: got 0, expected at least 1"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run(epochs=3, **settings)
    with pytest.raises(ValueError, match="patience: got 2, expected at least 1 and users held out"):
        training.fit(
            line(), squared_error, regression(), key=KEY, epochs=1, batch_size=5, learning_rate=1.0, patience=2
        )

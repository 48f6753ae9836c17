"""The trainer does what AdamW on shuffled minibatches does, and modules of flax stay plain pytrees for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from rec_transfer import training
from rec_transfer.training import loop

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


def test_seeds_may_be_vmapped():
    model, data = line(), regression()
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: fit_line(model, data, key))(keys)
    for seed in range(3):
        alone = fit_line(model, data, keys[seed])
        for one, other in zip(leaves(alone), leaves(together), strict=True):
            np.testing.assert_allclose(other[seed], one, rtol=1e-4, atol=1e-5)


TRACED = []


def counts_its_traces(model, batch, context, *, key, epoch):
    TRACED.append(1)
    return (model - batch) ** 2


def test_the_compiled_loop_is_found_again_for_another_seed_data_and_learning_rate():
    def run(seed):
        data = jnp.full(4, float(seed))
        return training.fit(
            jnp.float32(0.0), counts_its_traces, data, key=jax.random.key(seed), epochs=2, batch_size=2,
            learning_rate=0.1 * seed,
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


# --- many seeds or variants


def pulled_line(model, batch, pull, *, key, epoch):
    noise = 0.0 if key is None else 0.1 * jax.random.normal(key, (len(batch["x"]), 1))
    return jnp.sum((model(batch["x"]) + noise - pull * batch["y"]) ** 2, axis=-1)


def variants(number=3):
    models = [jax.tree.map(lambda leaf, by=by: leaf + by, line()) for by in range(number)]
    return models, jax.random.split(KEY, number)


@pytest.mark.parametrize("together", [False, True, None])
@pytest.mark.parametrize("validation", [None, regression(20, seed=1)])
def test_many_variants_are_trained_as_each_alone(together, validation):
    (models, keys), data = variants(), regression()
    settings = {"epochs": 6, "batch_size": 20, "validation": validation}
    rates, decays, pulls = [0.05, 0.1, 0.01], [0.0, 0.1, 1.0], [1.0, -1.0, 2.0]
    found = training.fit_many(
        models, pulled_line, data, keys=keys, learning_rate=rates, weight_decay=decays, contexts=pulls,
        together=together, **settings,
    )  # fmt: skip
    assert len(found) == 3
    for place, fitted in enumerate(found):
        alone = training.fit(
            models[place], pulled_line, data, key=keys[place], learning_rate=rates[place],
            weight_decay=decays[place], context=pulls[place], **settings,
        )  # fmt: skip
        assert isinstance(fitted.model, nnx.Linear)
        for one, other in zip(leaves(fitted), leaves(alone), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("backend", "loops"), [("cpu", 3), ("gpu", 1)])
def test_variants_are_trained_in_turn_on_a_cpu_and_together_on_an_accelerator(backend, loops, monkeypatch):
    (models, keys), data, calls, whole = variants(), regression(), [], loop._fit
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(loop, "_fit", lambda *given, **settings: calls.append(1) or whole(*given, **settings))
    training.fit_many(models, squared_error, data, keys=keys, epochs=2, batch_size=20, learning_rate=0.1)
    assert len(calls) == loops


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "models: got 0 with {'keys': 3, 'contexts': 0, 'learning_rate': 0"),
        ({"keys": jax.random.split(KEY, 2)}, "models: got 3 with {'keys': 2, 'contexts': 3"),
        ({"contexts": [1.0]}, "models: got 3 with {'keys': 3, 'contexts': 1,"),
        ({"learning_rate": [0.1, 0.2]}, "'learning_rate': 2, 'weight_decay': 3}, expected at least one, and one"),
        ({"epochs": 0}, "epochs and batch_size: got 0 and 20"),
        ({"data": EMPTY}, "data: got arrays with"),
    ],
)
def test_variants_that_do_not_fit_together_are_refused(change, message):
    models, keys = variants()
    arguments = {"models": models, "data": regression(), "keys": keys, "epochs": 2, "learning_rate": 0.1} | change
    with pytest.raises(ValueError, match=message):
        training.fit_many(arguments.pop("models"), squared_error, arguments.pop("data"), batch_size=20, **arguments)

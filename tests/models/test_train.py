"""Training a VAE, dense and on compressed rows: the same loss and gradients, learning as well, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse, stats

from rec_transfer import models, training
from rec_transfer.keys import named_keys
from rec_transfer.models import (
    LOSSES,
    VAE,
    Objective,
    VAEConfig,
    likelihoods,
    negative_elbo,
    sparse_negative_elbo,
    train,
    train_vae,
    vae,
)

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def counts():
    # Two tastes over 40 items, and activity that differs between users.
    rng = np.random.default_rng(0)
    taste = rng.integers(0, 2, 170)
    share = np.exp(1.5 * rng.normal(size=(2, 40)))
    rates = 25 * rng.gamma(2.0, 0.5, (170, 1)) * (share / share.sum(axis=1, keepdims=True))[taste]
    return sparse.csr_array(rng.poisson(rates).astype(np.float32))


@pytest.fixture(scope="module")
def config():
    return VAEConfig(
        latent=2, hidden=24, dropout=0.1, anneal_epochs=5, epochs=25, batch_size=40, learning_rate=1e-2
    )  # fmt: skip


def assert_same_bits(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sizes", [{"hidden": 24, "latent": 2}, {"hidden": 60, "latent": 20}])
@pytest.mark.parametrize("seed", [None, 3])
def test_loss_and_gradients_are_those_of_the_dense_path(counts, sizes, seed):
    model = VAE(40, VAEConfig(dropout=0.0, **sizes), key=KEY)
    key = None if seed is None else jax.random.key(seed)
    drawn = None if seed is None else jax.random.normal(jax.random.split(key)[1], (170, sizes["latent"]))
    layout = training.compress(counts, np.arange(170)[None], counts.nnz + 9)
    batch = jax.tree.map(lambda array: jnp.asarray(array[0]), layout)
    objective = Objective(0.7, 2.0)

    def found(model, batch):
        return sparse_negative_elbo(model, batch, objective, epsilon=drawn, epoch=1.0)

    def expected(model, dense):
        return negative_elbo(model, dense, objective, key=key, epoch=1.0)

    dense = jnp.asarray(models.dense(counts))
    np.testing.assert_allclose(found(model, batch), expected(model, dense), rtol=1e-5)
    left = jax.jit(jax.grad(lambda *a: found(*a).mean()))(model, batch)
    right = jax.jit(jax.grad(lambda *a: expected(*a).mean()))(model, dense)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


def test_what_dropout_hides_reaches_neither_the_layer_nor_its_gradient(counts):
    model = VAE(40, VAEConfig(latent=2, hidden=3, dropout=0.4), key=KEY)
    kept = np.random.default_rng(4).random(counts.nnz) > 0.4
    layout = training.compress(counts, np.arange(170)[None], counts.nnz + 3, kept)
    batch = jax.tree.map(lambda array: jnp.asarray(array[0]), layout)
    dense = jnp.asarray(models.dense(counts))
    inputs = np.array(vae.encoder_input(dense)) / 0.6
    inputs[tuple(part[~kept] for part in counts.nonzero())] = 0.0
    epsilon = jax.random.normal(KEY, (170, 2))

    def found(model):
        return sparse_negative_elbo(model, batch, Objective(1.0, 0.0), epsilon=epsilon, epoch=0.0).mean()

    def expected(model):
        features = jnp.tanh(model.encoder.hidden(inputs))
        mean, log_variance = model.encoder.mean(features), model.encoder.log_variance(features)
        logits = model.decoder(mean + jnp.exp(0.5 * log_variance) * epsilon)
        log_likelihood = likelihoods.multinomial_log_likelihood(logits, dense)
        return (likelihoods.gaussian_kl(mean, log_variance) - log_likelihood).mean()

    found, expected = (jax.value_and_grad(loss)(model) for loss in (found, expected))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore:precision")
def test_it_learns_as_well_as_the_dense_path(counts, config, precision):
    def loss(fitted):
        model, dense = fitted.model, jnp.asarray(models.dense(counts))
        return float(negative_elbo(model, dense, Objective(1.0, 0.0), key=None, epoch=0.0).mean())

    def both(**settings):
        return [train_vae(counts, key=jax.random.key(seed), config=config, **settings) for seed in range(2)]

    found, expected = both(compressed=True, precision=precision), both(compressed=False)
    start = loss(expected[0]._replace(model=VAE(40, config, key=KEY)))
    gained = start - np.mean([loss(fitted) for fitted in expected])
    assert gained > 10
    assert start - np.mean([loss(fitted) for fitted in found]) > 0.97 * gained
    assert found[0].training_loss.shape == (25,)
    late = [np.mean([fitted.training_loss[10:] for fitted in fits]) for fits in (found, expected)]
    assert late[0] == pytest.approx(late[1], rel=0.02)
    assert found[0].epoch == 25
    assert np.isnan(found[0].validation_loss).all()


def test_its_first_step_is_that_of_the_dense_trainer(counts, config):
    # One batch of everybody and neither dropout nor much noise: the order of users cannot matter.
    config = replace(config, dropout=0.0, batch_size=1000, epochs=1)
    start = VAE(40, config, key=KEY)
    narrow = jax.tree.map(jnp.copy, start)
    narrow.encoder.log_variance.bias[...] -= 40.0  # sigma of e^-20: the draw of z is its mean
    sparse_fit = train_vae(counts, key=KEY, config=config, model=narrow, compressed=True)
    dense_fit = training.fit(
        narrow, negative_elbo, models.dense(counts), key=KEY, context=Objective(config.beta, config.anneal_epochs),
        epochs=1, batch_size=1000, learning_rate=config.learning_rate,
    )  # fmt: skip
    np.testing.assert_allclose(sparse_fit.training_loss, dense_fit.training_loss, rtol=1e-5)
    for name in ("encoder.hidden", "decoder.logits"):
        side, layer = name.split(".")
        found, expected = (getattr(getattr(fit.model, side), layer).kernel[...] for fit in (sparse_fit, dense_fit))
        close = np.isclose(found, expected, atol=1e-5)  # Adam's first step is the gradient's sign: ties may fall apart
        assert close.mean() > 0.999


def compressed_fit(counts, config, **settings):
    """Training on compressed rows, by the loop itself."""
    batches = training.compressed_rows(
        counts, config.batch_size, dropout=config.dropout, noise=config.latent, **settings
    )
    return training.fit(
        VAE(40, config, key=KEY), LOSSES["float32"], batches, key=KEY, epochs=config.epochs,
        learning_rate=config.learning_rate, context=Objective(config.beta, config.anneal_epochs),
    )  # fmt: skip


def test_chunks_of_an_epoch_give_the_same_parameters_as_one(counts, config):
    config = replace(config, epochs=3)
    whole, chunks = compressed_fit(counts, config), compressed_fit(counts, config, chunk_entries=1500)
    assert_same_bits(whole.model, chunks.model)
    np.testing.assert_allclose(whole.training_loss, chunks.training_loss, rtol=1e-6)


def test_the_noise_of_the_batches_reaches_the_draw_of_z(counts, config):
    batches = training.compressed_rows(counts, 170, noise=config.latent)
    (chunk,) = batches.chunks(KEY, 0, 1)
    rows, uniform = jax.tree.map(lambda array: jnp.asarray(array[0]), chunk.data)
    model, objective = VAE(40, config, key=KEY), Objective(1.0, 0.0)
    found = LOSSES["float32"](model, rows, objective, key=uniform, epoch=0.0)
    epsilon = jnp.asarray(stats.norm.ppf(np.asarray(uniform, float)), jnp.float32)
    expected = sparse_negative_elbo(model, rows, objective, epsilon=epsilon, epoch=0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    mean = LOSSES["float32"](model, rows, objective, key=None, epoch=0.0)
    assert np.abs(np.asarray(found - mean)).max() > 0.1


def test_normal_numbers_are_quantiles_of_uniform_ones():
    uniform = np.random.default_rng(0).random(100_000, dtype=np.float32)
    found = np.asarray(models.standard_normal(jnp.asarray(uniform)))
    np.testing.assert_allclose(found, stats.norm.ppf(uniform.astype(float) + 2.0**-25), atol=1e-4)
    assert stats.kstest(found, "norm").pvalue > 0.01
    ends = np.asarray(models.standard_normal(jnp.float32([0.0, 1 - 2.0**-24])))
    np.testing.assert_allclose(ends, [stats.norm.ppf(2.0**-25), -stats.norm.ppf(2.0**-25)], rtol=1e-3)


def test_it_is_deterministic_in_its_key_and_leaves_the_model_handed_in_alone(counts, config):
    config = replace(config, epochs=2)
    model = VAE(40, config, key=KEY)
    before = jax.tree.map(np.array, model)
    one, again, other = (
        train_vae(counts, key=jax.random.key(seed), config=config, compressed=True, model=model) for seed in (1, 1, 2)
    )
    assert_same_bits(one, again)
    assert not np.array_equal(one.training_loss, other.training_loss)
    assert_same_bits(model, before)


def test_the_best_epoch_on_users_held_out_is_returned(counts, config):
    # Few users and many steps: it learns them by heart after a while.
    held_out, config = counts[30:], replace(config, epochs=60, batch_size=10, dropout=0.0, beta=0.0)
    fitted = train_vae(counts[:30], key=KEY, config=config, validation=held_out, compressed=True)
    losses = np.asarray(fitted.validation_loss)
    best = int(np.argmin(losses))
    assert 0 < best < 59
    assert fitted.epoch == best + 1
    again = training.mean_loss(
        fitted.model, LOSSES["float32"], training.compressed_rows(held_out, 10), context=Objective(0.0, 5.0),
        epoch=float(fitted.epoch),
    )  # fmt: skip
    assert again == pytest.approx(losses[best], rel=1e-6)
    dense = negative_elbo(
        fitted.model, jnp.asarray(models.dense(held_out)), Objective(0.0, 5.0), key=None, epoch=float(fitted.epoch)
    )
    assert again == pytest.approx(float(dense.mean()), rel=1e-5)


def test_entries_stored_twice_are_one_count(counts, config):
    config = replace(config, epochs=1)
    doubled = sparse.csr_array(
        (np.repeat(counts.data / 2, 2), np.repeat(counts.indices, 2), 2 * counts.indptr), counts.shape
    )
    fits = [train_vae(matrix, key=KEY, config=config, compressed=True) for matrix in (doubled, counts)]
    assert doubled.nnz == 2 * counts.nnz  # and the caller's matrix is left as it was
    assert_same_bits(*fits)


def test_the_fitted_model_goes_where_a_vae_goes(counts, config):
    model = train_vae(counts, key=KEY, config=replace(config, epochs=1), compressed=True).model
    belief = models.posterior(model, counts)
    assert (belief.mean.shape, model.decoder(belief.mean).shape) == ((170, 2), (170, 40))


def test_a_processor_without_bfloat16_is_told_of(counts, config, monkeypatch):
    config = replace(config, epochs=1)
    monkeypatch.setattr(training, "native_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="precision: this processor has neither avx512_bf16 nor amx_bf16"):
        train_vae(counts, key=KEY, config=config, precision="bfloat16", compressed=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float16"}, "precision: got 'float16', expected one of"),
        ({"precision": "bfloat16", "compressed": False}, "precision: got 'bfloat16' for dense batches"),
        ({"counts": sparse.csr_array((0, 40))}, r"counts: got shape \(0, 40\), expected at least 1 user"),
        ({"counts": sparse.csr_array(-np.eye(40))}, r"counts: got a negative entry \(-1.0\)"),
        ({"validation": sparse.csr_array((3, 41))}, r"validation: got shape \(3, 41\), expected .* 40 items"),
        ({"model": VAE(41, VAEConfig(latent=2, hidden=3), key=KEY)}, "model: got one of 41 items"),
        ({"config": VAEConfig(epochs=0)}, "epochs and batch_size: got 0 and 200, expected at least 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_trained_is_refused(counts, config, change, message):
    arguments = {"counts": counts, "config": config} | change
    with pytest.raises(ValueError, match=message):
        train_vae(arguments.pop("counts"), key=KEY, **arguments)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_run_with_a_checkpoint_is_read_back_and_another_configuration_refused(counts, config, compressed, tmp_path):
    settings = {"key": KEY, "compressed": compressed, "checkpoint": tmp_path / "run", "validation": counts[:40]}
    config = replace(config, epochs=2)
    fitted = train_vae(counts, config=config, **settings)
    assert_same_bits(train_vae(counts, config=config, **settings), fitted)
    with pytest.raises(ValueError, match=r"another run, which differs in \['dropout'\]"):
        train_vae(counts, config=replace(config, dropout=0.2), **settings)


@pytest.mark.parametrize(("cells", "compressed"), [(170 * 40, False), (170 * 40 - 1, True)])
def test_few_cells_are_a_dense_matrix_and_many_stay_compressed_rows(counts, config, cells, compressed, monkeypatch):
    monkeypatch.setattr(train, "DENSE_CELLS", cells)
    config = replace(config, epochs=2)
    by_size = train_vae(counts, key=KEY, config=config)
    assert_same_bits(by_size, train_vae(counts, key=KEY, config=config, compressed=compressed))
    other = train_vae(counts, key=KEY, config=config, compressed=not compressed)
    assert (by_size.training_loss != other.training_loss).all()


def test_dense_training_is_the_loop_on_the_definition_of_the_loss(counts, config):
    config, keys = replace(config, epochs=2), named_keys(KEY, "initialise", "train")
    fitted = train_vae(counts, key=KEY, config=config)
    by_hand = training.fit(
        VAE(40, config, key=keys["initialise"]), negative_elbo, models.dense(counts), key=keys["train"], epochs=2,
        batch_size=config.batch_size, learning_rate=config.learning_rate,
        context=Objective(config.beta, config.anneal_epochs),
    )  # fmt: skip
    np.testing.assert_allclose(fitted.training_loss, by_hand.training_loss, rtol=1e-6)


def test_a_second_training_of_the_same_shapes_traces_nothing(counts, config):
    config = replace(config, epochs=2)

    def dense_and_compressed(seed):
        for compressed in (True, False):
            settings = {"compressed": compressed, "validation": counts[:40]}
            train_vae(counts, key=jax.random.key(seed), config=config, **settings)

    dense_and_compressed(0)
    with jax.no_tracing():
        dense_and_compressed(1)

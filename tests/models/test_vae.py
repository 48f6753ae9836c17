"""The VAE of one domain: forward pass and objective by hand, training, and the inputs that break autoencoders."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import sparse

from rec_transfer import models
from rec_transfer.models import likelihoods, train, vae
from rec_transfer.models.train import posterior, train_vae
from rec_transfer.models.vae import VAE, Objective, VAEConfig, negative_elbo

ITEMS = 6
CONFIG = VAEConfig(latent=2, hidden=5, dropout=0.4)


def drawn(config):
    """A VAE whose parameters are all away from zero (fresh biases would hide a bias forgotten)."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: VAE(ITEMS, config, key=jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def model():
    return drawn(CONFIG)


@pytest.fixture(scope="module")
def counts():
    return jnp.asarray(np.random.default_rng(1).poisson(1.2, (4, ITEMS)), jnp.float32)


def forward(layer, inputs):
    return inputs @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


# --- inputs


def test_every_users_input_has_length_three_in_the_direction_of_damped_counts(counts):
    inputs = np.asarray(vae.encoder_input(counts))
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 3.0, rtol=1e-5)
    damped = np.log(1 + np.asarray(counts))
    np.testing.assert_allclose(inputs / inputs.sum(1, keepdims=True), damped / damped.sum(1, keepdims=True), rtol=1e-5)


def test_a_user_without_clicks_stays_at_zero():
    np.testing.assert_array_equal(vae.encoder_input(jnp.zeros((2, ITEMS))), 0.0)


def test_how_often_the_one_item_was_clicked_does_not_move_the_posterior(model):
    clicks = np.zeros((3, ITEMS), int)
    clicks[:, 2] = [1, 5, 100]
    belief = posterior(model, sparse.csr_array(clicks))
    np.testing.assert_allclose(belief.mean, np.tile(belief.mean[0], (3, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(belief.covariance, np.tile(belief.covariance[0], (3, 1, 1)), rtol=1e-4)
    other = posterior(model, sparse.csr_array(np.eye(ITEMS, dtype=int)[[4]]))
    assert np.abs(other.mean - belief.mean[0]).max() > 1e-3


def test_counts_reach_the_networks_as_single_precision():
    dense = models.dense(sparse.csr_array(np.array([[0, 3], [1, 0]], np.int32)))
    assert dense.dtype == np.float32
    assert dense.tolist() == [[0.0, 3.0], [1.0, 0.0]]


# --- forward pass


def test_the_encoder_is_its_formula(model, counts):
    mean, log_variance = model.encoder(counts)
    features = np.tanh(forward(model.encoder.hidden, np.asarray(vae.encoder_input(counts))))
    np.testing.assert_allclose(mean, forward(model.encoder.mean, features), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_variance, forward(model.encoder.log_variance, features), rtol=1e-4, atol=1e-5)


def test_the_decoder_is_its_formula(model):
    latent = jnp.array([[0.5, -1.0], [2.0, 0.1]])
    features = np.tanh(forward(model.decoder.hidden, np.asarray(latent)))
    np.testing.assert_allclose(model.decoder(latent), forward(model.decoder.logits, features), rtol=1e-4, atol=1e-5)


def test_dropout_hides_items_while_training_only(model, counts):
    plain, again = model.encoder(counts)[0], model.encoder(counts)[0]
    np.testing.assert_array_equal(plain, again)
    noisy, other = (model.encoder(counts, key=jax.random.key(seed))[0] for seed in (1, 2))
    assert not np.allclose(noisy, plain)
    assert not np.allclose(noisy, other)
    np.testing.assert_array_equal(noisy, model.encoder(counts, key=jax.random.key(1))[0])


def test_the_posterior_is_the_encoders_with_a_diagonal_covariance(model, counts):
    belief = posterior(model, sparse.csr_array(np.asarray(counts)))
    mean, log_variance = model.encoder(counts)
    np.testing.assert_allclose(belief.mean, mean, rtol=1e-4, atol=1e-6)
    for covariance, logs in zip(np.asarray(belief.covariance), np.asarray(log_variance), strict=True):
        np.testing.assert_allclose(covariance, np.diag(np.exp(logs)), rtol=1e-4)


def test_another_number_of_items_is_refused(model):
    with pytest.raises(ValueError, match="counts: got 7 items, expected the model's 6"):
        posterior(model, sparse.csr_array(np.ones((2, 7), int)))


def test_reparameterized_draws_have_the_mean_and_the_standard_deviation():
    n, log_variance = 20_000, jnp.array([np.log(4.0), np.log(0.25)], jnp.float32)
    draws = np.asarray(
        vae.reparameterize(jnp.tile(jnp.array([1.0, -2.0]), (n, 1)), log_variance, key=jax.random.key(0))
    )
    spread = np.array([2.0, 0.5])
    assert (np.abs(draws.mean(axis=0) - [1.0, -2.0]) < 4 * spread / np.sqrt(n)).all()
    assert (np.abs(draws.std(axis=0) - spread) < 4 * spread / np.sqrt(2 * n)).all()
    assert abs(np.corrcoef(draws.T)[0, 1]) < 4 / np.sqrt(n)


# --- the objective


def terms(model, counts):
    """Log-likelihood at the posterior mean, and the KL term: [users] each."""
    mean, log_variance = model.encoder(counts)
    log_likelihood = likelihoods.multinomial_log_likelihood(model.decoder(mean), counts)
    return np.asarray(log_likelihood), np.asarray(likelihoods.gaussian_kl(mean, log_variance))


@pytest.mark.parametrize(
    ("epoch", "anneal_epochs", "share"), [(0.0, 10.0, 0.0), (2.5, 10.0, 0.25), (10.0, 10.0, 1.0), (99.0, 10.0, 1.0)]
)
def test_the_kl_term_grows_linearly_to_beta(model, counts, epoch, anneal_epochs, share):
    found = negative_elbo(model, counts, Objective(0.7, anneal_epochs), key=None, epoch=epoch)
    log_likelihood, kl = terms(model, counts)
    np.testing.assert_allclose(found, -(log_likelihood - 0.7 * share * kl), rtol=1e-4)


@pytest.mark.parametrize("epoch", [0.0, 0.01, 3.0])
def test_without_annealing_beta_holds_from_the_first_step(model, counts, epoch):
    found = negative_elbo(model, counts, Objective(1.0, 0.0), key=None, epoch=epoch)
    log_likelihood, kl = terms(model, counts)
    np.testing.assert_allclose(found, kl - log_likelihood, rtol=1e-4)


def test_the_training_loss_is_the_expected_one_of_draws_from_the_posterior(counts):
    # Dropout off: what is left of the noise is the draw of z, whose mean is taken here with NumPy's draws.
    model, users, samples = drawn(replace(CONFIG, dropout=0.0)), len(counts), 4000

    @jax.jit
    def losses(key):
        loss = lambda key: negative_elbo(model, counts, Objective(1.0, 1.0), key=key, epoch=1.0)  # noqa: E731
        return jax.vmap(loss)(jax.random.split(key, samples))

    found = np.asarray(losses(jax.random.key(2)))
    mean, log_variance = (np.asarray(part, float) for part in model.encoder(counts))
    draws = mean + np.exp(log_variance / 2) * np.random.default_rng(3).normal(size=(samples, users, CONFIG.latent))
    logits = forward(model.decoder.logits, np.tanh(forward(model.decoder.hidden, draws)))
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    kl = 0.5 * np.sum(mean**2 + np.exp(log_variance) - 1 - log_variance, axis=1)
    expected = kl - (np.asarray(counts) * logits).sum(axis=-1)
    error = np.sqrt((found.var(axis=0) + expected.var(axis=0)) / samples)
    assert found.std(axis=0).min() > 0
    assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) < 4 * error).all()


def test_gradients_of_the_objective_are_finite_differences(model, counts):
    # Through the draw as well: with the noise held fixed, the sample is a smooth function of the parameters.
    with jax.enable_x64():
        model = jax.tree.map(lambda array: jnp.asarray(np.asarray(array), float), model)
        wide = jnp.asarray(np.asarray(counts), float)

        @jax.jit
        def loss(model):
            return negative_elbo(model, wide, Objective(0.7, 2.0), key=jax.random.key(0), epoch=1.0).sum()

        check_grads(loss, (model,), order=1, modes=("rev",), rtol=1e-5)


def test_users_without_clicks_give_finite_values_and_gradients(model):
    empty = jnp.zeros((2, ITEMS))

    @jax.jit
    def loss(model):
        return negative_elbo(model, empty, Objective(1.0, 0.0), key=jax.random.key(0), epoch=0.0).sum()

    value, gradient = jax.value_and_grad(loss)(model)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    belief = posterior(model, sparse.csr_array((2, ITEMS), dtype=np.int32))
    assert np.isfinite(belief.mean).all()
    assert np.isfinite(belief.covariance).all()
    assert np.isfinite(model.decoder(belief.mean)).all()


# --- the module as a pytree, and training


def test_a_vae_is_a_pytree_of_arrays_that_keeps_its_sizes(model):
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model))
    sizes = 2 * (ITEMS * 5 + 5 * 2) + 5 * 2 + 5 + 2 + 2 + 5 + ITEMS  # kernels of four layers + log-variance, biases
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == sizes
    moved = jax.tree.map(lambda leaf: leaf + 1, model)
    assert (moved.items, moved.config) == (ITEMS, CONFIG)


def test_initial_parameters_depend_on_the_key_and_may_be_vmapped_over_it(vae_config):
    one, again, other = (VAE(30, vae_config, key=jax.random.key(seed)).encoder.hidden.kernel[...] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    many = jax.eval_shape(jax.vmap(lambda key: VAE(ITEMS, CONFIG, key=key)), jax.random.split(jax.random.key(0), 3))
    assert many.encoder.hidden.kernel.shape == (3, ITEMS, 5)


def test_training_explains_the_clicks_better_than_popularity_can(split, vaes):
    # The loss at popularity's logits is what a decoder learns that pays no heed to the user.
    source = split.train.source.counts
    popular = np.log(source.sum(axis=0) / source.sum())
    floor = -(source @ popular).mean()
    counts = jnp.asarray(models.dense(source))
    loss = jax.jit(lambda model: negative_elbo(model, counts, Objective(1.0, 0.0), key=None, epoch=0.0))(vaes[0])
    assert loss.mean() < 0.9 * floor


def test_the_training_loss_falls_and_is_deterministic_in_the_key(split, vae_config):
    first, again, other = (
        train_vae(split.train.source.counts, key=jax.random.key(seed), config=vae_config) for seed in (1, 1, 2)
    )
    assert first.training_loss.shape == (vae_config.epochs,)
    assert first.training_loss[-1] < 0.95 * first.training_loss[0]
    np.testing.assert_array_equal(first.training_loss, again.training_loss)
    for one, same in zip(jax.tree.leaves(first.model), jax.tree.leaves(again.model), strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first.training_loss, other.training_loss)


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match=r"counts: got a negative entry \(-2\), expected counts of events"):
        train_vae(sparse.csr_array(np.array([[1, -2], [0, 3]])), key=jax.random.key(0), config=CONFIG)


def test_a_posterior_encoded_in_chunks_has_the_same_values(monkeypatch):
    model = drawn(CONFIG)
    clicks = sparse.csr_array(np.random.default_rng(1).poisson(1.2, (25, ITEMS)))
    whole = posterior(model, clicks)
    sizes, dense = [], models.dense
    monkeypatch.setattr(train, "dense", lambda counts: sizes.append(counts.shape[0]) or dense(counts))
    monkeypatch.setattr(train, "CELLS_AT_ONCE", 10 * ITEMS + 3)
    for one, other in zip(posterior(model, clicks), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert sizes == [10, 10, 5]

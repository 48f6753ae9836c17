"""The loss of a VAE on compressed rows, and the noise of a training step."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rec_transfer import devices, likelihoods
from rec_transfer.keys import named_keys
from rec_transfer.sparse_layers import Precision, SparseBatch, dense_layer, softmax_layer, sparse_product
from rec_transfer.types import Key, PerUser
from rec_transfer.vae import INPUT_NORM, VAE, Objective, VAEConfig, annealed_beta


def input_values(batch: SparseBatch) -> Float[Array, " entries"]:
    """``vae.encoder_input`` at the entries alone."""
    users = batch.row_starts.shape[0] - 1
    damped = jnp.log1p(batch.counts)
    length = jnp.sqrt(jax.ops.segment_sum(damped**2, batch.users, users))
    return INPUT_NORM * damped / jnp.maximum(length, 1e-6)[batch.users]


class Noise(NamedTuple):
    """What chance decides in a step: which entries dropout keeps, and epsilon of z."""

    kept: Bool[Array, " entries"]
    epsilon: Float[Array, "users latent"]


def draw_noise(config: VAEConfig, entries: int, users: int, *, key: Key, share: devices.Share | None = None) -> Noise:
    """The noise of a batch with room for so many entries; a ``share`` of a batch gets what it has in the whole batch.

    Dropout hides other entries than in the dense path, at the same rate: one number per entry instead of per item.
    """
    keys = named_keys(key, "dropout", "sample")
    kept = partial(jax.random.bernoulli, keys["dropout"], 1.0 - config.dropout)
    epsilon = partial(jax.random.normal, keys["sample"])
    return Noise(
        devices.noise_of(kept, (entries,), share, "entries"),
        devices.noise_of(epsilon, (users, config.latent), share, "users"),
    )


def sparse_negative_elbo(
    model: VAE,
    batch: SparseBatch,
    objective: Objective,
    *,
    noise: Noise | None,
    epoch,
    precision: Precision = "float32",
) -> PerUser:
    """``vae.negative_elbo`` of a batch of compressed rows: the same value and gradient, nats per user.

    Without noise nothing is hidden and z is its mean.
    """
    values = input_values(batch)
    encoder, decoder = model.encoder, model.decoder
    if noise is not None:
        values = jnp.where(noise.kept, values / (1.0 - model.config.dropout), 0.0)

    def layer(linear, inputs):
        return dense_layer(inputs, linear.kernel[...], linear.bias[...], precision)

    features = jnp.tanh(sparse_product(values, batch, encoder.hidden.kernel[...]) + encoder.hidden.bias[...])
    mean, log_variance = layer(encoder.mean, features), layer(encoder.log_variance, features)
    latent = mean if noise is None else mean + jnp.exp(0.5 * log_variance) * noise.epsilon  # as vae.reparameterize
    decoded = jnp.tanh(layer(decoder.hidden, latent))
    log_likelihood = softmax_layer(decoded, decoder.logits.kernel[...], decoder.logits.bias[...], batch, precision)
    beta = annealed_beta(objective, epoch)
    return -likelihoods.elbo(log_likelihood, likelihoods.gaussian_kl(mean, log_variance), beta)

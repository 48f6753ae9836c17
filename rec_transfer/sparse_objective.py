"""The loss of a VAE on compressed rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rec_transfer import likelihoods
from rec_transfer.sparse_layers import Precision, SparseBatch, dense_layer, softmax_layer, sparse_product
from rec_transfer.types import PerUser
from rec_transfer.vae import INPUT_NORM, VAE, Objective, annealed_beta


def input_values(batch: SparseBatch) -> Float[Array, " entries"]:
    """``vae.encoder_input`` at the entries alone."""
    users = batch.row_starts.shape[0] - 1
    damped = jnp.log1p(batch.counts)
    length = jnp.sqrt(jax.ops.segment_sum(damped**2, batch.users, users))
    return INPUT_NORM * damped / jnp.maximum(length, 1e-6)[batch.users]


def sparse_negative_elbo(
    model: VAE,
    batch: SparseBatch,
    objective: Objective,
    *,
    epsilon: Float[Array, "users latent"] | None,
    epoch,
    precision: Precision = "float32",
) -> PerUser:
    """``vae.negative_elbo`` of a batch of compressed rows: the same value and gradient, nats per user.

    The encoder sees what the batch says is seen, scaled up as dropout does it; ``epsilon`` is the noise of z. Without
    it (None) z is its mean, and all entries should be seen, for nothing is scaled.
    """
    values = input_values(batch)
    encoder, decoder = model.encoder, model.decoder
    if epsilon is not None:
        values = values / (1.0 - model.config.dropout)

    def layer(linear, inputs):
        return dense_layer(inputs, linear.kernel[...], linear.bias[...], precision)

    features = jnp.tanh(sparse_product(values, batch, encoder.hidden.kernel[...]) + encoder.hidden.bias[...])
    mean, log_variance = layer(encoder.mean, features), layer(encoder.log_variance, features)
    latent = mean if epsilon is None else mean + jnp.exp(0.5 * log_variance) * epsilon  # as vae.reparameterize
    decoded = jnp.tanh(layer(decoder.hidden, latent))
    log_likelihood = softmax_layer(decoded, decoder.logits.kernel[...], decoder.logits.bias[...], batch, precision)
    beta = annealed_beta(objective, epoch)
    return -likelihoods.elbo(log_likelihood, likelihoods.gaussian_kl(mean, log_variance), beta)

"""The VAE on counts as compressed rows: no users x items matrix of the inputs is ever laid out dense.

The numbers are those of the definition in ``vae``, several times faster where items are many. The product with the
first layer's weights and its backward pass are a native kernel on the CPU (``BCSR @ W``), for which the host lays out
each batch by rows and by columns. The likelihood reads the counts at their entries alone.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCSR
from jaxtyping import Array, Float

from rec_transfer.models import likelihoods
from rec_transfer.models.vae import INPUT_NORM, VAE, Objective, annealed_beta
from rec_transfer.training import SparseBatch
from rec_transfer.types import PerUser

Precision = Literal["float32", "bfloat16"]
PRECISIONS = ("float32", "bfloat16")


@jax.custom_vjp
def sparse_product(
    values: Float[Array, " entries"], batch: SparseBatch, weights: Float[Array, "items hidden"]
) -> Float[Array, "users hidden"]:
    r"""Return $X W$, where X holds ``values`` at the entries that are seen; differentiable in the weights alone.

    The backward pass $X^\top G$ is a product of compressed rows too: the batch sorted by columns is $X^\top$ by rows.
    """
    shape = (batch.row_starts.shape[0] - 1, weights.shape[0])
    return BCSR((values[batch.seen], batch.items[batch.seen], batch.row_starts), shape=shape) @ weights


def _sparse_product_forward(values, batch, weights):
    return sparse_product(values, batch, weights), (values, batch)


def _sparse_product_backward(kept, gradient):
    values, batch = kept
    shape = (batch.column_starts.shape[0] - 1, gradient.shape[0])
    transposed = (values[batch.by_column], batch.users[batch.by_column], batch.column_starts)
    return None, None, BCSR(transposed, shape=shape) @ gradient


sparse_product.defvjp(_sparse_product_forward, _sparse_product_backward)


def _dot(left, right, axes):
    return jax.lax.dot_general(left, right, ((axes[:1], axes[1:]), ((), ())), preferred_element_type=jnp.float32)


def _to_layer(inputs, per_user, gradient):
    """Gradients of weights and bias, [inputs, ones]^T @ gradient, from one product (``per_user`` stands for the ones).

    The row below the transposed inputs also keeps XLA from folding the transposition into the product: columns x
    columns is not native in bfloat16 and would be computed in float32, in twice the time.
    """
    both = _dot(jnp.concatenate([inputs.T, per_user[None]]).astype(gradient.dtype), gradient, (1, 0))
    return both[:-1], both[-1]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def dense_layer(
    inputs: Float[Array, "users inputs"],
    weights: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"],
    precision: Precision = "float32",
) -> Float[Array, "users outputs"]:
    """Return inputs @ weights + bias: factors rounded to ``precision``, summed in float32; backward likewise."""
    return _dense_layer_forward(inputs, weights, bias, precision)[0]


def _dense_layer_forward(inputs, weights, bias, precision):
    inputs, weights = inputs.astype(precision), weights.astype(precision)
    return _dot(inputs, weights, (1, 0)) + bias, (inputs, weights)


def _dense_layer_backward(precision, kept, gradient):
    inputs, weights = kept
    gradient = gradient.astype(precision)
    ones = jnp.ones(len(inputs), inputs.dtype)
    return _dot(gradient, weights, (1, 1)), *_to_layer(inputs, ones, gradient)


dense_layer.defvjp(_dense_layer_forward, _dense_layer_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def softmax_layer(
    features: Float[Array, "users features"],
    weights: Float[Array, "features items"],
    bias: Float[Array, " items"],
    batch: SparseBatch,
    precision: Precision = "float32",
) -> PerUser:
    r"""Return the multinomial log-likelihood of the counts under the last layer's logits, nats per user.

    $\sum_i x_i \log \mathrm{softmax}(hW + b)_i$, as ``likelihoods.multinomial_log_likelihood`` of these logits. Its
    gradient $x - n\,\mathrm{softmax}$ is $-\frac{n}{s}(e - \frac{s}{n} x)$ with $e = \exp(\mathrm{logits} - \max)$ and
    s the sum of e. We store e, overwrite the entries of the clicked items, and apply the factor per user to the smaller
    operand of each backward product. The users x items matrix is therefore written only twice.
    """
    return _softmax_layer_forward(features, weights, bias, batch, precision)[0]


def _softmax_layer_forward(features, weights, bias, batch, precision):
    features, weights = features.astype(precision), weights.astype(precision)
    users = features.shape[0]
    logits = _dot(features, weights, (1, 0)) + bias
    top = jnp.max(logits, axis=-1)
    shares = jnp.exp(logits - top[:, None])
    total = jnp.sum(shares, axis=-1)
    clicked = logits.at[batch.users, batch.items].get(mode="fill", fill_value=0.0)
    clicks = jax.ops.segment_sum(batch.counts, batch.users, users)
    explained = jax.ops.segment_sum(batch.counts * clicked, batch.users, users)
    log_likelihood = explained - clicks * (top + jnp.log(total))
    per_click = (total / jnp.maximum(clicks, 1e-6))[batch.users]
    overwritten = jnp.exp(clicked - top[batch.users]) - batch.counts * per_click
    shares = _set_entries(shares.astype(precision), batch, overwritten.astype(precision))
    return log_likelihood, (features, weights, shares, clicks / total)


def _set_entries(matrix, batch, values):
    if matrix.dtype == jnp.bfloat16:  # as integers: a scatter in bfloat16 would convert the whole matrix and back
        bits = partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint16)
        changed = bits(matrix).at[batch.users, batch.items].set(bits(values), mode="drop")
        return jax.lax.bitcast_convert_type(changed, jnp.bfloat16)
    return matrix.at[batch.users, batch.items].set(values, mode="drop")


def _softmax_layer_backward(precision, kept, gradient):
    features, weights, shares, scale = kept
    scale = -(gradient * scale)[:, None]
    to_features = scale * _dot(shares, weights, (1, 1))
    return to_features, *_to_layer(scale * features, scale[:, 0], shares), None


softmax_layer.defvjp(_softmax_layer_forward, _softmax_layer_backward)


def input_values(batch: SparseBatch) -> Float[Array, " entries"]:
    """Return ``vae.encoder_input`` at the entries alone."""
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
    epoch: Any,
    precision: Precision = "float32",
) -> PerUser:
    """Return ``vae.negative_elbo`` of a batch of compressed rows: the same value and gradient, nats per user.

    Args:
        batch: the encoder reads the entries that are seen, scaled up as dropout does it.
        epsilon: standard normal noise of z. If None, z is its mean, nothing is scaled, and all entries should be seen.
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


def standard_normal(uniform: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return standard normal numbers $\Phi^{-1}(u)$ from uniform ones, $\sqrt 2\, \mathrm{erf}^{-1}(2u - 1)$.

    Of NumPy's float32 u = k / 2^24 the middle of each step is taken, so that k = 0 stays finite.
    """
    return jnp.sqrt(2.0) * jax.lax.erf_inv(2.0 * uniform - 1.0 + 2.0**-24)


def _sparse_loss(model, batch, objective, *, key, epoch, precision):
    epsilon = None if key is None else standard_normal(key)
    return sparse_negative_elbo(model, batch, objective, epsilon=epsilon, epoch=epoch, precision=precision)


# The loss that ``training.fit`` is handed with batches of compressed rows, whose noise is uniform numbers: one function
# for each precision, the same one at every call, so that the compiled loop is found again.
LOSSES = {precision: partial(_sparse_loss, precision=precision) for precision in PRECISIONS}


@partial(jax.jit, static_argnames=("precision",))
def scores(model: VAE, batch: SparseBatch, *, precision: Precision = "float32") -> Float[Array, "users items"]:
    """Return the logits of all items at the mean of z, from compressed rows: ``decoder(encoder(counts)[0])``."""

    def layer(linear, inputs):
        return dense_layer(inputs, linear.kernel[...], linear.bias[...], precision)

    first = model.encoder.hidden
    features = jnp.tanh(sparse_product(input_values(batch), batch, first.kernel[...]) + first.bias[...])
    return layer(model.decoder.logits, jnp.tanh(layer(model.decoder.hidden, layer(model.encoder.mean, features))))

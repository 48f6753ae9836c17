"""Networks that start at the ridge map: an MLP trained through the decoder, a contrastive map, a bridge per user.

``training.fit`` trains each of them on four folds of the pairs. ``maps.base.average_over_folds`` averages the five.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rec_transfer import training
from rec_transfer.keys import named_keys
from rec_transfer.maps.base import MeanMap, Numbers, average_over_folds, check_pairs, dense_counts, sample_posterior
from rec_transfer.maps.ridge import Ridge
from rec_transfer.models import likelihoods
from rec_transfer.types import Key, Pairs, PerUser, Unpaired

Epoch: TypeAlias = int | float | Array  # the number of the epoch, as ``training.fit`` passes it
HIDDEN = 32
BATCH, LEARNING_RATE, WEIGHT_DECAY = 50, 3e-3, 1e-2


class MLPMap(nnx.Module):
    """Map means linearly, plus a small tanh network whose last layer starts at zero: untrained it is the linear map.

    Args:
        coefficients: of the linear map, [latent_s, latent_t]; users are rows.
        intercept: [latent_t].
        key: initialises the network.
    """

    def __init__(
        self, coefficients: Float[Numbers, "latent_s latent_t"], intercept: Float[Numbers, " latent_t"], *, key: Key
    ) -> None:
        keys = named_keys(key, "hidden", "output")
        inputs, outputs = coefficients.shape
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.hidden = nnx.Linear(inputs, HIDDEN, rngs=nnx.Rngs(keys["hidden"]))
        self.output = nnx.Linear(HIDDEN, outputs, rngs=nnx.Rngs(keys["output"]), kernel_init=nnx.initializers.zeros)

    def __call__(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_t"]:
        """Return the mapped means."""
        return mean @ self.coefficients[...] + self.intercept[...] + self.output(jnp.tanh(self.hidden(mean)))


def decoded_loss(model: Callable, batch: Pairs, decode: Callable, *, key: Key | None, epoch: Epoch) -> PerUser:
    r"""Return the negative log-likelihood of each user's target clicks under the decoded mapped interest, in nats.

    It is $-\log p(x_t \mid f(z_s))$. During training $z_s$ is sampled from the source posterior, so the network cannot
    rely on differences that the encoder is not sure of. If ``key`` is None, $z_s$ is the posterior mean.

    Args:
        model: maps source to target interests.
        batch: the pairs.
        decode: maps target interests to logits.
        key: for the sample.
        epoch: not used; ``training.fit`` passes it.
    """
    return -likelihoods.multinomial_log_likelihood(decode(model(sample_posterior(batch.source, key=key))), batch.counts)


def fit_mlp_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode: Callable,
    key: Key,
    epochs: int = 60,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
) -> MeanMap:
    """Fit networks that map interests so that the target decoder explains the pairs' clicks; return their average.

    The pairs are split into five folds. For each fold, a ridge map is fitted on the other four and a network is trained
    from there, through the frozen decoder. The epoch that best explains the clicks of the fold is kept. The networks'
    predictions of their folds give the residual covariance.

    Args:
        pairs: the overlapping users.
        unpaired: not used.
        decode: the target decoder: maps interests to logits.
        key: splits the folds, initialises and trains the networks.
        epochs: at most; see ``training.fit`` for the step size and the decay.
        learning_rate, weight_decay: see ``training.fit``.

    Raises:
        ValueError: there are fewer than five pairs.
    """
    rates = learning_rate, weight_decay
    return _fit_network(pairs, MLPMap, decoded_loss, decode, key=key, epochs=epochs, rates=rates)


def _fit_network(
    pairs: Pairs,
    network: Callable,
    loss: Callable,
    context: Any,
    *,
    key: Key,
    epochs: int,
    rates: tuple[float, float] = (LEARNING_RATE, WEIGHT_DECAY),
) -> MeanMap:
    """Train ``network`` from the ridge map without each fold of the pairs, and average the five."""

    def train(start: Ridge, seen: Pairs, unseen: Pairs, *, key: Key) -> nnx.Module:
        keys = named_keys(key, "initialise", "train")
        return training.fit(
            network(start.coefficients, start.intercept, key=keys["initialise"]),
            loss,
            seen,
            key=keys["train"],
            context=context,
            validation=unseen,
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=rates[0],
            weight_decay=rates[1],
        ).model

    return average_over_folds(dense_counts(pairs), train, key=key)


# --- contrastive
def contrastive_loss(
    model: Callable, batch: Pairs, temperature: float | Float[Array, ""], *, key: Key | None, epoch: Epoch
) -> PerUser:
    r"""Return InfoNCE, $-\log \frac{\exp(-\|f(z_i) - \mu_i\|^2 / 2\tau)}{\sum_j \exp(-\|f(z_i) - \mu_j\|^2 / 2\tau)}$.

    It is in nats per user. The j are the target means of all pairs in the batch; $z_i$ is a sample from the source
    posterior. The loss measures how surely a mapped user is told apart from the others (van den Oord, Li and Vinyals
    2018). A map without any information has loss $\log n$ for n pairs. The squared distance replaces the usual cosine
    because the decoder needs the scale that a cosine ignores.

    Args:
        model: maps source to target interests.
        batch: the pairs.
        temperature: $\tau$, in latent units squared.
        key: for the sample; None takes the mean.
        epoch: not used; ``training.fit`` passes it.
    """
    mapped = model(sample_posterior(batch.source, key=key))
    apart = jnp.sum((mapped[:, None] - batch.target.mean) ** 2, axis=-1)
    return -jnp.diagonal(jax.nn.log_softmax(-0.5 * apart / temperature, axis=1))


def fit_contrastive_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode: Callable | None = None,
    key: Key,
    temperature: float = 1.0,
    epochs: int = 60,
) -> MeanMap:
    """Fit networks that bring each user nearer to its own target mean than to the others'; return their average.

    Args:
        pairs: the overlapping users.
        unpaired, decode: not used.
        key: splits the folds, initialises and trains the networks.
        temperature: variance around a target mean within which other users are confused with it, in latent units
            squared.
        epochs: at most; each of the five networks keeps the epoch with the lowest loss on its fold.

    Raises:
        ValueError: there are fewer than ten pairs, or the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature: got {temperature}, expected a positive number")
    check_pairs(pairs)  # two in each fold: a contrast needs another
    return _fit_network(pairs, MLPMap, contrastive_loss, temperature, key=key, epochs=epochs)


# --- a bridge per user
class BridgeMap(nnx.Module):
    r"""Map means by $f(z) = z\,(B + V(z)\,U(z)) + c$: the ridge map B, c plus a low-rank matrix made from z itself.

    A hidden tanh layer of z gives V [latent_s, rank] and U [rank, latent_t]. U starts at zero, so f starts at the ridge
    map. The bridge of PTUPCDR (Zhu et al. 2022) is a full matrix made from the embeddings of the clicked items.

    Args:
        coefficients: B, [latent_s, latent_t]; users are rows.
        intercept: c, [latent_t].
        key: initialises the layers.
        rank: of V U.
    """

    def __init__(
        self,
        coefficients: Float[Numbers, "latent_s latent_t"],
        intercept: Float[Numbers, " latent_t"],
        *,
        key: Key,
        rank: int = 2,
    ) -> None:
        keys = named_keys(key, "hidden", "right", "left")
        inputs, outputs = coefficients.shape
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.hidden = nnx.Linear(inputs, HIDDEN, rngs=nnx.Rngs(keys["hidden"]))
        self.right = nnx.Linear(HIDDEN, inputs * rank, rngs=nnx.Rngs(keys["right"]))
        self.left = nnx.Linear(HIDDEN, rank * outputs, rngs=nnx.Rngs(keys["left"]), kernel_init=nnx.initializers.zeros)
        self.rank = rank

    def matrix(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_s latent_t"]:
        """Return the matrix that is applied to each user's mean."""
        hidden = jnp.tanh(self.hidden(mean))
        right = self.right(hidden).reshape(*hidden.shape[:-1], -1, self.rank)
        left = self.left(hidden).reshape(*hidden.shape[:-1], self.rank, -1)
        return self.coefficients[...] + right @ left

    def __call__(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_t"]:
        """Return the mapped means."""
        return jnp.einsum("...s,...st->...t", mean, self.matrix(mean)) + self.intercept[...]


def fit_bridge_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode: Callable, key: Key, rank: int = 2, epochs: int = 60
) -> MeanMap:
    """Fit networks that map each user by a matrix made from its own source mean; return their average.

    They are trained through the target decoder, like ``fit_mlp_map``.

    Args:
        pairs: the overlapping users.
        unpaired: not used.
        decode: the target decoder: maps interests to logits.
        key: splits the folds, initialises and trains the networks.
        rank: of the matrix that is added to the ridge map's.
        epochs: at most; each of the five networks keeps the epoch that best explains the clicks of its fold.

    Raises:
        ValueError: there are fewer than ten pairs, or the rank is below one.
    """
    if rank < 1:
        raise ValueError(f"rank: got {rank}, expected at least 1")
    check_pairs(pairs)

    def network(coefficients, intercept, *, key: Key) -> BridgeMap:
        return BridgeMap(coefficients, intercept, key=key, rank=rank)

    return _fit_network(pairs, network, decoded_loss, decode, key=key, epochs=epochs)

r"""Two more networks grown from the ridge map: one told apart by its neighbours, one that makes a matrix per user.

Both are trained by ``training.fit``, dealt, stopped and averaged by ``alignment.average_over_folds``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rec_transfer import training
from rec_transfer.keys import named_keys
from rec_transfer.maps.base import MeanMap, average_over_folds, drawn
from rec_transfer.maps.ridge import Ridge
from rec_transfer.models import likelihoods
from rec_transfer.types import Key, Pairs, PerUser, Unpaired

HIDDEN = 32


class MLPMap(nnx.Module):
    """A linear map plus a small tanh network whose last layer starts at zero: before training it is the linear map."""

    def __init__(self, coefficients, intercept, *, key: Key):
        keys = named_keys(key, "hidden", "output")
        inputs, outputs = coefficients.shape
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.hidden = nnx.Linear(inputs, HIDDEN, rngs=nnx.Rngs(keys["hidden"]))
        self.output = nnx.Linear(HIDDEN, outputs, rngs=nnx.Rngs(keys["output"]), kernel_init=nnx.initializers.zeros)

    def __call__(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_t"]:
        return mean @ self.coefficients[...] + self.intercept[...] + self.output(jnp.tanh(self.hidden(mean)))


def decoded_loss(model: Callable, batch: Pairs, decode, *, key: Key | None, epoch) -> PerUser:
    """Negative log-likelihood, in nats, of a user's target clicks under the decoded mapped interest.

    While training the source interest is a draw from its posterior, which keeps a network from leaning on
    differences the encoder itself is not sure of.
    """
    return -likelihoods.multinomial_log_likelihood(decode(model(drawn(batch.source, key=key))), batch.counts)


def fit_mlp_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode,
    key: Key,
    epochs: int = 60,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
) -> MeanMap:
    """Networks trained through the target decoder, each stopped on pairs it does not see, then averaged.

    The pairs are dealt into five folds. For each, a ridge map is fitted on the other four, a network grows from it to
    explain the target *clicks* through the frozen decoder, and the epoch that best explains the fold left out is kept.
    The fold's predictions give the residual covariance.
    """

    def train(start: Ridge, seen: Pairs, unseen: Pairs, *, key: Key) -> MLPMap:
        keys = named_keys(key, "initialise", "train")
        return training.fit(
            MLPMap(start.coefficients, start.intercept, key=keys["initialise"]),
            decoded_loss,
            seen,
            key=keys["train"],
            context=decode,
            validation=unseen,
            epochs=epochs,
            batch_size=50,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        ).model

    return average_over_folds(pairs, train, key=key)


LEAST_PAIRS = 10  # two left out in each of five folds: a contrast needs another
BATCH, LEARNING_RATE, WEIGHT_DECAY = 50, 3e-3, 1e-2


def _fit_network(pairs: Pairs, network: Callable, loss: Callable, context, epochs: int, *, key: Key) -> MeanMap:
    if len(pairs.counts) < LEAST_PAIRS:
        raise ValueError(f"pairs: got {len(pairs.counts)} users, expected at least {LEAST_PAIRS}")

    def train(start: Ridge, seen: Pairs, unseen: Pairs, *, key: Key) -> nnx.Module:
        keys = named_keys(key, "initialise", "train")
        return training.fit(
            network(start.coefficients, start.intercept, key=keys["initialise"]), loss, seen, key=keys["train"],
            context=context, validation=unseen, epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
        ).model  # fmt: skip

    return average_over_folds(pairs, train, key=key)


# --- contrastive
def contrastive_loss(model: Callable, batch: Pairs, temperature, *, key: Key | None, epoch) -> PerUser:
    r"""InfoNCE: $-\log \frac{\exp(-\|f(z_i) - \mu_i\|^2 / 2\tau)}{\sum_j \exp(-\|f(z_i) - \mu_j\|^2 / 2\tau)}$, nats.

    The j are the target means of all pairs in the batch, $z_i$ a draw from the source posterior: how surely the mapped
    user is told from the others (van den Oord, Li and Vinyals 2018). With the squared distance in place of a cosine the
    map keeps its scale, which the decoder needs. At $\log n$ for n pairs it knows nothing.
    """
    mapped = model(drawn(batch.source, key=key))
    apart = jnp.sum((mapped[:, None] - batch.target.mean) ** 2, axis=-1)
    return -jnp.diagonal(jax.nn.log_softmax(-0.5 * apart / temperature, axis=1))


def fit_contrastive_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode=None,
    key: Key,
    temperature: float = 1.0,
    epochs: int = 60,
) -> MeanMap:
    """A linear map with a bend that brings each user nearer to his own target mean than to the others'.

    Args:
        temperature: variance about a target mean within which others are confused with it, in latent units squared.
        epochs: at most; each of the five networks keeps the one in which it tells the fold left out apart best.

    Raises:
        ValueError: fewer than ten pairs, or a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature: got {temperature}, expected a positive number")
    return _fit_network(pairs, MLPMap, contrastive_loss, temperature, epochs, key=key)


# --- a bridge per user
class BridgeMap(nnx.Module):
    r"""$f(z) = z\,(B + V(z)\,U(z)) + c$: the ridge map B, c and a matrix of low rank made from the user's own latent.

    A hidden tanh layer of z gives V [latent_s, rank] and U [rank, latent_t]; U starts at zero, so that f starts at the
    ridge map. The bridge of PTUPCDR (Zhu et al. 2022) is a full matrix, made from the embeddings of the items clicked.
    """

    def __init__(self, coefficients, intercept, *, key: Key, rank: int = 2):
        keys = named_keys(key, "hidden", "right", "left")
        inputs, outputs = coefficients.shape
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.hidden = nnx.Linear(inputs, HIDDEN, rngs=nnx.Rngs(keys["hidden"]))
        self.right = nnx.Linear(HIDDEN, inputs * rank, rngs=nnx.Rngs(keys["right"]))
        self.left = nnx.Linear(HIDDEN, rank * outputs, rngs=nnx.Rngs(keys["left"]), kernel_init=nnx.initializers.zeros)
        self.rank = rank

    def matrix(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_s latent_t"]:
        """The matrix applied to each user's mean."""
        hidden = jnp.tanh(self.hidden(mean))
        right = self.right(hidden).reshape(*hidden.shape[:-1], -1, self.rank)
        left = self.left(hidden).reshape(*hidden.shape[:-1], self.rank, -1)
        return self.coefficients[...] + right @ left

    def __call__(self, mean: Float[Array, "*users latent_s"]) -> Float[Array, "*users latent_t"]:
        return jnp.einsum("...s,...st->...t", mean, self.matrix(mean)) + self.intercept[...]


def fit_bridge_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode, key: Key, rank: int = 2, epochs: int = 60
) -> MeanMap:
    """A personalised bridge: each user's source mean makes the matrix that maps it, trained through the decoder.

    Args:
        rank: of what a user's matrix adds to the ridge map's.
        epochs: at most; each of the five networks keeps the one that best explains the clicks of the fold left out.

    Raises:
        ValueError: fewer than ten pairs, or a rank below one.
    """
    if rank < 1:
        raise ValueError(f"rank: got {rank}, expected at least 1")

    def network(coefficients, intercept, *, key: Key) -> BridgeMap:
        return BridgeMap(coefficients, intercept, key=key, rank=rank)

    return _fit_network(pairs, network, decoded_loss, decode, epochs, key=key)

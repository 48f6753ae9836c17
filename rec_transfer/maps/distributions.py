r"""Maps trained until their outputs are distributed like the target interests: by a kernel, or by a discriminator.

Like the maps of ``maps.transport`` they need no overlapping user and then do not learn who is who. With ``pair_weight``
above zero they also learn from the pairs: they are supervised maps that stay inside the target distribution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rec_transfer import training
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.maps.base import (
    LinearMap,
    MeanMap,
    average_over_folds,
    dense_counts,
    mean_map,
    sample_posterior,
    take_rows,
)
from rec_transfer.maps.networks import Epoch, MLPMap, decoded_loss
from rec_transfer.maps.ridge import Ridge
from rec_transfer.maps.transport import check_enough, fit_wasserstein_map
from rec_transfer.types import Key, Pairs, PerUser, Unpaired

MAX_USERS = 2000  # of either domain, sampled once for the trained maps
WIDTHS = (0.5, 1.0, 2.0)  # of the kernels, times the median distance: no single one detects both shape and shift
BATCH, LEARNING_RATE, WEIGHT_DECAY = 125, 3e-3, 1e-2
SLOPE_PENALTY, PACE = 10.0, 10.0  # the discriminator is smooth, and faster than the map (Heusel et al. 2017)


def squared_distances(x: Float[Array, "rows latent"], y: Float[Array, "others latent"]) -> Float[Array, "rows others"]:
    r"""Return $\|x\|^2 + \|y\|^2 - 2 x^\top y$ for each pair of rows, never below zero."""
    return jnp.maximum(jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1) - 2 * x @ y.T, 0.0)


def squared_mmd(
    x: Float[Array, "rows latent"], y: Float[Array, "others latent"], widths: Float[Array, " widths"]
) -> Float[Array, ""]:
    r"""Return the squared maximum mean discrepancy of two samples; its mean is zero if their distributions agree.

    $\frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
    - \frac{2}{nm} \sum_{ij} k(x_i, y_j)$, unbiased (Gretton et al. 2012, eq. 3), with k the mean of RBF kernels
    $\exp(-\|x - y\|^2 / 2 w^2)$ over the widths.
    """

    def kernel(one, other):
        apart = squared_distances(one, other)
        return jnp.mean(jnp.stack([jnp.exp(-0.5 * apart / width**2) for width in widths]), axis=0)

    def within(sample):
        others = 1 - jnp.eye(len(sample))
        return jnp.sum(others * kernel(sample, sample)) / jnp.sum(others)

    return within(x) + within(y) - 2 * jnp.mean(kernel(x, y))


def kernel_widths(sample: Float[Array, "rows latent"]) -> Float[Array, " widths"]:
    """Return half, once and twice the median distance between the points of a sample (the median heuristic)."""
    apart = squared_distances(sample, sample)[jnp.triu_indices(len(sample), 1)]
    return jnp.sqrt(jnp.median(apart)) * jnp.asarray(WIDTHS)


def loss_per_click(model: Callable, pairs: Pairs, decode: Callable, *, key: Key | None) -> PerUser:
    """Return ``decoded_loss`` divided by the mean number of clicks: nats per click of the average user.

    Its size then does not depend on how much users click.
    """
    return decoded_loss(model, pairs, decode, key=key, epoch=0.0) / jnp.mean(jnp.sum(pairs.counts, axis=-1))


class PairTerm(NamedTuple):
    """What the pairs add to a loss: their clicks under the decoder, with a weight.

    ``weight`` multiplies nats per click. ``decode`` maps target interests to logits.
    """

    pairs: Pairs
    weight: float | Float[Array, ""]
    decode: Callable

    def loss(self, network: Callable, *, key: Key) -> Float[Array, ""]:
        """Return the weighted mean of ``loss_per_click`` over the pairs."""
        return self.weight * jnp.mean(loss_per_click(network, self.pairs, self.decode, key=key))


class MMDContext(NamedTuple):
    """The pairs' part of the loss, and the widths of the kernels."""

    pair_term: PairTerm
    widths: Float[Array, " widths"]


def mmd_loss(
    network: Callable, batch: Unpaired | Pairs, context: MMDContext, *, key: Key | None, epoch: Epoch
) -> PerUser:
    r"""Return $\mathrm{MMD}^2(f(z_s), z_t) + w \cdot$ (nats per click of the pairs), the same value for each user.

    If the batch is held-out pairs, ``key`` is None and the result is their ``loss_per_click``.

    Args:
        network: f, maps source to target interests.
        batch: unpaired users of both domains; their interests are sampled.
        context: the pairs' part and the widths of the kernels.
        key: for the samples.
        epoch: not used; ``training.fit`` passes it.
    """
    if isinstance(batch, Pairs):
        return loss_per_click(network, batch, context.pair_term.decode, key=None)
    keys = named_keys(key, "source", "target", "pairs")
    mapped = network(sample_posterior(batch.source, key=keys["source"]))
    loss = squared_mmd(mapped, sample_posterior(batch.target, key=keys["target"]), context.widths)
    return jnp.full(len(mapped), loss + context.pair_term.loss(network, key=keys["pairs"]))


def fit_mmd_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode: Callable,
    key: Key,
    pair_weight: float = 1.0,
    epochs: int = 20,
) -> MeanMap:
    """Fit networks that bring the mapped source distribution to the target distribution by MMD; return their average.

    Args:
        pairs: the overlapping users.
        unpaired: the other users of both domains; at most 2,000 of each are sampled.
        decode: the target decoder: maps interests to logits.
        key: samples the users, splits the folds, initialises and trains the networks.
        pair_weight: weight of the pairs' clicks, in nats per click, beside the squared MMD. At 0 the pairs only measure
            the residual: one network starts at the optimal transport, and nothing tells which user is which. Above 0,
            five networks start at the ridge map, each stops by a fold of the pairs that it does not see, and they are
            averaged.
        epochs: passes over the sampled users.

    Raises:
        ValueError: the weight is negative, a domain has no more unpaired users than latents, or there are too few
            pairs.
    """

    def train(network: MLPMap, seen: Pairs, unseen: Pairs | None, sampled: Unpaired, *, keys: dict[str, Key]) -> MLPMap:
        widths = kernel_widths(jnp.asarray(sampled.target.mean[:500]))
        context = MMDContext(PairTerm(seen, pair_weight, decode), widths)
        return _train(network, mmd_loss, sampled, context, unseen, epochs, key=keys["train"])

    return _fit_trained(train, pairs, unpaired, pair_weight, key=key)


def _fit_trained(
    train_network: Callable, pairs: Pairs, unpaired: Unpaired | None, pair_weight: float, *, key: Key
) -> MeanMap:
    """Sample users once, choose the start, and train by folds if the pairs count.

    ``train(network, seen, unseen, sampled, *, keys)`` trains one network on the sampled users of both domains.
    """
    check_enough(pairs, unpaired)
    if pair_weight < 0:
        raise ValueError(f"pair_weight: got {pair_weight}, expected a number of at least 0")
    pairs = dense_counts(pairs)
    keys = named_keys(key, "users", "train")
    rng, users = numpy_generator(keys["users"]), min(MAX_USERS, *(len(side.mean) for side in unpaired))
    sampled = Unpaired(*(take_rows(side, rng.choice(len(side.mean), users, replace=False)) for side in unpaired))

    def train(start: Ridge | LinearMap, seen: Pairs, unseen: Pairs | None, *, key: Key) -> MLPMap:
        keys = named_keys(key, "network", "discriminator", "train")
        network = MLPMap(start.coefficients[...], start.intercept[...], key=keys["network"])
        return train_network(network, seen, unseen, sampled, keys=keys)

    if pair_weight > 0:
        return average_over_folds(pairs, train, key=keys["train"])
    network = train(fit_wasserstein_map(pairs, unpaired=unpaired), pairs, None, key=keys["train"])
    return mean_map([network], pairs, np.asarray(network(pairs.source.mean)))


def _train(
    models: Any, loss: Callable, sampled: Unpaired, context: Any, unseen: Pairs | None, epochs: int, *, key: Key
) -> Any:
    return training.fit(
        models,
        loss,
        sampled,
        key=key,
        context=context,
        validation=unseen,
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    ).model


# --- a discriminator
def reverse_gradient(x: float | Array) -> float | Array:
    """Return x with its gradient reversed: what the discriminator descends, the map ascends."""
    return 2 * jax.lax.stop_gradient(x) - x


def adversarial_loss(
    models: tuple[Callable, Callable], batch: Unpaired | Pairs, context: PairTerm, *, key: Key | None, epoch: Epoch
) -> PerUser:
    r"""Return the loss of a map against a discriminator D of mapped and real target interests, for each user.

    $-\log \sigma(D(z_t)) - \log(1 - \sigma(D(f(z_s)))) + \frac\gamma2 \|\nabla D(z_t)\|^2 + w \cdot$ (nats per click of
    the pairs). D starts at zero, undecided, and descends the loss. f ascends the second term, through
    ``reverse_gradient``, and descends the last one (Ganin et al. 2016). Without the penalty of the slope the two would
    circle (Mescheder, Geiger and Nowozin 2018). If the batch is held-out pairs, ``key`` is None and the result is their
    ``loss_per_click``.

    Args:
        models: f and D.
        batch: unpaired users of both domains; their interests are sampled.
        context: the pairs' part.
        key: for the samples.
        epoch: not used; ``training.fit`` passes it.
    """
    network, discriminator = models
    if isinstance(batch, Pairs):
        return loss_per_click(network, batch, context.decode, key=None)
    keys = named_keys(key, "source", "target", "pairs")
    mapped = reverse_gradient(network(sample_posterior(batch.source, key=keys["source"])))
    real = sample_posterior(batch.target, key=keys["target"])
    odds, slope = jax.vmap(jax.value_and_grad(lambda interest: PACE * discriminator(interest)[0]))(real)
    cross_entropy = jax.nn.softplus(-odds) + jax.nn.softplus(PACE * discriminator(mapped))[:, 0]
    penalty = 0.5 * SLOPE_PENALTY * jnp.sum(slope**2, axis=-1)
    return cross_entropy + penalty + context.loss(network, key=keys["pairs"])


def fit_adversarial_map(
    pairs: Pairs,
    *,
    unpaired: Unpaired | None = None,
    decode: Callable,
    key: Key,
    pair_weight: float = 1.0,
    epochs: int = 40,
) -> MeanMap:
    """Fit networks whose mapped interests a discriminator cannot tell from real ones; return their average.

    Arguments, start, folds and errors are those of ``fit_mmd_map``; the discriminator replaces the kernel.
    """

    def train(network: MLPMap, seen: Pairs, unseen: Pairs | None, sampled: Unpaired, *, keys: dict[str, Key]) -> MLPMap:
        outputs = len(network.intercept[...])
        discriminator = MLPMap(np.zeros((outputs, 1)), np.zeros(1), key=keys["discriminator"])
        models, context = (network, discriminator), PairTerm(seen, pair_weight, decode)
        return _train(models, adversarial_loss, sampled, context, unseen, epochs, key=keys["train"])[0]

    return _fit_trained(train, pairs, unpaired, pair_weight, key=key)

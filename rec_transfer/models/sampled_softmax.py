r"""Softmax over more items than can be scored: a log-likelihood from a user's clicks and a sample of the other items.

The costly part of $\sum_i x_i \log \mathrm{softmax}(s)_i$ is the normaliser $Z = \sum_j e^{s_j}$. Here the terms of the
clicked items are summed exactly. Those of all other items are estimated from a sample that contains item j with a known
probability $\pi_j$. Dividing a term by $\pi_j$ (subtracting $\log \pi_j$ from the logit) makes the estimate of Z
unbiased.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from rec_transfer.keys import named_keys
from rec_transfer.models import likelihoods
from rec_transfer.models.vae import VAE, Objective, annealed_beta, negative_elbo, reparameterize
from rec_transfer.types import Counts, Key, PerUser

LINE = 2**31 - 1  # length of the line on which the items lie side by side, each as wide as its probability


class ItemSampler(NamedTuple):
    """Intervals of a line, one per item, and equally spaced points, one per sample.

    Item j occupies ``edges[j]`` to ``edges[j + 1]``; the wider it is, the more likely a point falls into it.
    """

    edges: Int[Array, " items_and_one"]
    offsets: Int[Array, " samples"]


class Sample(NamedTuple):
    """Different items, and the log-probability that a sample contains each of them."""

    items: Int[Array, " samples"]
    log_inclusion: Float[Array, " samples"]


class Clicked(NamedTuple):
    """The clicked items of each user in ascending order, with their counts; a count of 0 pads the rest of a row."""

    items: Int[Array, "users slots"]
    counts: Float[Array, "users slots"]


class SampledBatch(NamedTuple):
    """The data of ``sampled_negative_elbo``: the counts for the encoder, and the clicks to explain."""

    counts: Counts
    clicked: Clicked


def item_sampler(weights: Float[np.ndarray, " items"], samples: int) -> ItemSampler:
    r"""Return a sampler of different items: item j has probability $\pi_j = \min(1, c\,w_j)$, $\sum_j \pi_j$ = samples.

    Equal weights sample uniformly. Weights proportional to popularity (``counts.sum(axis=0) + 1``) sample popular items
    more often. This lowers the variance when popularity explains most of a user's softmax and raises it when tastes are
    sharp, so try both. With as many samples as items, all $\pi_j = 1$. The sampling is systematic (Madow 1949): one
    random number shifts all points on the line.

    Args:
        weights: one positive number per item, of any scale.
        samples: how many items a sample has, the same for all users of a batch.

    Raises:
        ValueError: a weight is not positive, there are more samples than items, or a weight is too small beside the
            others.
    """
    weights = np.asarray(weights, float)
    items = len(weights)
    if not 1 <= samples <= items:
        raise ValueError(f"samples: got {samples}, expected 1 to {items}, the number of items")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"weights: got {weights.min()} to {weights.max()}, expected positive numbers")
    certain = np.zeros(items, bool)
    while True:  # items that would be sampled more than once are certain; the others share the rest
        shared = weights / max(weights[~certain].sum(), np.finfo(float).tiny) * (samples - certain.sum())
        inclusion = np.where(certain, 1.0, shared)
        if not (inclusion > 1 + 1e-12).any():
            break
        certain |= inclusion >= 1
    spacing = LINE // samples
    edges = np.concatenate([[0], np.round(np.cumsum(inclusion) * spacing)]).astype(np.int64)
    edges[-1] = samples * spacing
    if (np.diff(edges) < 1).any():
        raise ValueError(
            f"weights: got one of {weights.min() / weights.sum():.1e} of their sum, expected at least "
            f"{1 / (samples * spacing):.1e} (add a constant to all)"
        )
    return ItemSampler(jnp.asarray(edges, jnp.int32), jnp.arange(samples, dtype=jnp.int32) * spacing)


def sample_items(sampler: ItemSampler, *, key: Key) -> Sample:
    """Return a sample of different items; its probabilities are exact, rounding included."""
    samples = sampler.offsets.shape[0]
    return sample_at(sampler, jax.random.randint(key, (), 0, LINE // samples))


def sample_at(sampler: ItemSampler, start: Int[Array, ""] | int) -> Sample:
    """Return the sample whose points are shifted by ``start``, from 0 to below their spacing."""
    spacing = LINE // sampler.offsets.shape[0]
    items = jnp.searchsorted(sampler.edges, sampler.offsets + start, side="right") - 1
    width = sampler.edges[items + 1] - sampler.edges[items]
    return Sample(items, jnp.log(width / spacing))


def clicked_items(counts: sparse.csr_array) -> Clicked:
    """Return counts [users, items] as one row of clicked items per user, as wide as the longest row."""
    counts = sparse.csr_array(counts, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    number = np.diff(counts.indptr)
    shape = counts.shape[0], max(int(number.max(initial=0)), 1)
    filled = np.arange(shape[1]) < number[:, None]
    items, values = np.full(shape, counts.shape[1], np.int32), np.zeros(shape, np.float32)
    items[filled], values[filled] = counts.indices, counts.data
    return Clicked(items, values)


def sampled_log_likelihood(
    features: Float[Array, "users features"],
    weights: Float[Array, "features items"],
    bias: Float[Array, " items"],
    clicked: Clicked,
    sample: Sample,
) -> PerUser:
    r"""Return an estimate of the multinomial log-likelihood of logits features @ weights + bias, in nats per user.

    $\sum_i x_i s_i - n \log \hat Z$, $\hat Z = \sum_{i: x_i > 0} e^{s_i} + \sum_{j \in S, x_j = 0} e^{s_j} / \pi_j$,
    where n is the number of the user's clicks and S the sample. $E\,\hat Z = Z$ (Horvitz and Thompson 1952). By
    Jensen's inequality the log-likelihood is overestimated on average, by about $n\,\mathrm{Var}(\hat Z) / 2 Z^2$. This
    bias and that of the gradient fall as 1 / samples. Without $\pi_j$ the bias is far larger and falls far more slowly.
    Sampling for a softmax's gradient: Bengio and Senecal 2008; one sample for many rows, the rows' own items added:
    Jean et al. 2015; as a loss for recommending: Wu et al. 2024.

    The cost is that of users x (slots + samples) logits. The gradient is still as large as ``weights``, and so is the
    work of an optimiser such as Adam.

    Args:
        features: last hidden layer of the decoder.
        weights, bias: output layer of the decoder.
        clicked: the users' clicks.
        sample: the sampled items, shared by the users.
    """
    present = clicked.counts > 0
    own_weights = jnp.take(weights, clicked.items, axis=1, mode="clip")
    own = jnp.einsum("uf,fus->us", features, own_weights) + jnp.take(bias, clicked.items, mode="clip")
    others = features @ weights[:, sample.items] + bias[sample.items] - sample.log_inclusion
    place = jax.vmap(lambda row: jnp.searchsorted(row, sample.items))(clicked.items)
    hit = jnp.take_along_axis(clicked.items, jnp.minimum(place, clicked.items.shape[1] - 1), axis=1) == sample.items
    terms = jnp.concatenate([jnp.where(present, own, -jnp.inf), jnp.where(hit, -jnp.inf, others)], axis=1)
    clicks = jnp.sum(clicked.counts, axis=1)
    explained = jnp.sum(clicked.counts * jnp.where(present, own, 0.0), axis=1)
    return explained - clicks * jax.nn.logsumexp(terms, axis=1)


def sampled_negative_elbo(
    model: VAE,
    batch: SampledBatch,
    context: tuple[Objective, ItemSampler],
    *,
    key: Key | None,
    epoch: int | float | Array,
) -> PerUser:
    """Return ``vae.negative_elbo``, in nats per user, with a new sample of items for each batch.

    It is a loss for ``training.fit``. If ``key`` is None, the result is exact.

    Args:
        model: the VAE.
        batch: ``SampledBatch(models.dense(counts), clicked_items(counts))``.
        context: the objective and ``item_sampler(...)``.
        key: for dropout, the latent and the items.
        epoch: sets the weight of the KL term.
    """
    objective, sampler = context
    if key is None:
        return negative_elbo(model, batch.counts, objective, key=None, epoch=epoch)
    keys = named_keys(key, "dropout", "sample", "items")
    mean, log_variance = model.encoder(batch.counts, key=keys["dropout"])
    latent = reparameterize(mean, log_variance, key=keys["sample"])
    decoder = model.decoder
    features = jnp.tanh(decoder.hidden(latent))
    log_likelihood = sampled_log_likelihood(
        features,
        decoder.logits.kernel[...],
        decoder.logits.bias[...],
        batch.clicked,
        sample_items(sampler, key=keys["items"]),
    )
    return -likelihoods.elbo(
        log_likelihood, likelihoods.gaussian_kl(mean, log_variance), annealed_beta(objective, epoch)
    )

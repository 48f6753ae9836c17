r"""Softmax over more items than can be scored: the log-likelihood from a user's clicks and a sample of the others.

The costly part of $\sum_i x_i \log \mathrm{softmax}(s)_i$ is the normaliser $Z = \sum_j e^{s_j}$. Here the terms of
the clicked items are summed, and those of all others estimated from a sample in which item j is with a known
probability $\pi_j$: dividing by it (subtracting $\log \pi_j$ from the logit) makes the estimate of Z unbiased.
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

LINE = 2**31 - 1  # the items lie side by side on a line of so many units, each as wide as it is likely


class ItemSampler(NamedTuple):
    """Items on a line, item j from ``edges[j]`` to ``edges[j + 1]``, and a comb of equal teeth, one per sample."""

    edges: Int[Array, " items_and_one"]
    teeth: Int[Array, " samples"]


class Sample(NamedTuple):
    """Different items, and the log-probability that a sample holds each of them."""

    items: Int[Array, " samples"]
    log_inclusion: Float[Array, " samples"]


class Clicked(NamedTuple):
    """The items of each user in ascending order, and how often each was clicked; 0 times pads the rest of a row."""

    items: Int[Array, "users slots"]
    counts: Float[Array, "users slots"]


class SampledBatch(NamedTuple):
    """What ``sampled_negative_elbo`` takes of a user: the encoder's counts, and the clicks to explain."""

    counts: Counts
    clicked: Clicked


def item_sampler(weights: Float[np.ndarray, " items"], samples: int) -> ItemSampler:
    r"""Sample so many different items, each with probability $\pi_j = \min(1, c\,w_j)$, $\sum_j \pi_j$ = samples.

    Equal weights sample uniformly; popularity (``counts.sum(axis=0) + 1``) scores those items more often that a
    softmax gives more of its mass, so that the estimate varies less where popularity is much of what a user's softmax
    holds, and more where tastes are sharp: try both. Of as many samples as items all have $\pi_j = 1$. Systematic
    sampling (Madow 1949): one random number places a comb on the line.

    Args:
        weights: one positive number per item, of any scale.
        samples: how many items a sample has, the same for all users of a batch.

    Raises:
        ValueError: a weight that is not positive, more samples than items, or weights too small beside the others.
    """
    weights = np.asarray(weights, float)
    items = len(weights)
    if not 1 <= samples <= items:
        raise ValueError(f"samples: got {samples}, expected 1 to {items}, the number of items")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"weights: got {weights.min()} to {weights.max()}, expected positive numbers")
    certain = np.zeros(items, bool)
    while True:  # what would be sampled more than once is certain; the others share what is left
        shared = weights / max(weights[~certain].sum(), np.finfo(float).tiny) * (samples - certain.sum())
        inclusion = np.where(certain, 1.0, shared)
        if not (inclusion > 1 + 1e-12).any():
            break
        certain |= inclusion >= 1
    tooth = LINE // samples
    edges = np.concatenate([[0], np.round(np.cumsum(inclusion) * tooth)]).astype(np.int64)
    edges[-1] = samples * tooth
    if (np.diff(edges) < 1).any():
        raise ValueError(
            f"weights: got one of {weights.min() / weights.sum():.1e} of their sum, expected at least "
            f"{1 / (samples * tooth):.1e} (add a constant to all)"
        )
    return ItemSampler(jnp.asarray(edges, jnp.int32), jnp.arange(samples, dtype=jnp.int32) * tooth)


def draw(sampler: ItemSampler, *, key: Key) -> Sample:
    """A sample of different items; rounding to units is part of the probabilities, which are exact."""
    samples = sampler.teeth.shape[0]
    return sample_at(sampler, jax.random.randint(key, (), 0, LINE // samples))


def sample_at(sampler: ItemSampler, start: Int[Array, ""] | int) -> Sample:
    """The sample of a comb placed at ``start``, from 0 to below the width of a tooth."""
    tooth = LINE // sampler.teeth.shape[0]
    items = jnp.searchsorted(sampler.edges, sampler.teeth + start, side="right") - 1
    width = sampler.edges[items + 1] - sampler.edges[items]
    return Sample(items, jnp.log(width / tooth))


def clicked_items(counts: sparse.csr_array) -> Clicked:
    """Counts [users, items] as one row of clicked items per user, as wide as the most that a user has."""
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
    r"""``likelihoods.multinomial_log_likelihood`` of features @ weights + bias, estimated, in nats per user.

    $\sum_i x_i s_i - n \log \hat Z$, $\hat Z = \sum_{i: x_i > 0} e^{s_i} + \sum_{j \in S, x_j = 0} e^{s_j} / \pi_j$,
    n the user's clicks and S the sample. $E\,\hat Z = Z$ (Horvitz and Thompson 1952); by Jensen's inequality the
    log-likelihood is overestimated on average, by about $n\,\mathrm{Var}(\hat Z) / 2 Z^2$, which falls as 1 / samples,
    and so does the bias of its gradient. Without $\pi_j$ there is far more of it, and it falls far more slowly.
    Sampling for a softmax's gradient: Bengio and Senecal 2008; one sample for many rows, the rows' own items added:
    Jean et al. 2015; as a loss for recommending: Wu et al. 2024.

    The cost is that of users x (slots + samples) logits. The gradient's table is still as large as ``weights``, and
    so is what an optimiser such as Adam does with it.
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
    model: VAE, batch: SampledBatch, context: tuple[Objective, ItemSampler], *, key: Key | None, epoch
) -> PerUser:
    """``vae.negative_elbo`` with a fresh sample of items per batch, for ``training.fit``; exact if key is None.

    Nats per user. ``context`` is the objective and ``item_sampler(...)``, the data
    ``SampledBatch(vae.dense(counts), clicked_items(counts))``.
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
        features, decoder.logits.kernel[...], decoder.logits.bias[...], batch.clicked, draw(sampler, key=keys["items"])
    )
    return -likelihoods.elbo(
        log_likelihood, likelihoods.gaussian_kl(mean, log_variance), annealed_beta(objective, epoch)
    )

"""A logistic factor model of one domain: item vectors and biases, fitted by expectation-maximisation on its counts.

It is the VAE with a linear decoder and without an encoder: each user's posterior is computed (Newton, Laplace). It is
slower per user, but has no amortisation error.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy import sparse

from rec_transfer.keys import key_for, named_keys, numpy_generator, once_per_key
from rec_transfer.models import likelihoods
from rec_transfer.models.laplace import Evidence, approximate, posterior_of
from rec_transfer.types import Counts, Gaussian, Interactions, Key, Logits

ROUNDS = 10
STEPS = 20  # gradient steps on the items, per round
USERS_AT_ONCE = 500  # bounds the memory of the users' Hessians
PENALTY = 4.0  # the prior precision of an item's coordinates: N(0, 1/4)


class FactorModel(NamedTuple):
    r"""The model $p(x \mid z) = \mathrm{Multinomial}(\mathrm{softmax}(V z + b))$, $z \sim N(0, I)$.

    ``items`` is V, ``item_bias`` is b. Call it with interests z for logits.
    """

    items: Float[Array, "items latent"]
    item_bias: Float[Array, " items"]

    def __call__(self, interests: Float[Array, "*users latent"]) -> Logits:
        """Return the logits of interests."""
        return interests @ self.items.T + self.item_bias


def factor_log_likelihood(
    interest: Float[Array, " latent"], counts: Float[Array, " items"], model: FactorModel
) -> Array:
    """Return the log-probability, in nats, of where one user's clicks fall given the interest."""
    return likelihoods.multinomial_log_likelihood(model(interest), counts)


def evidence_of(model: FactorModel, counts: sparse.csr_array | np.ndarray) -> Evidence:
    """Return what each user's clicks say of the interest, as Gaussian evidence.

    Args:
        model: a fitted factor model.
        counts: counts [users, items]; they are made dense.

    Raises:
        ValueError: the counts have another number of items than the model.
    """
    counts = counts.toarray() if sparse.issparse(counts) else counts
    if counts.shape[1] != len(model.item_bias):
        raise ValueError(f"counts: got {counts.shape[1]} items, expected the model's {len(model.item_bias)}")
    return _evidence(model, jnp.asarray(counts, jnp.float32))


@jax.jit
def _evidence(model: FactorModel, counts: Counts) -> Evidence:
    def chunk(counts):
        return jax.tree.map(lambda part: part[0], approximate_one(counts[None]))

    approximate_one = partial(_approximate, model=model)
    return jax.lax.map(chunk, counts, batch_size=USERS_AT_ONCE)


def _approximate(counts, *, model):
    return approximate(factor_log_likelihood, counts, model, latent=model.items.shape[1], steps=20)


def fit_factor_model(counts: sparse.csr_array, *, latent: int = 8, key: Key) -> FactorModel:
    """Fit item vectors and biases to counts [users, items], by EM with a Laplace posterior and sampled interests.

    E-step: each user's Gaussian posterior. M-step: gradient steps (Adam) on the expected log-likelihood with a N(0,
    1/4) prior on every item coordinate. Between the steps the latent space is rescaled so that the users' posteriors
    average to N(0, I). This changes no probability and speeds EM up (parameter expansion, Liu, Rubin and Wu 1998). EM
    starts at the principal axes of the standardised log-counts. The counts are made dense.

    Args:
        counts: of one domain.
        latent: dimensions of the interests.
        key: for the start and the sampled interests.

    Raises:
        ValueError: there are no more items or users than latent dimensions.
    """
    if min(counts.shape) <= latent:
        raise ValueError(f"latent: got {latent}, expected fewer than users and items, {counts.shape}")
    keys = named_keys(key, "axes", "rounds")
    dense = jnp.asarray(counts.toarray(), jnp.float32)
    model = _start(counts, latent, keys["axes"])
    for number, key in enumerate(jax.random.split(keys["rounds"], ROUNDS)):
        # The step size falls almost to zero: the last rounds average the sampling noise.
        model = _round(model, dense, 0.03 * (1 - number / ROUNDS) + 1e-3, key=key)
    return model


def domain_factor_models(latent: int = 8) -> Callable[..., FactorModel]:
    """Return ``f(domain, *, key)``, which fits a domain's factor model when first asked for, and keeps it.

    Args:
        latent: dimensions of the interests.
    """

    def model_of(domain: Interactions, *, key: Key) -> FactorModel:
        return fit_factor_model(domain.counts, latent=latent, key=key_for(key, domain.domain))

    return once_per_key(model_of)


def _start(counts, latent, key) -> FactorModel:
    from sklearn.decomposition import TruncatedSVD

    logs = np.log1p(counts.toarray())
    logs /= np.linalg.norm(logs, axis=1, keepdims=True)
    spread = logs.std(axis=0)
    seed = int(numpy_generator(key).integers(2**31))
    standardised = (logs - logs.mean(axis=0)) / np.maximum(spread, 1e-6)
    axes = TruncatedSVD(latent, random_state=seed).fit(standardised).components_
    items = jnp.asarray(axes.T / axes.std(), jnp.float32) * 0.5
    bias = np.log(np.asarray(counts.sum(axis=0), float) + 0.5)
    return FactorModel(items, jnp.asarray(bias - bias.mean(), jnp.float32))


@jax.jit
def _round(model: FactorModel, counts: Counts, learning_rate, *, key: Key) -> FactorModel:
    posterior: Gaussian = posterior_of(_evidence(model, counts))
    moment = posterior.covariance.mean(axis=0) + posterior.mean.T @ posterior.mean / len(counts)
    scale = jnp.linalg.cholesky(moment)
    rescale = jnp.linalg.inv(scale)
    mean, factor = posterior.mean @ rescale.T, rescale @ jnp.linalg.cholesky(posterior.covariance)
    model = model._replace(items=model.items @ scale)
    optimizer = optax.adam(learning_rate)

    def loss(model, key):
        interests = mean + jnp.einsum("nij,nj->ni", factor, jax.random.normal(key, mean.shape))
        fit = likelihoods.multinomial_log_likelihood(model(interests), counts)
        return (0.5 * PENALTY * jnp.sum(model.items**2) - jnp.sum(fit)) / len(counts)

    def step(carry, key):
        model, state = carry
        updates, state = optimizer.update(jax.grad(loss)(model, key), state)
        return (optax.apply_updates(model, updates), state), None

    return jax.lax.scan(step, (model, optimizer.init(model)), jax.random.split(key, STEPS))[0][0]

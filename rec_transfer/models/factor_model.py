"""A logistic factor model of one domain: item vectors and biases, fitted by expectation-maximisation on its counts.

It is the linear-decoder relative of the VAE, with each user's posterior computed (Newton, Laplace) in place of an
encoder: slower per user, but nothing is lost to amortisation.
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

from rec_transfer.keys import key_for, named_keys, once_per_key
from rec_transfer.models import likelihoods
from rec_transfer.models.laplace import Evidence, approximate, belief
from rec_transfer.types import Counts, Gaussian, Interactions, Key, Logits

ROUNDS = 10
STEPS = 20  # gradient steps on the items per round
USERS_AT_ONCE = 500  # bounds the memory of the users' Hessians
PENALTY = 4.0  # the prior precision of an item's coordinates: N(0, 1/4)


class FactorModel(NamedTuple):
    r"""$p(x \mid z) = \mathrm{Multinomial}(\mathrm{softmax}(V z + b))$, $z \sim N(0, I)$; call it with z for logits."""

    items: Float[Array, "items latent"]
    item_bias: Float[Array, " items"]

    def __call__(self, interests: Float[Array, "*users latent"]) -> Logits:
        return interests @ self.items.T + self.item_bias


def click_log_likelihood(
    interest: Float[Array, " latent"], counts: Float[Array, " items"], model: FactorModel
) -> Array:
    """Log-probability, in nats, of where one user's clicks fall given the interest."""
    return likelihoods.multinomial_log_likelihood(model(interest), counts)


def evidence_of(model: FactorModel, counts: sparse.csr_array | np.ndarray) -> Evidence:
    """What each user's clicks say of the interest, as Gaussian evidence.

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
    return approximate(click_log_likelihood, counts, model, latent=model.items.shape[1], steps=20)


def fit_factor_model(counts: sparse.csr_array, *, latent: int = 8, key: Key) -> FactorModel:
    r"""Fit items and biases to counts [users, items] by EM with a Laplace posterior and sampled interests.

    E: each user's Gaussian posterior. M: gradient steps (Adam) on the expected log-likelihood with a N(0, 1/4) prior on
    every item coordinate. In between the latent space is rescaled so that the users' posteriors average to N(0, I),
    which changes no probability and speeds EM up (parameter expansion, Liu, Rubin and Wu 1998). It starts at the
    principal axes of the standardised log-counts.

    Raises:
        ValueError: fewer items or users than latent dimensions.
    """
    if min(counts.shape) <= latent:
        raise ValueError(f"latent: got {latent}, expected fewer than users and items, {counts.shape}")
    keys = named_keys(key, "axes", "rounds")
    dense = jnp.asarray(counts.toarray(), jnp.float32)
    model = _start(counts, latent, keys["axes"])
    for number, key in enumerate(jax.random.split(keys["rounds"], ROUNDS)):
        # The step size falls to almost nothing, so that the last rounds average the sampling noise out.
        model = _round(model, dense, 0.03 * (1 - number / ROUNDS) + 1e-3, key=key)
    return model


def domain_factor_models(latent: int = 8) -> Callable[..., FactorModel]:
    """The factor models of every domain, ``f(domain, *, key)``: fitted when first asked for, then remembered."""

    def model_of(domain: Interactions, *, key: Key) -> FactorModel:
        return fit_factor_model(domain.counts, latent=latent, key=key_for(key, domain.domain))

    return once_per_key(model_of)


def _start(counts, latent, key) -> FactorModel:
    from sklearn.decomposition import TruncatedSVD

    from rec_transfer.keys import numpy_generator

    logs = np.log1p(counts.toarray())
    logs /= np.linalg.norm(logs, axis=1, keepdims=True)
    spread = logs.std(axis=0)
    seed = int(numpy_generator(key).integers(2**31))
    axes = (
        TruncatedSVD(latent, random_state=seed).fit((logs - logs.mean(axis=0)) / np.maximum(spread, 1e-6)).components_
    )
    bias = np.log(np.asarray(counts.sum(axis=0), float) + 0.5)
    return FactorModel(
        jnp.asarray(axes.T / axes.std(), jnp.float32) * 0.5, jnp.asarray(bias - bias.mean(), jnp.float32)
    )


@jax.jit
def _round(model: FactorModel, counts: Counts, learning_rate, *, key: Key) -> FactorModel:
    posterior: Gaussian = belief(_evidence(model, counts))
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

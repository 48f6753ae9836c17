r"""Shared and private latents: one interest u behind both domains, and in each a part of its own.

$u \sim N(0, I)$, $z_d = g_d(u) + \epsilon_d$ with $\epsilon_d \sim N(0, s_d I)$ private to the domain, clicks
multinomial in softmax$(V_d z_d + b_d)$. Users of one domain teach $g_d$, overlapping users tie the two together. Each
domain's $V_d, b_d$ are fitted first (``factor_model``); a user's clicks are then Gaussian evidence on $z_d$, eight
numbers and a matrix, so that $\epsilon_d$ is integrated out exactly and the rest trains in seconds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rec_transfer import training
from rec_transfer.keys import named_keys
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.methods.gains import expected_gains
from rec_transfer.models.factor_model import FactorModel, domain_factor_models, evidence_of
from rec_transfer.models.laplace import Evidence, belief, log_marginal, log_marginal_of_all, no_evidence, resample
from rec_transfer.types import Gaussian, History, Key, PerUser, TrainingData

HIDDEN = 64
SAMPLES = 16  # of u per user and step: the importance-weighted bound
PAIR_WEIGHT = 5.0  # an overlapping user counts as five: nobody else tells how the domains hang together
PRIOR_DRAWS, DRAWS = 2**15, 400
USERS_AT_ONCE = 50


class Shown(nnx.Module):
    r"""$g_d(u) = u A + c + \tanh(u W + w) B$, a linear map plus a bend that starts at zero, and $\log s_d$."""

    def __init__(self, coefficients, intercept, *, key: Key):
        latent = len(intercept)
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        self.hidden = nnx.Linear(latent, HIDDEN, rngs=nnx.Rngs(key), bias_init=nnx.initializers.uniform(1.0))
        self.output = nnx.Linear(HIDDEN, latent, rngs=nnx.Rngs(key), use_bias=False, kernel_init=nnx.initializers.zeros)
        self.log_variance = nnx.Param(jnp.log(0.25))

    def __call__(self, interests: Float[Array, "*draws latent"]) -> Float[Array, "*draws latent"]:
        bend = self.output(jnp.tanh(self.hidden(interests)))
        return interests @ self.coefficients[...] + self.intercept[...] + bend

    @property
    def variance(self) -> Float[Array, ""]:
        return jnp.exp(self.log_variance[...])


class Recognition(nnx.Module):
    """The belief about one domain -> its contribution to the precision (diagonal) and shift of q(u | x)."""

    def __init__(self, latent: int, *, key: Key):
        rngs, small = nnx.Rngs(key), nnx.initializers.normal(0.01)
        self.hidden = nnx.Linear(2 * latent, HIDDEN, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.shift = nnx.Linear(HIDDEN, latent, rngs=rngs, kernel_init=small)
        self.precision = nnx.Linear(HIDDEN, latent, rngs=rngs, kernel_init=small, bias_init=nnx.initializers.ones)

    def __call__(self, posterior: Gaussian):
        spread = jnp.log(jnp.diagonal(posterior.covariance, axis1=-2, axis2=-1))
        features = jnp.tanh(self.hidden(jnp.concatenate([posterior.mean, spread], axis=-1)))
        features += jnp.tanh(self.second(features))
        return jax.nn.softplus(self.precision(features)), self.shift(features)


class SharedLatents(nnx.Module):
    """Both domains' generators and recognisers."""

    def __init__(self, source: Shown, target: Shown, *, key: Key):
        keys = named_keys(key, "source", "target")
        latent = len(source.intercept[...])
        self.source, self.target = source, target
        self.recognise_source = Recognition(latent, key=keys["source"])
        self.recognise_target = Recognition(latent, key=keys["target"])


class Users(NamedTuple):
    """Everyone, one row each: evidence in both domains (zeros where not active), activity, and weight in the loss."""

    source: Evidence
    target: Evidence
    beliefs: tuple[Gaussian, Gaussian]
    active: Float[Array, "users 2"]
    weight: PerUser


def negative_bound(model: SharedLatents, users: Users, context: None, *, key: Key, epoch) -> PerUser:
    r"""$-\log \frac1K \sum_k p(u_k)\, p(x_s \mid u_k)\, p(x_t \mid u_k) / q(u_k \mid x)$, weighted, nats per user.

    The importance-weighted bound (Burda et al. 2016); q is the product of the prior and of what each active domain's
    recogniser contributes (Wu and Goodman 2018).
    """
    precision, shift = jnp.float32(1), jnp.float32(0)  # the prior's
    for number, (recognise, posterior) in enumerate(
        zip((model.recognise_source, model.recognise_target), users.beliefs, strict=True)
    ):
        more_precision, more_shift = recognise(posterior)
        active = users.active[:, number : number + 1]
        precision, shift = precision + active * more_precision, shift + active * more_shift
    noise = jax.random.normal(key, (len(shift), SAMPLES, shift.shape[-1]))
    interests = (shift / precision)[:, None] + noise / jnp.sqrt(precision)[:, None]
    log_q = jnp.sum(0.5 * jnp.log(precision)[:, None] - 0.5 * noise**2, axis=-1)
    log_weights = -0.5 * jnp.sum(interests**2, axis=-1) - log_q
    log_weights += log_marginal(users.source, model.source(interests), model.source.variance)
    log_weights += log_marginal(users.target, model.target(interests), model.target.variance)
    return -users.weight * (jax.nn.logsumexp(log_weights, axis=1) - jnp.log(SAMPLES))


def fit_shared_latents(
    train: TrainingData,
    *,
    key: Key,
    latent: int = 8,
    epochs: int = 240,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    factor_models: Callable[..., FactorModel] | None = None,
) -> "SharedTransfer":
    """Fit both domains' factor models, then what they share, on all training users; a ``FitMethod``.

    Args:
        train: the training data of one direction.
        latent: dimensions of the interests, shared and shown.
        epochs, learning_rate, weight_decay: see ``training.fit``.
        factor_models: those of ``domain_factor_models``, to share them between directions; fitted anew if None.
    """
    keys = named_keys(key, "initialise", "train", "score")
    factor_models = factor_models or domain_factor_models(latent)
    here, there = factor_models(train.source, key=key), factor_models(train.target, key=key)
    users, shared = _users(train, here, there)
    source, target = (posterior.mean[shared] for posterior in users.beliefs)
    ridge = fit_ridge(source, target)
    start = named_keys(keys["initialise"], "source", "target", "model")
    identity = Shown(0.9 * np.eye(latent), np.zeros(latent), key=start["source"])
    model = SharedLatents(identity, Shown(ridge.coefficients, ridge.intercept, key=start["target"]), key=start["model"])
    fitted = training.fit(
        model, negative_bound, users, key=keys["train"], epochs=epochs, batch_size=420,
        learning_rate=learning_rate, weight_decay=weight_decay,
    )  # fmt: skip
    clicks = np.asarray(train.target.counts.sum(axis=1), np.float32)
    return SharedTransfer(here, there, fitted.model, jnp.asarray(clicks), keys["score"])


def _users(train: TrainingData, source: FactorModel, target: FactorModel) -> tuple[Users, np.ndarray]:
    """Everyone's evidence in both domains, and the rows of the overlapping users."""
    ids = np.union1d(train.source.users, train.target.users)
    active, parts = [], []
    for domain, model in ((train.source, source), (train.target, target)):
        rows = np.searchsorted(ids, domain.users)
        known = evidence_of(model, domain.counts)
        nothing = no_evidence(len(ids), latent=known.shift.shape[1])
        active.append(np.isin(ids, domain.users))
        parts.append(jax.tree.map(lambda everyone, some, rows=rows: everyone.at[rows].set(some), nothing, known))
    both = active[0] & active[1]
    weight = np.where(both, PAIR_WEIGHT, 1.0)
    users = Users(
        *parts,
        tuple(map(belief, parts)),
        jnp.asarray(np.stack(active, axis=1), jnp.float32),
        jnp.asarray(weight, jnp.float32),
    )
    return users, np.flatnonzero(both)


class SharedTransfer(NamedTuple):
    """A fitted recommender for users of the source who are new in the target; call it with their history.

    Its scores are expected gains: the posterior of u is drawn (prior draws weighted by the source evidence, common to
    all users), carried to the target, and every item gets the mean over the draws of what it is worth in a list.
    """

    source: FactorModel
    target: FactorModel
    model: SharedLatents
    clicks: Float[Array, " users"]
    key: Key

    def believe(self, history: History) -> Float[Array, "users draws latent"]:
        """Draws of each user's interest shown in the target domain."""
        return _draw(self.model, evidence_of(self.source, history.source), self.key)

    def __call__(self, history: History, *, gain: str = "NDCG@10") -> np.ndarray:
        """Scores [users, items]: the expected gain of every item for the metric named."""
        return np.asarray(expected_gains(self.target, self.believe(history), self.clicks, key=self.key)[gain])


@jax.jit
def _draw(model: SharedLatents, evidence: Evidence, key: Key):
    keys = named_keys(key, "prior", "resample", "private")
    latent = evidence.shift.shape[1]
    prior = jax.random.normal(keys["prior"], (PRIOR_DRAWS, latent))
    centres, shown = model.source(prior), model.target(prior)
    noise = jnp.sqrt(model.target.variance) * jax.random.normal(keys["private"], (DRAWS, latent))

    def chunk(evidence):
        evidence = jax.tree.map(lambda part: part[None], evidence)
        rows = resample(log_marginal_of_all(evidence, centres, model.source.variance), DRAWS, key=keys["resample"])
        return shown[rows[0]] + noise

    return jax.lax.map(chunk, evidence, batch_size=USERS_AT_ONCE)

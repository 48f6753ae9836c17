r"""Shared and private latents: one interest u behind both domains, and a private part in each.

$u \sim N(0, I)$, $z_d = g_d(u) + \epsilon_d$ with $\epsilon_d \sim N(0, s_d I)$ private to the domain; the clicks are
multinomial in softmax$(V_d z_d + b_d)$. Users of one domain determine $g_d$; overlapping users relate the two. Each
domain's $V_d, b_d$ are fitted first (``models.factor_model``). A user's clicks are then Gaussian evidence on $z_d$,
eight numbers and a matrix. So $\epsilon_d$ is integrated out exactly, and the rest trains in seconds.

The maps and the private variances are fitted to the data at hand. The constants below are not: docs/lab_notes.md has a
table of how each was chosen.
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
from rec_transfer.maps.base import Numbers
from rec_transfer.maps.networks import Epoch
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.methods.gains import expected_gains
from rec_transfer.models.factor_model import FactorModel, domain_factor_models, evidence_of
from rec_transfer.models.laplace import Evidence, log_marginal, log_marginal_of_all, no_evidence, posterior_of, resample
from rec_transfer.types import Gaussian, History, Key, PerUser, TrainingData

HIDDEN = 64
STEEPNESS = 1.5  # of the first layer of a map
BATCH = 420
SAMPLES = 8  # of u, per user and step
PAIR_WEIGHT = 5.0  # an overlapping user counts as five: only they relate the two domains
PRIOR_DRAWS, DRAWS = 2**15, 1000
USERS_AT_ONCE = 50


class InterestMap(nnx.Module):
    r"""Map the shared interest to a domain's: $g_d(u) = u A + c + \phi(h G + b) B$, and hold $\log s_d$.

    $h = \phi(1.5\,(u H + a))$ with $\phi(x) = x / (1 + e^{-x})$ (SiLU). B starts at zero, so the untrained map is
    linear.

    Args:
        coefficients: A, [latent, latent]; users are rows.
        intercept: c, [latent].
        key: initialises H, a and G.
    """

    def __init__(
        self, coefficients: Float[Numbers, "latent latent"], intercept: Float[Numbers, " latent"], *, key: Key
    ) -> None:
        latent = len(intercept)
        self.coefficients = nnx.Param(jnp.asarray(coefficients, jnp.float32))
        self.intercept = nnx.Param(jnp.asarray(intercept, jnp.float32))
        rngs = nnx.Rngs(key)
        self.hidden = nnx.Linear(latent, HIDDEN, rngs=rngs, bias_init=nnx.initializers.uniform(1.0))
        self.second = nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.output = nnx.Linear(HIDDEN, latent, rngs=rngs, use_bias=False, kernel_init=nnx.initializers.zeros)
        self.log_variance = nnx.Param(jnp.log(0.25))

    def __call__(self, interests: Float[Array, "*draws latent"]) -> Float[Array, "*draws latent"]:
        """Return the mean of a domain's interest for each shared interest."""
        bend = self.output(jax.nn.silu(self.second(jax.nn.silu(STEEPNESS * self.hidden(interests)))))
        return interests @ self.coefficients[...] + self.intercept[...] + bend

    @property
    def variance(self) -> Float[Array, ""]:
        """Return $s_d$, the variance of the private part."""
        return jnp.exp(self.log_variance[...])


class Recognition(nnx.Module):
    """Map the posterior in one domain to its contribution to q(u | x): a precision (diagonal) and a shift.

    Args:
        latent: dimensions of the interests.
        key: initialises the layers.
    """

    def __init__(self, latent: int, *, key: Key) -> None:
        rngs, small = nnx.Rngs(key), nnx.initializers.normal(0.01)
        self.hidden = nnx.Linear(2 * latent, HIDDEN, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.shift = nnx.Linear(HIDDEN, latent, rngs=rngs, kernel_init=small)
        self.precision = nnx.Linear(HIDDEN, latent, rngs=rngs, kernel_init=small, bias_init=nnx.initializers.ones)

    def __call__(self, posterior: Gaussian) -> tuple[Float[Array, "users latent"], Float[Array, "users latent"]]:
        """Return precision and shift, each [users, latent]."""
        spread = jnp.log(jnp.diagonal(posterior.covariance, axis1=-2, axis2=-1))
        features = jnp.tanh(self.hidden(jnp.concatenate([posterior.mean, spread], axis=-1)))
        features += jnp.tanh(self.second(features))
        return jax.nn.softplus(self.precision(features)), self.shift(features)


class SharedLatents(nnx.Module):
    """The interest maps and the recognition networks of both domains.

    Args:
        source, target: the interest maps.
        key: initialises the recognition networks.
    """

    def __init__(self, source: InterestMap, target: InterestMap, *, key: Key) -> None:
        keys = named_keys(key, "source", "target")
        latent = len(source.intercept[...])
        self.source, self.target = source, target
        self.recognise_source = Recognition(latent, key=keys["source"])
        self.recognise_target = Recognition(latent, key=keys["target"])


class Users(NamedTuple):
    """All users, one row each: evidence in both domains (zeros where inactive), activity, and weight in the loss.

    ``posteriors`` are those of the evidence, in the source and in the target.
    """

    source: Evidence
    target: Evidence
    posteriors: tuple[Gaussian, Gaussian]
    active: Float[Array, "users 2"]
    weight: PerUser


def negative_bound(model: SharedLatents, users: Users, context: None, *, key: Key, epoch: Epoch) -> PerUser:
    r"""Return the negative importance-weighted bound of each user, times its weight, in nats.

    $-\log \frac1K \sum_k p(u_k)\, p(x_s \mid u_k)\, p(x_t \mid u_k) / q(u_k \mid x)$ (Burda et al. 2016). q is the
    product of the prior and of the contributions of each domain in which the user is active (Wu and Goodman 2018).

    Args:
        model: the interest maps and recognition networks.
        users: a batch of users.
        context: not used; ``training.fit`` passes it.
        key: samples u.
        epoch: not used; ``training.fit`` passes it.
    """
    precision, shift = jnp.float32(1), jnp.float32(0)  # the prior's
    for number, (recognise, posterior) in enumerate(
        zip((model.recognise_source, model.recognise_target), users.posteriors, strict=True)
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
    start: int = 0,
    epochs: int = 70,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    judged: float = 0.5,
    factor_models: Callable[..., FactorModel] | None = None,
) -> "SharedTransfer":
    """Fit both domains' factor models, then the shared latents on all training users; a ``FitMethod``.

    Two starts make somewhat different lists. ``averaged`` of start 0 and start 1, with the same ``factor_models``, was
    ahead of either alone in five development worlds (docs/lab_notes.md).

    Args:
        train: the training data of one direction.
        key: fits the factor models, initialises and trains the networks, samples the interests.
        latent: dimensions of the shared and of the domains' interests; those of ``factor_models``, where given.
        start: number of the start: another one gives other networks and samples for the same key, between the same
            factor models.
        epochs, learning_rate, weight_decay: see ``training.fit``.
        judged: share of a user's items that a list is judged by (see ``list_gains``): one half in ``cold_start``'s
            splits; 1 where all that the user will do counts.
        factor_models: those of ``domain_factor_models``, to share them between directions; None fits new ones.

    Raises:
        ValueError: a start below zero.
    """
    if start < 0:
        raise ValueError(f"start: got {start}, expected 0 or more")
    keys = named_keys(jax.random.fold_in(key, start), "initialise", "train", "score")
    factor_models = factor_models or domain_factor_models(latent)
    here, there = factor_models(train.source, key=key), factor_models(train.target, key=key)
    users, shared = _all_users(train, here, there)
    source, target = (posterior.mean[shared] for posterior in users.posteriors)
    ridge = fit_ridge(source, target)
    parts, latent = named_keys(keys["initialise"], "source", "target", "model"), len(ridge.intercept)
    to_source = InterestMap(0.9 * np.eye(latent), np.zeros(latent), key=parts["source"])
    to_target = InterestMap(ridge.coefficients, ridge.intercept, key=parts["target"])
    model = SharedLatents(to_source, to_target, key=parts["model"])
    fitted = training.fit(
        model,
        negative_bound,
        users,
        key=keys["train"],
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    clicks = np.asarray(train.target.counts.sum(axis=1), np.float32)
    return SharedTransfer(here, there, fitted.model, jnp.asarray(clicks), keys["score"], judged)


def _all_users(train: TrainingData, source: FactorModel, target: FactorModel) -> tuple[Users, np.ndarray]:
    """Return the evidence of all users in both domains, and the rows of the overlapping users."""
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
        tuple(map(posterior_of, parts)),
        jnp.asarray(np.stack(active, axis=1), jnp.float32),
        jnp.asarray(weight, jnp.float32),
    )
    return users, np.flatnonzero(both)


class SharedTransfer(NamedTuple):
    """A fitted recommender for users of the source who are new in the target; its scores are expected gains.

    Samples of u from the prior are weighted by a user's source evidence and mapped to the target. The prior samples are
    the same for all users. The score of an item is its mean worth in a list over these samples.
    """

    source: FactorModel
    target: FactorModel
    model: SharedLatents
    clicks: Float[Array, " users"]
    key: Key
    judged: float = 0.5

    def sample_target_posterior(self, history: History) -> Float[Array, "users draws latent"]:
        """Return samples of each user's interest in the target domain."""
        return _sample_shared(self.model, evidence_of(self.source, history.source), self.key)

    def __call__(self, history: History, *, gain: str = "NDCG@10") -> np.ndarray:
        """Return scores [users, items]: the expected gain of every item for the metric named."""
        interests = self.sample_target_posterior(history)
        gains = expected_gains(self.target, interests, self.clicks, key=self.key, judged=self.judged)
        return np.asarray(gains[gain])


@jax.jit
def _sample_shared(model: SharedLatents, evidence: Evidence, key: Key):
    """Return samples of the target interest of each user with this source evidence."""
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

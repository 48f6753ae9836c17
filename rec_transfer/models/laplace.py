r"""Approximate the likelihood of a user's clicks by a Gaussian in the interest z; posteriors are then in closed form.

The likelihood is approximated by $L(z) \propto \exp(h^\top z - z^\top P z / 2)$. This is a Gaussian, except that P may
be singular. Any Gaussian $z \sim N(m, S)$ can then be integrated out in closed form.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rec_transfer.types import Gaussian, Key

NEWTON_STEPS = 40
MAX_STEP = 0.7  # of interests with unit variance; longer Newton steps may jump over the mode


class Evidence(NamedTuple):
    r"""Each user's likelihood along its own axes U: $P = U \mathrm{diag}(\lambda) U^\top$, and $U^\top h$.

    ``precision`` is lambda, ``shift`` is $U^\top h$. Both are zero for a user without clicks.
    """

    axes: Float[Array, "*users latent latent"]
    precision: Float[Array, "*users latent"]
    shift: Float[Array, "*users latent"]


def no_evidence(users: int, *, latent: int) -> Evidence:
    """Return the evidence of users without clicks; its marginal likelihood is 1 under any Gaussian."""
    return Evidence(jnp.tile(jnp.eye(latent), (users, 1, 1)), jnp.zeros((users, latent)), jnp.zeros((users, latent)))


def approximate(
    log_likelihood: Callable, observations: Any, context: Any, *, latent: int, steps: int = NEWTON_STEPS
) -> Evidence:
    r"""Return Laplace's approximation of a likelihood, at the mode under a N(0, I) prior.

    It is $P = -\nabla^2 \log p(x \mid z)$, $h = P z + z$ at the mode z.

    Args:
        log_likelihood: ``f(interest [latent], observation, context)``, nats.
        observations: pytree of arrays whose first axis is users.
        context: what else the likelihood needs.
        latent: dimensions of the interest.
        steps: Newton steps to the mode.
    """

    def one(observation):
        def log_joint(interest):
            return log_likelihood(interest, observation, context) - 0.5 * interest @ interest

        def newton(_, interest):
            move = -jnp.linalg.solve(jax.hessian(log_joint)(interest), jax.grad(log_joint)(interest))
            return interest + move * jnp.minimum(1.0, MAX_STEP / jnp.maximum(jnp.linalg.norm(move), 1e-9))

        mode = jax.lax.fori_loop(0, steps, newton, jnp.zeros(latent))
        precision, axes = jnp.linalg.eigh(-jax.hessian(log_joint)(mode) - jnp.eye(latent))
        return Evidence(axes, precision, (precision + 1) * (mode @ axes))

    return jax.vmap(one)(observations)


def posterior_of(evidence: Evidence) -> Gaussian:
    """Return the posterior under the prior N(0, I): covariance $(P + I)^{-1}$, mean $(P + I)^{-1} h$."""
    mean = jnp.einsum("...ij,...j->...i", evidence.axes, evidence.shift / (evidence.precision + 1))
    scaled = evidence.axes / (evidence.precision + 1)[..., None, :]
    return Gaussian(mean, scaled @ jnp.swapaxes(evidence.axes, -1, -2))


def log_marginal(
    evidence: Evidence, centre: Float[Array, "users draws latent"], variance: Float[Array, ""] | float
) -> Float[Array, "users draws"]:
    r"""Return $\log \int N(z; m, s I)\, L(z)\, dz$, in nats, for each user and each of its centres m.

    Along each axis of the evidence, with $h, \lambda, m$ taken there, it is $\frac{s h^2 + 2 h m - \lambda m^2}{2 (1 +
    s \lambda)} - \frac12 \log(1 + s \lambda)$. It is zero without evidence.

    Args:
        evidence: of each user.
        centre: m, several for each user.
        variance: s.
    """
    centre = jnp.einsum("nij,nci->ncj", evidence.axes, centre)
    shift, precision = evidence.shift[:, None], evidence.precision[:, None]
    exponent = (variance * shift**2 + 2 * shift * centre - precision * centre**2) / (1 + variance * precision)
    return 0.5 * jnp.sum(exponent - jnp.log1p(variance * precision), axis=-1)


def log_marginal_of_all(
    evidence: Evidence, centres: Float[Array, "draws latent"], variance: Float[Array, ""] | float
) -> Float[Array, "users draws"]:
    """Return ``log_marginal`` for one list of centres shared by all users, as one product of quadratic features.

    Args:
        evidence: of each user.
        centres: m, shared by all users.
        variance: s.
    """
    upper = jnp.triu_indices(centres.shape[1])
    features = jnp.concatenate([centres, centres[:, upper[0]] * centres[:, upper[1]]], axis=1)
    damping = 1 / (1 + variance * evidence.precision)
    linear = jnp.einsum("nij,nj->ni", evidence.axes, damping * evidence.shift)
    curve = -0.5 * damping * evidence.precision
    quadratic = jnp.einsum("nik,nk,njk->nij", evidence.axes, curve, evidence.axes) * (2.0 - jnp.eye(centres.shape[1]))
    alone = 0.5 * jnp.sum(variance * damping * evidence.shift**2 + jnp.log(damping), axis=-1)
    return jnp.concatenate([linear, quadratic[:, *upper]], axis=1) @ features.T + alone[:, None]


def resample(log_weights: Float[Array, "users draws"], number: int, *, key: Key) -> Int[Array, "users number"]:
    """Return ``number`` rows per user by systematic resampling: each row's frequency follows its weight to within one.

    Args:
        log_weights: of each user's rows, up to a constant per user.
        number: rows to return.
        key: draws the offset that all users share.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights, axis=1), axis=1)
    # One offset for all users, so that a user's rows do not depend on who else is in the batch.
    steps = (jnp.arange(number) + jax.random.uniform(key)) / number
    rows = jax.vmap(jnp.searchsorted)(cumulative, steps * cumulative[:, -1:])
    return jnp.minimum(rows, log_weights.shape[1] - 1)

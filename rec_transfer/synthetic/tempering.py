r"""Sample posteriors that no Gaussian comes near: the likelihood is switched on step by step, and chains follow it.

The prior of the coordinates x is N(0, I), and $p_t(x) \propto N(x; 0, I)\, L(x)^t$ leads from near the prior to the
posterior at t = 1 (sequential Monte Carlo, Del Moral, Doucet and Jasra 2006):

1. Many prior samples, weighted by $L^{t_1}$ with a small $t_1$, find every mode; ``draws`` of them are resampled.
2. From $t_i$ to $t_{i+1}$ the chains are resampled by $L^{t_{i+1} - t_i}$, then moved by Hamiltonian steps that leave
   $p_{t_{i+1}}$ as it is.

No approximation is left but the number of samples. Runs that are independent, and agree, are the diagnosis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys
from rec_transfer.models.laplace import resample
from rec_transfer.types import Key

PRIOR_DRAWS = 2**13
FIRST, LEVELS = 0.08, 12  # from t = .08 to 1 in equal ratios of 1.26
MOVES, LEAPS, STEP = 2, 6, 0.13  # Hamiltonian moves of a chain at each level; steps of .2 lose users with many clicks


def temper(
    log_likelihood: Callable, observations: Any, context: Any, *, size: int, draws: int, key: Key
) -> Float[Array, "users draws size"]:
    """Return equally weighted posterior samples of coordinates whose prior is N(0, I), for each user.

    Args:
        log_likelihood: ``f(coordinates [size], observation, context)``, nats.
        observations: pytree of arrays whose first axis is users.
        context: what else the likelihood needs.
        size: number of coordinates.
        draws: samples per user.
        key: for all steps.
    """
    import blackjax

    keys = named_keys(key, "prior", "resample", "levels")
    levels = jnp.geomspace(FIRST, 1.0, LEVELS)
    prior = jax.random.normal(keys["prior"], (PRIOR_DRAWS, size))
    of_all = jax.vmap(jax.vmap(log_likelihood, (0, None, None)), (None, 0, None))(prior, observations, context)
    start = prior[resample(levels[0] * of_all, draws, key=keys["resample"])]
    of_each = jax.vmap(jax.vmap(log_likelihood, (0, None, None)), (0, 0, None))

    def chain(key, place, observation, level):
        def log_density(place):
            return level * log_likelihood(place, observation, context) - 0.5 * place @ place

        sampler = blackjax.hmc(
            log_density, step_size=STEP, inverse_mass_matrix=jnp.ones(size), num_integration_steps=LEAPS
        )

        def move(state, key):
            return sampler.step(key, state)[0], None

        return jax.lax.scan(move, sampler.init(place), jax.random.split(key, MOVES))[0].position

    chains = jax.vmap(jax.vmap(chain, (0, 0, None, None)), (0, 0, 0, None))

    def climb(places, step):
        before, level, key = step
        keys = named_keys(key, "resample", "moves")
        rows = resample((level - before) * of_each(places, observations, context), draws, key=keys["resample"])
        places = jnp.take_along_axis(places, rows[..., None], axis=1)
        return chains(jax.random.split(keys["moves"], places.shape[:2]), places, observations, level), None

    steps = levels[:-1], levels[1:], jax.random.split(keys["levels"], LEVELS - 1)
    return jax.lax.scan(climb, start, steps)[0]

r"""The Bayes ceiling of a synthetic world: the best list that can be made from a new user's source clicks.

The oracle knows every parameter of the world and sees what a recommender sees. It samples the user's interest u from
its posterior. In a bent world this posterior has several modes, and a single chain would stay in one of them. So:

1. The source likelihood, as a function of the interest z shown in the source, is approximated by a Gaussian (Laplace).
   With it z is integrated out of $p(u \mid x) \propto p(u) \int p(z \mid u) L(z)\, dz$.
2. Prior samples weighted by this density find every mode. Hamiltonian moves (BlackJAX) spread the chains within them.
3. z is sampled given u, and the samples are weighted by the exact likelihood over its approximation.

Behind a hidden layer the likelihood is not log-concave, and with the Gaussian the pools disagree for most users. There
u and the private part of the source interest are sampled together, under the exact likelihood alone (``tempering``).

This is repeated in independent pools, whose agreement (R-hat, effective sample size) is the diagnosis. Users whose
pools disagree are repeated with four times the samples.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from scipy import sparse

from rec_transfer.keys import named_keys
from rec_transfer.methods.gains import GAINS, list_gains
from rec_transfer.models import likelihoods
from rec_transfer.models.laplace import approximate, log_marginal, log_marginal_of_all, resample
from rec_transfer.synthetic.decoder import HiddenLayer, item_features, layer_of
from rec_transfer.synthetic.tempering import temper
from rec_transfer.synthetic.world import World, WorldConfig, common_interests
from rec_transfer.types import FitMethod, History, Key, Scorer, TrainingData

POOLS = 8  # independent runs, whose agreement is the diagnosis
PRIOR_DRAWS = 2**16  # per pool: tens of effective ones in 8 dimensions
DRAWS = (128, 512, 2048)  # per pool and user; the next number is for the users whose pools still disagree
USERS_AT_ONCE = 100  # with the first number of draws; bounds the memory at users x draws x items floats
MOVES, LEAPS, STEP = 10, 8, 0.25  # Hamiltonian moves per chain, nine in ten of which are accepted
MAX_R_HAT, MIN_SAMPLE = 1.05, 200


class Domain(NamedTuple):
    """The true parameters of one domain, on the device; ``items`` include the sharpness of taste.

    ``hidden`` is None where the decoder is linear.
    """

    rotation: Float[Array, "latent latent"]
    bends: Float[Array, "latent latent"]
    items: Float[Array, "items features"]
    item_bias: Float[Array, " items"]
    hidden: HiddenLayer | None = None


class Draws(NamedTuple):
    """One pool of posterior samples of the shared interest u; a user's weights add up to 1."""

    interests: Float[Array, "users draws latent"]
    weights: Float[Array, "users draws"]


class OracleScores(NamedTuple):
    """The oracle's scores by gain, and diagnostics of each user's ten top gains.

    ``r_hat`` is the worst R-hat, ``sample`` the effective sample size.
    """

    scores: dict[str, Float[np.ndarray, "users items"]]
    r_hat: Float[np.ndarray, " users"]
    sample: Float[np.ndarray, " users"]


def domain_of(world: World, name: str) -> Domain:
    """Return the true parameters of one domain."""
    d, sharpness = world.config.domains.index(name), world.config.sharpness
    hidden = layer_of(world.hidden, d)
    domain = Domain(world.rotations[d], world.bends[d], sharpness * world.items[d], world.item_bias[d], hidden)
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), domain)


def true_scores(shown: Float[Array, "*users latent"], domain: Domain) -> Float[Array, "*users items"]:
    r"""Return the items' scores $\gamma\, \phi_d(z) V_d^\top + b_d$: the logits of where a click falls."""
    return item_features(shown, domain.hidden) @ domain.items.T + domain.item_bias


def true_log_likelihood(shown: Float[Array, " latent"], counts: Float[Array, " items"], domain: Domain) -> Array:
    """Return the log-probability, in nats, of one user's clicks given the interest shown in the domain."""
    return likelihoods.multinomial_log_likelihood(true_scores(shown, domain), counts)


@partial(jax.jit, static_argnames=("log_likelihood", "config", "draws"))
def draw_posterior(
    observations: Any,
    domain: Domain,
    context: Any,
    *,
    log_likelihood: Callable,
    config: WorldConfig,
    draws: int,
    key: Key,
) -> Draws:
    r"""Return one pool of weighted samples from $p(u \mid x)$ for each user, by what this module's beginning says.

    Args:
        observations: pytree of arrays whose first axis is users.
        domain: the source domain.
        context: what else the likelihood needs.
        log_likelihood: ``f(shown [latent], observation, context)``, nats.
        config: relatedness, bend and latent size of the world.
        draws: samples (chains) per user.
        key: for all steps.
    """
    keys = named_keys(key, "prior", "resample", "moves", "shown")
    latent, private = config.latent, 1 - config.relatedness**2

    def centre(interests):
        return config.relatedness * common_interests(interests, domain.rotation, domain.bends, bend=config.bend)

    if domain.hidden is not None:
        known = {"log_likelihood": log_likelihood, "config": config, "draws": draws}
        return draw_tempered(observations, domain, context, **known, key=key)
    evidence = approximate(log_likelihood, observations, context, latent=latent)
    users = len(evidence.shift)
    prior = jax.random.normal(keys["prior"], (PRIOR_DRAWS, latent))
    log_weights = log_marginal_of_all(evidence, centre(prior), private)
    start = prior[resample(log_weights, draws, key=keys["resample"])]

    def chain(key, interest, evidence):
        import blackjax

        evidence = jax.tree.map(lambda part: part[None], evidence)

        def log_density(interest):
            return log_marginal(evidence, centre(interest)[None, None], private)[0, 0] - 0.5 * interest @ interest

        sampler = blackjax.hmc(
            log_density, step_size=STEP, inverse_mass_matrix=jnp.ones(latent), num_integration_steps=LEAPS
        )

        def move(state, key):
            return sampler.step(key, state)[0], None

        return jax.lax.scan(move, sampler.init(interest), jax.random.split(key, MOVES))[0].position

    chains = jax.vmap(jax.vmap(chain, (0, 0, None)))
    interests = chains(jax.random.split(keys["moves"], (users, draws)), start, evidence)

    # z given u and the evidence, axis by axis of the evidence.
    noise = jax.random.normal(keys["shown"], interests.shape)
    damping = 1 / (1 + private * evidence.precision)[:, None]
    centres = jnp.einsum("nij,nci->ncj", evidence.axes, centre(interests))
    along = damping * (private * evidence.shift[:, None] + centres) + jnp.sqrt(private * damping) * noise
    shown = jnp.einsum("nij,ncj->nci", evidence.axes, along)
    exact = jax.vmap(jax.vmap(log_likelihood, (0, None, None)), (0, 0, None))(shown, observations, context)
    approximation = jnp.sum(evidence.shift[:, None] * along - 0.5 * evidence.precision[:, None] * along**2, axis=-1)
    return Draws(interests, jax.nn.softmax(exact - approximation, axis=1))


@partial(jax.jit, static_argnames=("log_likelihood", "config", "draws"))
def draw_tempered(
    observations: Any,
    domain: Domain,
    context: Any,
    *,
    log_likelihood: Callable,
    config: WorldConfig,
    draws: int,
    key: Key,
) -> Draws:
    """Return one pool as ``draw_posterior`` does, from chains in u and e_s under the exact likelihood alone.

    ``draw_posterior`` calls it where the source's decoder has a hidden layer; it holds in every world, and costs more.
    """

    def of_both(both, observation, context):
        common = common_interests(both[: config.latent], domain.rotation, domain.bends, bend=config.bend)
        shown = config.relatedness * common + jnp.sqrt(1 - config.relatedness**2) * both[config.latent :]
        return log_likelihood(shown, observation, context)

    both = temper(of_both, observations, context, size=2 * config.latent, draws=draws, key=key)
    return Draws(both[..., : config.latent], jnp.full(both.shape[:2], 1 / draws))


@partial(jax.jit, static_argnames=("config",))
def posterior_gains(
    posterior: Draws, domain: Domain, *, config: WorldConfig, key: Key
) -> dict[str, tuple[Float[Array, "users items"], Float[Array, "users items"]]]:
    """Return mean and variance over the posterior of what each item is worth in a list, by gain: [users, items].

    The gains are those of ``list_gains`` for a list that is judged by half of the user's items, as ``cold_start`` deals
    them. The interest in the target domain and the number of clicks are sampled.

    Args:
        posterior: samples of the shared interest.
        domain: the target domain.
        config: the world's.
        key: for the target interest and the clicks.
    """
    keys = named_keys(key, "private", "clicks")
    common = common_interests(posterior.interests, domain.rotation, domain.bends, bend=config.bend)
    private = jax.random.normal(keys["private"], common.shape)
    shown = config.relatedness * common + jnp.sqrt(1 - config.relatedness**2) * private
    probabilities = jax.nn.softmax(true_scores(shown, domain))
    activity = config.activity + config.activity_spread * jax.random.normal(keys["clicks"], common.shape[:-1])
    clicks = jnp.clip(jnp.floor(jnp.exp(activity)), config.fewest_clicks, config.most_clicks)

    def moments(gain):
        mean = jnp.einsum("nc,nci->ni", posterior.weights, gain)
        return mean, jnp.einsum("nc,nci->ni", posterior.weights, gain**2) - mean**2

    return {name: moments(gain) for name, gain in list_gains(probabilities, clicks, judged=0.5).items()}


def diagnose(
    means: Float[np.ndarray, "pools users items"], variances: Float[np.ndarray, "pools users items"]
) -> tuple[Float[np.ndarray, " users"], Float[np.ndarray, " users"]]:
    r"""Return the worst R-hat and the effective sample size (of the mean variance) of each user's ten top gains.

    With W the variance within pools and B the variance of their means, $\hat R = \sqrt{1 + B / W}$ (Gelman and Rubin
    1992, for long pools). All pools together are worth $\text{pools} \cdot W / B$ independent samples.
    """
    top = np.argsort(-means.mean(axis=0), axis=1)[None, :, :10]
    between = np.take_along_axis(means, top, axis=2).var(axis=0, ddof=1)
    within = np.take_along_axis(variances, top, axis=2).mean(axis=0)
    return np.sqrt(1 + between / within).max(axis=1), len(means) * within.mean(axis=1) / between.mean(axis=1)


def score_users(
    world: World, source: str, target: str, counts: Shaped[np.ndarray | Array, "users items"], *, key: Key
) -> OracleScores:
    """Return the oracle's scores of users who are new in ``target``, from their source clicks, with diagnostics.

    Args:
        world: the true world.
        source, target: names of the domains.
        counts: the users' source clicks [users, items]; they are processed in chunks.
        key: for the samples.

    Raises:
        RuntimeError: the pools still disagree for more than one user in a hundred.
    """
    counts = np.asarray(counts, np.float32)
    config, here, there = world.config, domain_of(world, source), domain_of(world, target)
    scores = {name: np.zeros((len(counts), len(there.item_bias)), np.float32) for name in GAINS}
    r_hat, sample = np.full(len(counts), np.inf), np.zeros(len(counts))
    for attempt, draws in zip(jax.random.split(key, len(DRAWS)), DRAWS, strict=True):
        left = np.flatnonzero((r_hat > MAX_R_HAT) | (sample < MIN_SAMPLE))
        size = max(1, USERS_AT_ONCE * DRAWS[0] // draws)
        for number, start in enumerate(range(0, len(left), size)):
            users = left[start : start + size]
            chunk = jnp.asarray(counts[np.resize(users, size)])  # fills the last chunk up: one compiled program
            pools = []
            for pool in jax.random.split(jax.random.fold_in(attempt, number), POOLS):
                keys = named_keys(pool, "posterior", "gains")
                known = {"log_likelihood": true_log_likelihood, "config": config, "draws": draws}
                posterior = draw_posterior(chunk, here, here, **known, key=keys["posterior"])
                pools.append(jax.device_get(posterior_gains(posterior, there, config=config, key=keys["gains"])))
            for name in GAINS:
                scores[name][users] = np.mean([pool[name][0] for pool in pools], axis=0)[: len(users)]
            means, variances = (np.stack([pool["NDCG@10"][part] for pool in pools]) for part in (0, 1))
            r_hat[users], sample[users] = (values[: len(users)] for values in diagnose(means, variances))
    failed = (r_hat > MAX_R_HAT) | (sample < MIN_SAMPLE)
    if failed.mean() > 0.01:
        raise RuntimeError(f"oracle: for {failed.sum()} of {len(counts)} users the pools of posterior draws disagree")
    return OracleScores(scores, r_hat, sample)


def with_oracle(world: World) -> dict[str, FitMethod]:
    """Return one method per gain, named "oracle: NDCG@10" and so on: what anyone could know who knows ``world``.

    They read source histories alone. The methods share their posterior samples: the last test set's are kept, so that
    methods that score it one after the other sample once.
    """
    kept: list[tuple[sparse.csr_array, tuple, OracleScores]] = []  # at most one: clicks, direction and key, scores

    def scores_of(clicks: sparse.csr_array, source: str, target: str, key: Key) -> OracleScores:
        asked = source, target, jax.random.key_data(key).tobytes()
        if not kept or kept[0][0] is not clicks or kept[0][1] != asked:
            kept[:] = [(clicks, asked, score_users(world, source, target, clicks.toarray(), key=key))]
        return kept[0][2]

    def method(gain: str) -> FitMethod:
        def fit(train: TrainingData, *, key: Key) -> Scorer:
            def score(history: History) -> np.ndarray:
                return scores_of(history.source, train.source.domain, train.target.domain, key).scores[gain]

            return score

        return fit

    return {f"oracle: {gain}": method(gain) for gain in GAINS}

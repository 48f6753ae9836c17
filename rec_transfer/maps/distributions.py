r"""Aligners that match the *distribution* of interests of one domain's users to the other's, users apart.

The clouds are the aggregated posteriors of the unpaired users, $\frac1n \sum_i N(\mu_i, \Sigma_i)$. Matching them needs
no overlapping user, and says nothing of who corresponds to whom: any map that follows a transport by a symmetry of the
target cloud matches as well. With ``pair_weight`` above zero the trained ones are supervised maps, kept in the cloud.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rec_transfer import training
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.maps.base import LinearMap, MeanMap, average_over_folds, drawn, mean_map, residual_covariance, rows_of
from rec_transfer.maps.networks import MLPMap, decoded_loss
from rec_transfer.maps.ridge import Ridge
from rec_transfer.types import Gaussian, Key, Pairs, PerUser, Unpaired

LEAST_PAIRS = 2  # to measure the residual
USERS = 2000  # of either domain, drawn once: what the trained maps look at
BATCH = 125
WIDTHS = (0.5, 1.0, 2.0)  # of the kernel, times the median distance: no single one sees both shape and shift
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
SLOPE_PENALTY, PACE = 10.0, 10.0  # of the discriminator: smooth, and faster than the map (Heusel et al. 2017)


# --- closed forms
def moments(belief: Gaussian) -> tuple[Float[np.ndarray, " latent"], Float[np.ndarray, "latent latent"]]:
    r"""Mean and covariance of the aggregated posterior: $\bar\mu$ and $\mathrm{Cov}(\mu_i) + \overline{\Sigma_i}$."""
    mean, covariance = (np.asarray(part, np.float64) for part in belief)
    centred = mean - mean.mean(axis=0)
    return mean.mean(axis=0), centred.T @ centred / len(mean) + covariance.mean(axis=0)


def power(matrix: Float[np.ndarray, "latent latent"], exponent: float) -> Float[np.ndarray, "latent latent"]:
    r"""$S^p = U \mathrm{diag}(d^p) U^\top$ of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-9) ** exponent) @ vectors.T


def transport_matrix(
    source: Float[np.ndarray, "latent latent"], target: Float[np.ndarray, "latent latent"]
) -> Float[np.ndarray, "latent latent"]:
    r"""$A = S_s^{-1/2} (S_s^{1/2} S_t S_s^{1/2})^{1/2} S_s^{-1/2}$: the cheapest way from one Gaussian to the other.

    Of all maps with $A S_s A^\top = S_t$ the only symmetric positive definite one, hence the gradient of a convex
    function, hence optimal for squared distance (Monge map; Knott and Smith 1984; Peyré and Cuturi 2019, section 2.6).
    """
    root, inverse = power(source, 0.5), power(source, -0.5)
    return inverse @ power(root @ target @ root, 0.5) @ inverse


def recolouring_matrix(
    source: Float[np.ndarray, "latent latent"], target: Float[np.ndarray, "latent latent"]
) -> Float[np.ndarray, "latent latent"]:
    r"""$A = S_t^{1/2} S_s^{-1/2}$: whiten, then recolour (CORAL: Sun, Feng and Saenko 2016, without their added I).

    $A S_s A^\top = S_t$ as well; A is symmetric, and the optimal transport, only where the two covariances commute.
    """
    return power(target, 0.5) @ power(source, -0.5)


def _match_moments(pairs: Pairs, unpaired: Unpaired | None, matrix_between) -> LinearMap:
    """The affine map that takes the source cloud's mean and covariance to the target's, by the matrix asked for."""
    _check(pairs, unpaired)
    (source_mean, source), (target_mean, target) = (moments(side) for side in unpaired)
    matrix = matrix_between(source, target)
    intercept = target_mean - matrix @ source_mean
    predicted = np.asarray(pairs.source.mean) @ matrix.T + intercept  # no pair was fitted: all are left out
    return LinearMap(matrix.T, intercept, residual_covariance(pairs, predicted, matrix))


def _check(pairs: Pairs, unpaired: Unpaired | None) -> None:
    if len(pairs.source.mean) < LEAST_PAIRS:
        raise ValueError(
            f"pairs: got {len(pairs.source.mean)} users, expected at least {LEAST_PAIRS} to measure the residual"
        )
    found, latent = min(len(side.mean) for side in unpaired) if unpaired else 0, pairs.source.mean.shape[1]
    if found <= latent:
        raise ValueError(
            f"unpaired: got {found} users in one of the domains, expected more than the {latent} latents in each"
        )


def fit_wasserstein_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode=None, key: Key | None = None
) -> LinearMap:
    """The optimal transport between the two clouds, each taken as one Gaussian (``transport_matrix``).

    The map comes from ``unpaired`` alone; the pairs only measure its residual. It is deterministic.

    Raises:
        ValueError: no more unpaired users than latents in a domain, or fewer than two pairs.
    """
    return _match_moments(pairs, unpaired, transport_matrix)


def fit_coral_map(pairs: Pairs, *, unpaired: Unpaired | None = None, decode=None, key: Key | None = None) -> LinearMap:
    """Whiten the source cloud, recolour it as the target's (``recolouring_matrix``); else like the transport."""
    return _match_moments(pairs, unpaired, recolouring_matrix)


# --- maximum mean discrepancy
def squared_distances(x: Float[Array, "rows latent"], y: Float[Array, "others latent"]) -> Float[Array, "rows others"]:
    r"""$\|x\|^2 + \|y\|^2 - 2 x^\top y$, never below zero."""
    return jnp.maximum(jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1) - 2 * x @ y.T, 0.0)


def squared_mmd(
    x: Float[Array, "rows latent"], y: Float[Array, "others latent"], widths: Float[Array, " widths"]
) -> Float[Array, ""]:
    r"""Maximum mean discrepancy, squared, of two samples; zero in expectation where their distributions agree.

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
    """Half, once and twice the median distance of a sample's points (the median heuristic)."""
    apart = squared_distances(sample, sample)[jnp.triu_indices(len(sample), 1)]
    return jnp.sqrt(jnp.median(apart)) * jnp.asarray(WIDTHS)


def per_click(model: Callable, pairs: Pairs, decode, *, key: Key | None) -> PerUser:
    """``decoded_loss`` in nats per click of the average user: its size does not depend on how much they click."""
    return decoded_loss(model, pairs, decode, key=key, epoch=0.0) / jnp.mean(jnp.sum(pairs.counts, axis=-1))


def mmd_loss(models, batch: Unpaired | Pairs, context, *, key: Key | None, epoch) -> PerUser:
    r"""$\mathrm{MMD}^2(f(z_s), z_t) + w \cdot$ (nats per click of the pairs); held out, the batch is pairs alone."""
    network, _ = models
    pairs, pair_weight, decode, widths = context
    if isinstance(batch, Pairs):
        return per_click(network, batch, decode, key=None)
    keys = named_keys(key, "source", "target", "pairs")
    mapped = network(drawn(batch.source, key=keys["source"]))
    loss = squared_mmd(mapped, drawn(batch.target, key=keys["target"]), widths)
    loss = loss + pair_weight * jnp.mean(per_click(network, pairs, decode, key=keys["pairs"]))
    return jnp.full(len(mapped), loss)


def fit_mmd_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode, key: Key, pair_weight: float = 1.0, epochs: int = 20
) -> MeanMap:
    """A linear map with a bend, trained to bring the mapped source cloud to the target cloud by MMD.

    Args:
        pair_weight: of the pairs' clicks, in nats per click, beside the squared MMD. At 0 the pairs are ignored, the
            map starts at the optimal transport and nothing tells which user is which (the pairs measure the residual).
            Above 0 it starts at the ridge map, in five folds, each stopped on the pairs left out, then averaged.
        epochs: passes over the unpaired users that are looked at.

    Raises:
        ValueError: a negative weight, no more unpaired users than latents in a domain, or too few pairs.
    """
    return _fit_trained(mmd_loss, pairs, unpaired, decode, pair_weight, epochs, key=key)


def _fit_trained(loss, pairs, unpaired, decode, pair_weight, epochs, *, key) -> MeanMap:
    """What the trained ones share: users drawn once, a start, and folds with early stopping where pairs count."""
    _check(pairs, unpaired)
    if pair_weight < 0:
        raise ValueError(f"pair_weight: got {pair_weight}, expected a number of at least 0")
    keys = named_keys(key, "users", "train")
    rng, users = numpy_generator(keys["users"]), min(USERS, *(len(side.mean) for side in unpaired))
    clouds = Unpaired(*(rows_of(side, rng.choice(len(side.mean), users, replace=False)) for side in unpaired))
    widths = kernel_widths(jnp.asarray(clouds.target.mean[:500]))

    def train(start: Ridge | LinearMap, seen: Pairs, unseen: Pairs | None, *, key: Key) -> MLPMap:
        keys = named_keys(key, "network", "discriminator", "train")
        networks = (
            MLPMap(start.coefficients[...], start.intercept[...], key=keys["network"]),
            MLPMap(
                np.zeros((len(start.intercept[...]), 1)), np.zeros(1), key=keys["discriminator"]
            ),  # the MMD has no use for it
        )
        return training.fit(
            networks, loss, clouds, key=keys["train"], context=(seen, pair_weight, decode, widths), validation=unseen,
            epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
        ).model[0]  # fmt: skip

    if pair_weight > 0:
        return average_over_folds(pairs, train, key=keys["train"])
    network = train(fit_wasserstein_map(pairs, unpaired=unpaired), pairs, None, key=keys["train"])
    return mean_map([network], pairs, np.asarray(network(pairs.source.mean)))


# --- a discriminator
def reversed_gradient(x):
    """The identity with its gradient turned round: what the discriminator descends, the map climbs."""
    return 2 * jax.lax.stop_gradient(x) - x


def adversarial_loss(models, batch: Unpaired | Pairs, context, *, key: Key | None, epoch) -> PerUser:
    r"""$-\log \sigma(D(z_t)) - \log(1 - \sigma(D(f(z_s)))) + \frac\gamma2 \|\nabla D(z_t)\|^2 + w \cdot$ clicks

    D starts undecided at zero and descends it; f climbs its second term through ``reversed_gradient`` and descends the
    last (Ganin et al. 2016). Without the slope penalty the two circle (Mescheder, Geiger and Nowozin 2018).
    """
    network, discriminator = models
    pairs, pair_weight, decode, _ = context
    if isinstance(batch, Pairs):
        return per_click(network, batch, decode, key=None)
    keys = named_keys(key, "source", "target", "pairs")
    mapped = reversed_gradient(network(drawn(batch.source, key=keys["source"])))
    real = drawn(batch.target, key=keys["target"])
    odds, slope = jax.vmap(jax.value_and_grad(lambda interest: PACE * discriminator(interest)[0]))(real)
    told_apart = jax.nn.softplus(-odds) + jax.nn.softplus(PACE * discriminator(mapped))[:, 0]
    told_apart += 0.5 * SLOPE_PENALTY * jnp.sum(slope**2, axis=-1)
    return told_apart + pair_weight * jnp.mean(per_click(network, pairs, decode, key=keys["pairs"]))


def fit_adversarial_map(
    pairs: Pairs, *, unpaired: Unpaired | None = None, decode, key: Key, pair_weight: float = 1.0, epochs: int = 40
) -> MeanMap:
    """The same against a discriminator in place of a kernel: map until it cannot tell mapped interests from real ones.

    Arguments, start, folds and errors: as for ``fit_mmd_map``.
    """
    return _fit_trained(adversarial_loss, pairs, unpaired, decode, pair_weight, epochs, key=key)

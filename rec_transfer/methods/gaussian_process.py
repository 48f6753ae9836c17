r"""A Gaussian process from one domain's factor model to the other's, with uncertain inputs and outputs.

Each coordinate of the target interest is $z_t = f(z_s) + \epsilon$, $\epsilon \sim N(0, s)$, $f \sim GP(0, k)$ with
$k(x, x') = c + l\, x^\top x' + b \exp(-\lVert x - x' \rVert^2 / 2 \ell^2)$: a level, a line and a bend. No interest is
known. A source interest enters as its posterior $N(m, C)$, through the expected kernel (Girard et al. 2003). The target
clicks enter as Gaussian evidence (``models.laplace``), so users with few clicks count for less. The four variances and
the length $\ell$ maximise the probability of the overlapping users' target evidence.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.methods.gains import expected_gains
from rec_transfer.models.factor_model import FactorModel, domain_factor_models, evidence_of
from rec_transfer.models.laplace import Evidence, posterior_of
from rec_transfer.types import Gaussian, History, Key, TrainingData

MAX_PAIRS = 500  # the cost grows with the cube of pairs x latent
DRAWS = 400  # shared by all users; with 100 the share of the gain moves by .02
USERS_AT_ONCE = 50


class Prior(NamedTuple):
    """The variances of the kernel (level, line, bend) and of the noise, and the length of the bend."""

    level: float
    line: float
    bend: float
    noise: float
    length: float


START = Prior(0.05, 0.05, 0.3, 0.5, 2.5)  # where the search begins, for interests with unit variance
BOUNDS = Prior(*4 * [(-9.0, 3.0)], (-1.0, 3.0))  # of the logarithms


class Apart(NamedTuple):
    """How far the interests of every two users are apart, along the axes of their common spread $S = C + C'$.

    ``spread`` holds the variances along the axes, ``squares`` the squared differences of the means.
    """

    spread: Float[np.ndarray, "here there latent"]
    squares: Float[np.ndarray, "here there latent"]


def apart(here: Gaussian, there: Gaussian) -> Apart:
    """Return how far every user here is from every user there: all that ``expected_bend`` needs of them."""
    mean, other = (np.asarray(side.mean, float) for side in (here, there))
    total = np.asarray(here.covariance, float)[:, None] + np.asarray(there.covariance, float)[None]
    spread, axes = np.linalg.eigh(total)
    along = np.einsum("ija,ijab->ijb", mean[:, None] - other[None], axes)
    return Apart(spread, along**2)


def expected_bend(
    users: Apart, length: float
) -> tuple[Float[np.ndarray, "here there"], Float[np.ndarray, "here there"]]:
    r"""Return $E \exp(-\lVert x - x' \rVert^2 / 2 \ell^2)$ for independent $x \sim N(m, C)$ and $x' \sim N(m', C')$.

    It is $\prod_j (1 + s_j / \ell^2)^{-1/2} \exp(-d_j^2 / 2 (\ell^2 + s_j))$, with $s_j$ and $d_j^2$ the spread and the
    squares along axis j. The second array is its derivative by $\log \ell$.

    Args:
        users: how far they are apart.
        length: $\ell$, in units of the interests.
    """
    total = length**2 + users.spread
    bend = np.exp(-0.5 * np.sum(users.squares / total + np.log(total / length**2), axis=-1))
    return bend, bend * np.sum((users.spread + users.squares * length**2 / total) / total, axis=-1)


def prior_covariance(
    source: Gaussian, bend: Float[np.ndarray, "pairs pairs"], prior: Prior
) -> tuple[Float[np.ndarray, "pairs pairs"], Float[np.ndarray, "4 pairs pairs"]]:
    """Return the prior covariance of one coordinate of the pairs' target interests, and the four parts it sums.

    A user's covariance with itself is the kernel's own expectation, because both inputs are the same. Uncertainty of x
    therefore adds to the variance of f(x).

    Args:
        source: the pairs' source posteriors.
        bend: the first array of ``expected_bend`` between the pairs.
        prior: the variances of the parts (level, line, bend, noise).
    """
    mean, own = np.asarray(source.mean, float), np.trace(np.asarray(source.covariance), axis1=1, axis2=2)
    bend = bend + np.diag(1 - np.diag(bend))
    parts = np.stack([np.ones_like(bend), mean @ mean.T + np.diag(own), bend, np.eye(len(mean))])
    return np.tensordot(np.array(prior[:4]), parts, 1), parts


def negative_log_evidence(
    log_prior: Float[np.ndarray, "5"],
    source: Gaussian,
    users: Apart,
    roots: Float[np.ndarray, "pairs latent latent"],
    shift: Float[np.ndarray, "pairs latent"],
) -> tuple[float, Float[np.ndarray, "5"]]:
    r"""Return $\frac12 \log \lvert M \rvert + \frac12 y^\top M^{-1} y$ and its gradient, by which ``Prior`` is fitted.

    It is the negative log-probability of the pairs' target clicks, in nats up to a constant. The target evidence of a
    pair, $\exp(h^\top z - z^\top P z / 2)$ with $P = L L^\top$, is that of an observation $y = L^{-1} h$ of $L^\top z$
    with unit noise. So $M = I + L^\top (K \otimes I) L$, where K is the covariance of one coordinate.

    Args:
        log_prior: logarithms of level, line, bend, noise and length.
        source: the pairs' source posteriors.
        users: how far they are apart.
        roots: L of each pair.
        shift: h of each pair.
    """
    prior = Prior(*np.exp(log_prior))
    bend, longer = expected_bend(users, prior.length)
    covariance, parts = prior_covariance(source, bend, prior)
    inverse, log_determinant, weights, seen = _solve(covariance, roots, shift)
    # The derivative by K needs only the trace over coordinates of L M^-1 L' for each two pairs.
    trace = np.einsum("iab,ibjc,jac->ij", roots, inverse, roots, optimize=True)
    slope = 0.5 * (trace - weights @ weights.T)
    np.fill_diagonal(longer, 0)  # a user's covariance with itself does not depend on the length
    derivatives = [*np.array(prior[:4])[:, None, None] * parts, prior.bend * longer]
    return 0.5 * (log_determinant + seen), np.array([np.sum(slope * derivative) for derivative in derivatives])


def _solve(covariance, roots, shift):
    r"""Return M's inverse in blocks, its log-determinant, $L M^{-1} y$ and $y^\top M^{-1} y$."""
    from scipy import linalg

    pairs, latent = shift.shape
    matrix = np.einsum("iab,ij,jac->ibjc", roots, covariance, roots, optimize=True).reshape(pairs * latent, -1)
    matrix[np.diag_indices(len(matrix))] += 1
    factor = linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    inverse = linalg.lapack.dpotri(factor, lower=True)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    seen = np.linalg.solve(roots, shift[..., None]).ravel()
    solution = inverse @ seen
    weights = np.einsum("iab,ib->ia", roots, solution.reshape(pairs, latent))
    return inverse.reshape(pairs, latent, pairs, latent), log_determinant, weights, float(seen @ solution)


def fit_prior(
    source: Gaussian,
    users: Apart,
    roots: Float[np.ndarray, "pairs latent latent"],
    shift: Float[np.ndarray, "pairs latent"],
) -> Prior:
    """Return the variances and the length that minimise ``negative_log_evidence``; for its arguments see there."""
    from scipy.optimize import minimize

    search = {"method": "L-BFGS-B", "bounds": BOUNDS, "options": {"maxiter": 20, "ftol": 1e-5}}
    found = minimize(negative_log_evidence, np.log(START), args=(source, users, roots, shift), jac=True, **search)
    return Prior(*map(float, np.exp(found.x)))


class GaussianProcessTransfer(NamedTuple):
    """A fitted recommender for users of the source who are new in the target; its scores are expected gains.

    ``weights`` turn a user's kernel with the pairs into the mean of f; ``spread`` turns it into the reduction of f's
    prior variance by the pairs (averaged over coordinates).
    """

    source: FactorModel
    target: FactorModel
    prior: Prior
    pairs: Gaussian
    weights: Float[Array, "pairs latent"]
    spread: Float[Array, "pairs pairs"]
    clicks: Float[Array, " users"]
    key: Key
    judged: float = 0.5

    @property
    def choice(self) -> str:
        """Return the variances and the length that the overlapping users' evidence chose."""
        return ", ".join(f"{name} {value:.2g}" for name, value in self.prior._asdict().items())

    def sample_target_posterior(self, history: History) -> Float[Array, "users draws latent"]:
        """Return samples of each user's target interest: the source interest is sampled, then f, then the noise."""
        known = posterior_of(evidence_of(self.source, history.source))
        return _sample_process(self.prior, self.pairs, self.weights, self.spread, known, self.key)

    def __call__(self, history: History, *, gain: str = "NDCG@10") -> np.ndarray:
        """Return scores [users, items]: the expected gain of every item for the metric named."""
        interests = self.sample_target_posterior(history)
        gains = expected_gains(self.target, interests, self.clicks, key=self.key, judged=self.judged)
        return np.asarray(gains[gain])


def fit_gaussian_process(
    train: TrainingData,
    *,
    key: Key,
    latent: int = 8,
    judged: float = 0.5,
    factor_models: Callable[..., FactorModel] | None = None,
) -> GaussianProcessTransfer:
    """Fit both domains' factor models, then the process on the overlapping users; a ``FitMethod``.

    Args:
        train: the training data of one direction. At most 500 overlapping users are used for the process, sampled if
            there are more.
        key: fits the factor models, samples the pairs and the interests.
        latent: dimensions of the interests; those of ``factor_models``, where given.
        judged: share of a user's items that a list is judged by (see ``list_gains``): one half in ``cold_start``'s
            splits; 1 where all that the user will do counts.
        factor_models: those of ``domain_factor_models``, to share them with other methods; None fits new ones.
    """
    keys = named_keys(key, "pairs", "score")
    factor_models = factor_models or domain_factor_models(latent)
    here, there = factor_models(train.source, key=key), factor_models(train.target, key=key)
    users = np.sort(numpy_generator(keys["pairs"]).permutation(train.overlapping_users)[:MAX_PAIRS])
    source = posterior_of(evidence_of(here, train.source.select(users).counts))
    roots, shift = _roots(evidence_of(there, train.target.select(users).counts))
    users_apart = apart(source, source)
    prior = fit_prior(source, users_apart, roots, shift)
    covariance, _ = prior_covariance(source, expected_bend(users_apart, prior.length)[0], prior)
    inverse, _, weights, _ = _solve(covariance, roots, shift)
    spread = np.einsum("iab,ibjc,jac->ij", roots, inverse, roots, optimize=True) / shift.shape[1]
    clicks = np.asarray(train.target.counts.sum(axis=1), np.float32)
    arrays = (jnp.asarray(array, jnp.float32) for array in (weights, spread, clicks))
    return GaussianProcessTransfer(here, there, prior, source, *arrays, keys["score"], judged)


def _roots(evidence: Evidence):
    r"""Return L with $P = L L^\top$, and h, of each user; directions without evidence get a small precision."""
    precision = np.maximum(np.asarray(evidence.precision, float), 1e-4)
    axes = np.asarray(evidence.axes, float)
    return axes * np.sqrt(precision)[:, None, :], np.einsum("nij,nj->ni", axes, np.asarray(evidence.shift, float))


@jax.jit
def _sample_process(prior: Prior, pairs: Gaussian, weights, spread, known: Gaussian, key: Key):
    """Return samples of the target interest of each user whose source posterior is known."""
    keys = named_keys(key, "source", "target")
    latent = pairs.mean.shape[1]
    # Shared by all users, so that one user's scores do not depend on who else is scored.
    noise = jax.random.normal(keys["source"], (DRAWS, latent))
    beyond = jax.random.normal(keys["target"], (DRAWS, latent))
    precision = jnp.linalg.inv(pairs.covariance + prior.length**2 * jnp.eye(latent))
    height = -0.5 * jnp.linalg.slogdet(pairs.covariance / prior.length**2 + jnp.eye(latent))[1]
    towards = jnp.einsum("nij,nj->ni", precision, pairs.mean)

    def one(known):
        interests = known.mean + noise @ jnp.linalg.cholesky(known.covariance).T
        products = (interests[:, :, None] * interests[:, None, :]).reshape(DRAWS, latent**2)
        squares = products @ precision.reshape(-1, latent**2).T
        distance = squares - 2 * interests @ towards.T + jnp.sum(towards * pairs.mean, axis=1)
        kernel = prior.level + prior.line * interests @ pairs.mean.T + prior.bend * jnp.exp(height - 0.5 * distance)
        own = prior.level + prior.line * jnp.sum(interests**2, axis=1) + prior.bend
        variance = jnp.maximum(own - jnp.sum(kernel @ spread * kernel, axis=1), 0) + prior.noise
        return kernel @ weights + jnp.sqrt(variance)[:, None] * beyond

    return jax.lax.map(one, known, batch_size=USERS_AT_ONCE)

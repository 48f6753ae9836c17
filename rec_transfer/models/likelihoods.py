"""Log-likelihoods of counts, the KL term, and the bounds made of them: one value per user, in nats."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rec_transfer.types import Counts, Logits, PerUser


def bernoulli_log_likelihood(logits: Logits, counts: Counts) -> PerUser:
    r"""Return the log-probability, in nats, of which items a user clicked at least once.

    $\sum_i [b_i \log \sigma(s_i) + (1 - b_i) \log(1 - \sigma(s_i))]$, where $b_i = 1$ if the count is positive. Items
    are independent given the logits. The minus of the cross-entropy applies to both terms (the published form applies
    it only to the first).
    """
    clicked = (counts > 0).astype(logits.dtype)
    return jnp.sum(clicked * logits - jax.nn.softplus(logits), axis=-1)


def multinomial_log_likelihood(logits: Logits, counts: Counts) -> PerUser:
    r"""Return the log-probability, in nats, of where a user's clicks fall, given how many there are.

    $\sum_i x_i \log \mathrm{softmax}(s)_i$ (Liang et al. 2018). The multinomial coefficient $\log(n! / \prod_i x_i!)$
    is omitted: it depends only on the data and has no gradient.
    """
    return jnp.sum(counts * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def gaussian_kl(
    mean: Float[Array, "*users latent"], log_variance: Float[Array, "*users latent"]
) -> Float[Array, "*users"]:
    r"""Return the KL divergence, in nats, of N(mean, diag exp(log_variance)) from N(0, I), for each user.

    $\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)$ (Kingma and Welling 2014).
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)


def elbo(log_likelihood: PerUser, kl: PerUser, beta: float | Float[Array, ""] = 1.0) -> PerUser:
    r"""Return the evidence lower bound, in nats per user: $\log p(x \mid z) - \beta \, KL$.

    At beta = 1 it is, in expectation over z, a lower bound of $\log p(x)$. Another beta gives the rate-distortion
    objective of the beta-VAE (Higgins et al. 2017), which is not an ELBO.
    """
    return log_likelihood - beta * kl


def importance_weighted_bound(log_weights: Float[Array, "samples *users"]) -> PerUser:
    r"""Return the importance-weighted bound of $\log p(x)$, in nats per user, from K posterior samples.

    $\log \frac1K \sum_k w_k$, $\log w_k = \log p(x, z_k) - \log q(z_k \mid x)$ (Burda et al. 2016). Its expectation
    grows with K from the ELBO (K = 1) towards $\log p(x)$.
    """
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])

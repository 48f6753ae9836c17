"""The variational autoencoder of one domain: counts of a user -> a Gaussian over interests -> logits over items."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys
from rec_transfer.models import likelihoods
from rec_transfer.types import Counts, Key, Logits, PerUser

Latents: TypeAlias = Float[Array, "*users latent"]
Epoch: TypeAlias = Any  # a number of epochs with its fraction, traced or not
INPUT_NORM = 3.0  # the length every user's input is scaled to: activity must not saturate the tanh layer


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the network and of its training; the defaults are those the series measures with.

    Args:
        latent: dimensions of the interest vector.
        hidden: width of the one hidden layer on either side.
        dropout: share of a user's items hidden from the encoder while training.
        beta: weight of the KL term once annealing ends; 1 is the ELBO.
        anneal_epochs: epochs over which beta grows linearly from 0.
        epochs, batch_size, learning_rate: see ``training.fit``.
    """

    latent: int = 8
    hidden: int = 200
    dropout: float = 0.3
    beta: float = 1.0
    anneal_epochs: int = 20
    epochs: int = 80
    batch_size: int = 200
    learning_rate: float = 2e-3


def encoder_input(counts: Counts) -> Counts:
    r"""Return $\log(1 + x)$ scaled to length 3, so that the taste is read and not the activity; zero stays zero."""
    damped = jnp.log1p(counts)
    length = jnp.linalg.norm(damped, axis=-1, keepdims=True)
    return INPUT_NORM * damped / jnp.maximum(length, 1e-6)


class Encoder(nnx.Module):
    r"""$q(z \mid x) = N(\mu(x), \mathrm{diag}\, \sigma^2(x))$ with one hidden tanh layer."""

    def __init__(self, items: int, config: VAEConfig, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(items, config.hidden, rngs=rngs)
        self.mean = nnx.Linear(config.hidden, config.latent, rngs=rngs)
        self.log_variance = nnx.Linear(config.hidden, config.latent, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)

    def __call__(self, counts: Counts, *, key: Key | None = None) -> tuple[Latents, Latents]:
        """Return mean and log-variance [users, latent]; a key switches dropout on (training)."""
        inputs = self.dropout(encoder_input(counts), deterministic=key is None, rngs=key)
        features = jnp.tanh(self.hidden(inputs))
        return self.mean(features), self.log_variance(features)


class Decoder(nnx.Module):
    r"""$p(x \mid z)$: an interest vector -> one logit per item, with one hidden tanh layer."""

    def __init__(self, items: int, config: VAEConfig, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(config.latent, config.hidden, rngs=rngs)
        self.logits = nnx.Linear(config.hidden, items, rngs=rngs)

    def __call__(self, latent: Float[Array, "*users latent"]) -> Logits:
        return self.logits(jnp.tanh(self.hidden(latent)))


class VAE(nnx.Module):
    """Encoder and decoder of one domain, with the sizes they were made from."""

    def __init__(self, items: int, config: VAEConfig, *, key: Key):
        keys = named_keys(key, "encoder", "decoder")
        self.encoder = Encoder(items, config, rngs=nnx.Rngs(keys["encoder"]))
        self.decoder = Decoder(items, config, rngs=nnx.Rngs(keys["decoder"]))
        self.items = items
        self.config = config


def reparameterize(mean: Float[Array, "..."], log_variance: Float[Array, "..."], *, key: Key) -> Float[Array, "..."]:
    r"""Return a sample $z = \mu + \sigma \odot \epsilon$, $\epsilon \sim N(0, I)$, $\sigma = e^{\log\sigma^2 / 2}$."""
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)


class Objective(NamedTuple):
    """What the training loss weighs the KL term with: beta, reached linearly after ``anneal_epochs``."""

    beta: float
    anneal_epochs: float


def annealed_beta(objective: Objective, epoch: Epoch) -> Epoch:
    """Return the weight of the KL term at an epoch (with its fraction)."""
    annealed = jnp.where(objective.anneal_epochs > 0, epoch / jnp.maximum(objective.anneal_epochs, 1e-6), 1.0)
    return objective.beta * jnp.clip(annealed, 0.0, 1.0)


def negative_elbo(model: VAE, counts: Counts, objective: Objective, *, key: Key | None, epoch: Epoch) -> PerUser:
    r"""Return $-[\log p(x \mid z) - \beta(\text{epoch})\, KL]$, nats per user, with one sample z.

    Without a key z is the mean, and nothing is dropped.
    """
    if key is None:
        mean, log_variance = model.encoder(counts)
        latent = mean
    else:
        keys = named_keys(key, "dropout", "sample")
        mean, log_variance = model.encoder(counts, key=keys["dropout"])
        latent = reparameterize(mean, log_variance, key=keys["sample"])
    log_likelihood = likelihoods.multinomial_log_likelihood(model.decoder(latent), counts)
    beta = annealed_beta(objective, epoch)
    return -likelihoods.elbo(log_likelihood, likelihoods.gaussian_kl(mean, log_variance), beta)

"""The recommender: source clicks -> source posterior -> map -> target posterior -> decoder -> scores."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rec_transfer.keys import key_for, once_per_key
from rec_transfer.models.train import posterior, train_vae
from rec_transfer.models.vae import VAE, VAEConfig
from rec_transfer.types import (
    DomainMap,
    FitMap,
    FitMethod,
    Gaussian,
    History,
    Interactions,
    Key,
    Pairs,
    Scorer,
    TrainingData,
    Unpaired,
)


class Transfer(NamedTuple):
    """A fitted recommender for users of ``source`` who are new in ``target``; call it with their history."""

    source: VAE
    target: VAE
    domain_map: DomainMap

    @property
    def choice(self) -> str:
        """Return the setting that the map chose on the overlapping users, or "" if it names none."""
        return getattr(self.domain_map, "choice", "")

    def target_posterior(self, history: History) -> Gaussian:
        """Return the users' interest in the target domain given their source clicks and, if shown, target clicks."""
        mapped = self.domain_map(posterior(self.source, history.source))
        return mapped if history.target is None else fused(mapped, posterior(self.target, history.target))

    def __call__(self, history: History) -> np.ndarray:
        """Return scores [users, items]: the target decoder's logits at the mean of the target posterior."""
        return np.asarray(self.target.decoder(self.target_posterior(history).mean))


def fused(mapped: Gaussian, own: Gaussian) -> Gaussian:
    r"""Return the product of two posteriors that share the prior N(0, I): $p(z \mid x_s)\, q(z \mid x_t) / p(z)$.

    The precisions add up, less the prior's, which would count twice: $\Lambda = \Lambda_s + \Lambda_t - I$. The means
    are weighted alike. A mapped posterior wider than the prior says nothing, not less than nothing: $\Lambda$ is at
    least $\Lambda_t$.
    """
    identity = jnp.eye(mapped.mean.shape[-1])
    axes, spread = jnp.linalg.eigh(mapped.covariance)[::-1]
    more = (axes * jnp.maximum(1 / spread - 1, 0)[..., None, :]) @ jnp.swapaxes(axes, -1, -2)
    precision = jnp.linalg.inv(own.covariance)
    shift = (more + identity) @ mapped.mean[..., None] + precision @ own.mean[..., None]
    covariance = jnp.linalg.inv(more + precision)
    return Gaussian((covariance @ shift)[..., 0], covariance)


def fit_transfer(train: TrainingData, fit_map: FitMap, source: VAE, target: VAE, *, key: Key) -> Transfer:
    """Fit a map between two trained VAEs on the overlapping users of ``train``."""
    paired_source, paired_target = train.pairs
    pairs = Pairs(
        posterior(source, paired_source.counts),
        posterior(target, paired_target.counts),
        paired_target.counts,
    )
    shared = train.overlapping_users
    unpaired = Unpaired(
        posterior(source, train.source.without(shared).counts),
        posterior(target, train.target.without(shared).counts),
    )
    return Transfer(source, target, fit_map(pairs, unpaired=unpaired, decode=target.decoder, key=key))


DomainVAEs = Callable[..., VAE]  # vaes(domain: Interactions, *, key) -> VAE


def domain_vaes(config: VAEConfig) -> DomainVAEs:
    """Return ``vaes(domain, *, key)``: the VAE of a domain, trained when first asked for and kept, once per key.

    A domain's VAE depends on its training rows, ``config`` and the key alone, not on the direction or on who asks.

    Args:
        config: sizes of the networks and of their training.
    """

    def vae_of(domain: Interactions, *, key: Key) -> VAE:
        return train_vae(domain.counts, key=key_for(key, domain.domain), config=config).model

    return once_per_key(vae_of)


def with_maps(
    fit_maps: Mapping[str, FitMap], *, config: VAEConfig | None = None, vaes: DomainVAEs | None = None
) -> dict[str, FitMethod]:
    """Return one method per map, named as given. All share their VAEs.

    Args:
        fit_maps: name -> ``fit(pairs, *, unpaired, decode, key) -> map``.
        config: the VAEs' sizes, or
        vaes: those of ``domain_vaes``, to share them with other methods.

    Raises:
        ValueError: both or neither of config and vaes.
    """
    if (config is None) == (vaes is None):
        raise ValueError(f"config and vaes: got {'neither' if vaes is None else 'both'}, expected one of them")
    models = domain_vaes(config) if vaes is None else vaes

    def method(fit_map: FitMap) -> FitMethod:
        def fit(train: TrainingData, *, key: Key) -> Scorer:
            source, target = models(train.source, key=key), models(train.target, key=key)
            return fit_transfer(train, fit_map, source, target, key=key_for(key, "aligner"))

        return fit

    return {name: method(fit_map) for name, fit_map in fit_maps.items()}


def unknown_user(vaes: DomainVAEs) -> FitMethod:
    """Return a method that gives everybody one list, as for no history: the target decoder at the prior mean."""

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        model = vaes(train.target, key=key)
        logits = np.asarray(model.decoder(jnp.zeros(model.config.latent)))

        def score(history: History) -> np.ndarray:
            return np.tile(logits, (history.source.shape[0], 1))

        return score

    return fit


def same_user(vaes: DomainVAEs) -> FitMethod:
    """Return a method that is shown what the user did in the target: no transfer, hence a reference for it.

    It is the target VAE on the target history, which ``evaluate`` shows to its ceilings alone. The source is not read.

    Raises:
        ValueError: by the scorer, for a history without its target part.
    """

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        model = vaes(train.target, key=key)

        def score(history: History) -> np.ndarray:
            if history.target is None:
                raise ValueError(
                    "history.target: got None, expected target counts; evaluate shows them to its ceilings alone"
                )
            return np.asarray(model.decoder(posterior(model, history.target).mean))

        return score

    return fit

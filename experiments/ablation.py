"""Which part of the best methods makes them good: model, training rows, map and list, each varied with the rest held.

Part of ``evidence.py``, whose models it shares. Share of the oracle's lift on NDCG@10, films to books:

* **model**: a VAE per domain, or a factor model (whose decoder is that of the linear and bent worlds);
* **rows**: trained on every training user of the domain, or on the overlapping users alone;
* **map**: ridge, a Gaussian process on the posteriors' means, a process on the evidence, or the shared latents;
* **list**: sorted by the decoded mean, by the mean probability, or by the expected gain, all from one posterior.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import stats

from rec_transfer import maps
from rec_transfer.keys import key_for, once_per_key
from rec_transfer.maps import kernels
from rec_transfer.methods import expected_gains
from rec_transfer.models import laplace, posterior
from rec_transfer.models.factor_model import evidence_of
from rec_transfer.types import FitMethod, Gaussian, Pairs, TrainingData

DRAWS = 400  # of a user's interest, where a list is sorted by a mean over them
LISTS = ("decoded mean", "posterior mean", "NDCG@10")  # the last two are names of gains
LINE = ["model", "rows", "map", "list"]
COLUMNS = ["world", "seed", *LINE, "value", "share"]


class Interests(NamedTuple):
    """What a method knows of the users asked about, whatever sorts their lists.

    ``mean`` [users, latent], ``draws`` [users, draws, latent], ``decode`` interests -> logits, and the numbers of
    ``clicks`` of the training users.
    """

    mean: jax.Array
    draws: jax.Array
    decode: Callable
    clicks: jax.Array


def mapped(models: Callable, believe: Callable, decoder: Callable, fit_map: Callable) -> Callable:
    """Return ``fit(train, *, key) -> (history -> Interests)``: a model per domain and a map between their posteriors.

    Args:
        models: ``f(domain, *, key)``.
        believe: ``f(model, counts) -> Gaussian``.
        decoder: ``f(model)``: what turns interests into logits.
        fit_map: as in ``maps``.
    """

    def fit(train: TrainingData, *, key):
        here, there = (models(side, key=key) for side in (train.source, train.target))
        source, target = train.pairs
        pairs = Pairs(believe(here, source.counts), believe(there, target.counts), target.counts)
        domain_map = fit_map(pairs, decode=decoder(there), key=key_for(key, "map"))

        def interests(history) -> Interests:
            found = domain_map(believe(here, history.source))
            draws = drawn(found, key=key_for(key, "draws"))
            return Interests(found.mean, draws, decoder(there), clicks_of(train))

        return interests

    return once_per_key(fit)


def sampled(fit_method: FitMethod) -> Callable:
    """Return ``fit(train, *, key) -> (history -> Interests)`` of a method that samples the target interest itself."""

    def fit(train: TrainingData, *, key):
        scorer = fit_method(train, key=key)

        def interests(history) -> Interests:
            draws = scorer.sample_target_posterior(history)
            return Interests(draws.mean(axis=1), draws, scorer.target, clicks_of(train))

        return interests

    return once_per_key(fit)


def listed(fit_interests: Callable, by: str) -> FitMethod:
    """Return the method that sorts by one of ``LISTS``."""

    def fit(train: TrainingData, *, key):
        interests_of = fit_interests(train, key=key)

        def score(history) -> np.ndarray:
            known = interests_of(history)
            if by == "decoded mean":
                return np.asarray(known.decode(known.mean))
            options = {"key": key_for(key, "clicks"), "judged": 0.5}
            return np.asarray(expected_gains(known.decode, known.draws, known.clicks, **options)[by])

        return score

    return fit


def on_pairs_alone(method: FitMethod) -> FitMethod:
    """Return the method with the single-domain users left out of its training."""

    def fit(train: TrainingData, *, key):
        return method(TrainingData(*train.pairs), key=key)

    return fit


def drawn(belief: Gaussian, *, key) -> jax.Array:
    """Return ``DRAWS`` samples of every user's interest, correlations included."""
    root = jnp.linalg.cholesky(belief.covariance)
    noise = jax.random.normal(key, (DRAWS, belief.mean.shape[1]))
    return belief.mean[:, None] + jnp.einsum("uij,dj->udi", root, noise)


def clicks_of(train: TrainingData) -> jax.Array:
    """Return how many target clicks each training user made."""
    return jnp.asarray(train.target.counts.sum(axis=1), jnp.float32)


def lines(
    vaes: Callable, factor_models: Callable, process: FitMethod, shared_latents: FitMethod
) -> dict[tuple[str, str, str, str], FitMethod]:
    """Every line: (model, rows, map, list) -> method. Lines share the models given, and lists their posterior.

    Args:
        vaes, factor_models: ``f(domain, *, key)``, of one size.
        process, shared_latents: methods between these factor models, which sample the target interest.
    """

    def factors_believe(model, counts):
        return laplace.posterior_of(evidence_of(model, counts))

    vae = vaes, posterior, attrgetter("decoder")
    factors = factor_models, factors_believe, lambda model: model
    fits = {
        ("VAE", "ridge"): mapped(*vae, maps.fit_ridge_map),
        ("VAE", "process on means"): mapped(*vae, kernels.fit_gaussian_process_map),
        ("factor model", "ridge"): mapped(*factors, maps.fit_ridge_map),
        ("factor model", "process on means"): mapped(*factors, kernels.fit_gaussian_process_map),
        ("factor model", "process"): sampled(process),
        ("factor model", "shared latents"): sampled(shared_latents),
    }
    found = {
        (model, "all users", map_name, by): listed(fit, by) for (model, map_name), fit in fits.items() for by in LISTS
    }
    for model in ("VAE", "factor model"):
        few = found[model, "all users", "ridge", "decoded mean"]
        found[model, "overlapping users", "ridge", "decoded mean"] = on_pairs_alone(few)
    return found


CONTRASTS = {  # what is claimed -> the two lines compared, everything else held
    "list: expected gain over decoded mean, VAE and ridge": (
        ("VAE", "all users", "ridge", "NDCG@10"), ("VAE", "all users", "ridge", "decoded mean"),
    ),
    "list: expected gain over decoded mean, factor model and ridge": (
        ("factor model", "all users", "ridge", "NDCG@10"), ("factor model", "all users", "ridge", "decoded mean"),
    ),
    "list: expected gain over decoded mean, process": (
        ("factor model", "all users", "process", "NDCG@10"), ("factor model", "all users", "process", "decoded mean"),
    ),
    "list: expected gain over decoded mean, shared latents": (
        ("factor model", "all users", "shared latents", "NDCG@10"),
        ("factor model", "all users", "shared latents", "decoded mean"),
    ),
    "model: factor model over VAE, ridge, decoded mean": (
        ("factor model", "all users", "ridge", "decoded mean"), ("VAE", "all users", "ridge", "decoded mean"),
    ),
    "model: factor model over VAE, ridge, expected gain": (
        ("factor model", "all users", "ridge", "NDCG@10"), ("VAE", "all users", "ridge", "NDCG@10"),
    ),
    "map: process on means over ridge, VAE, decoded mean": (
        ("VAE", "all users", "process on means", "decoded mean"), ("VAE", "all users", "ridge", "decoded mean"),
    ),
    "map: process on means over ridge, factor model, expected gain": (
        ("factor model", "all users", "process on means", "NDCG@10"), ("factor model", "all users", "ridge", "NDCG@10"),
    ),
    "map: process over ridge, factor model, expected gain": (
        ("factor model", "all users", "process", "NDCG@10"), ("factor model", "all users", "ridge", "NDCG@10"),
    ),
    "map: shared latents over ridge, factor model, expected gain": (
        ("factor model", "all users", "shared latents", "NDCG@10"), ("factor model", "all users", "ridge", "NDCG@10"),
    ),
    "rows: all users over overlapping users, VAE": (
        ("VAE", "all users", "ridge", "decoded mean"), ("VAE", "overlapping users", "ridge", "decoded mean"),
    ),
    "rows: all users over overlapping users, factor model": (
        ("factor model", "all users", "ridge", "decoded mean"),
        ("factor model", "overlapping users", "ridge", "decoded mean"),
    ),
}  # fmt: skip


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """The mean difference of two lines' shares, paired by world, with the 95 % interval of Student's t over worlds."""
    wide = table.pivot(index=["world", "seed"], columns=LINE, values="share")
    rows = []
    for name, (better, worse) in CONTRASTS.items():
        for kind, difference in (wide[better] - wide[worse]).groupby("world", sort=False):
            low, high = stats.t.interval(0.95, len(difference) - 1, difference.mean(), stats.sem(difference))
            rows.append((name, kind, difference.mean(), low, high))
    return pd.DataFrame(rows, columns=["contrast", "world", "difference", "low", "high"])

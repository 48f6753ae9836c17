"""Which part of the best methods makes them good: model, training rows, map and list, each varied with the rest held.

Share of the oracle's lift on NDCG@10, films to books, in the worlds of ``evidence.py``:

* **model**: a VAE per domain, or a factor model (whose decoder is that of the linear and bent worlds);
* **rows**: trained on every training user of the domain, or on the overlapping users alone;
* **map**: ridge, a Gaussian process on the posteriors' means, a process on the evidence, or the shared latents;
* **list**: sorted by the decoded mean, by the mean probability, or by the expected gain, all from one posterior.

``make ablation`` prints the table and the paired contrasts and writes build/ablation.csv;
``tests/reference/ablation.csv`` is a copy of it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from evidence import ROOT, SEEDS, platform_of
from scipy import stats
from two_processes import two_at_a_time

from rec_transfer import evaluation, maps
from rec_transfer.keys import key_for, once_per_key
from rec_transfer.maps import kernels
from rec_transfer.methods import expected_gains, transfer
from rec_transfer.methods.gaussian_process import fit_gaussian_process
from rec_transfer.methods.shared_latents import fit_shared_latents
from rec_transfer.models import VAEConfig, laplace, posterior
from rec_transfer.models.factor_model import domain_factor_models, evidence_of
from rec_transfer.synthetic import oracle
from rec_transfer.types import FitMethod, Gaussian, Pairs, TrainingData

KINDS = ("bent", "linear", "two-layer decoder")
DRAWS = 400  # of a user's interest, where a list is sorted by a mean over them
LISTS = ("decoded mean", "posterior mean", "NDCG@10")  # the last two are names of gains
COLUMNS = ["world", "seed", "model", "rows", "map", "list", "value", "share"]


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


def lines() -> dict[tuple[str, str, str, str], FitMethod]:
    """Every line: (model, rows, map, list) -> method. Lines share their models, and lists their posterior."""
    vaes, factor_models = transfer.domain_vaes(VAEConfig()), domain_factor_models()

    def factors_believe(model, counts):
        return laplace.posterior_of(evidence_of(model, counts))

    vae = vaes, posterior, attrgetter("decoder")
    factors = factor_models, factors_believe, lambda model: model
    fits = {
        ("VAE", "ridge"): mapped(*vae, maps.fit_ridge_map),
        ("VAE", "process on means"): mapped(*vae, kernels.fit_gaussian_process_map),
        ("factor model", "ridge"): mapped(*factors, maps.fit_ridge_map),
        ("factor model", "process on means"): mapped(*factors, kernels.fit_gaussian_process_map),
        ("factor model", "process"): sampled(partial(fit_gaussian_process, factor_models=factor_models)),
        ("factor model", "shared latents"): sampled(partial(fit_shared_latents, factor_models=factor_models)),
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


def cell(kind: str, seed: int) -> pd.DataFrame:
    """The value and share of every line in one world."""
    start = time.perf_counter()
    keys = {name: key_for(jax.random.key(seed), name) for name in ("train", "share")}
    world, platform = platform_of(kind, seed)
    split = platform.direction("films", "books")
    methods = {"\t".join(line): method for line, method in lines().items()}
    ends = {"popularity": evaluation.fit_popularity, "oracle: NDCG@10": oracle.with_oracle(world)["oracle: NDCG@10"]}
    measures = {"NDCG@10": evaluation.METRICS["NDCG@10"]}
    values = evaluation.evaluate(ends | methods, split, keys=keys["train"][None], measures=measures)
    shares = evaluation.share_of_lift(values, key=keys["share"]).set_index("method")
    means = values.groupby("method").value.mean()
    rows = [(*name.split("\t"), means[name], shares.share[name]) for name in methods]
    print(f"{kind} {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return pd.DataFrame(rows, columns=COLUMNS[2:]).assign(world=kind, seed=seed)[COLUMNS]


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """The mean difference of two lines' shares, paired by world, with the 95 % interval of Student's t over worlds."""
    wide = table.pivot(index=["world", "seed"], columns=["model", "rows", "map", "list"], values="share")
    rows = []
    for name, (better, worse) in CONTRASTS.items():
        for kind, difference in (wide[better] - wide[worse]).groupby("world", sort=False):
            low, high = stats.t.interval(0.95, len(difference) - 1, difference.mean(), stats.sem(difference))
            rows.append((name, kind, difference.mean(), low, high))
    return pd.DataFrame(rows, columns=["contrast", "world", "difference", "low", "high"])


def main(seeds: tuple[int, ...], name: str) -> None:
    """Run the worlds, two at a time; print and write the tables."""
    table = pd.concat(two_at_a_time(cell, list(product(KINDS, seeds))), ignore_index=True)
    (ROOT / "build").mkdir(exist_ok=True)
    table.round(5).to_csv(ROOT / "build" / name, index=False)
    print(f"\nfilms to books: share of the oracle's lift on NDCG@10, mean of {len(seeds)} worlds\n")
    index = ["model", "rows", "map", "list"]
    print(table.pivot_table(index=index, columns="world", values="share", sort=False).round(2).to_string())
    if len(seeds) > 1:
        print("\npaired over worlds: difference of shares, 95 % interval\n")
        print(contrasts(table).round(3).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--name", default="ablation.csv", help="of the file under build/")
    options = parser.parse_args()
    main(tuple(options.seeds), options.name)

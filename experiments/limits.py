"""What limits transfer: the best methods given the truth of one part after the other, in the worlds of ``evidence.py``.

Share of the oracle's lift, films to books, of the same test users in every line: the item models learned from 4,300
users of a domain or the world's own; 300 pairs or 3,300; the map between the domains learned or the world's own; the
VAE's posterior by its encoder or by Newton steps; a linear map or one that bends. ``make limits`` prints the table and
writes build/limits.csv; ``tests/reference/limits.csv`` is a copy of it.
"""

import argparse
import time
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from evidence import ASSUMED, ROOT, SEEDS, WORLDS
from two_processes import two_at_a_time

from rec_transfer import evaluation, maps, synthetic
from rec_transfer.evaluation.splits import cold_start
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.methods import shared_latents, transfer
from rec_transfer.methods.gaussian_process import fit_gaussian_process
from rec_transfer.models import laplace, likelihoods
from rec_transfer.models.factor_model import domain_factor_models, evidence_of
from rec_transfer.models.train import dense
from rec_transfer.models.vae import VAEConfig
from rec_transfer.synthetic import oracle, truth
from rec_transfer.types import Gaussian, Pairs, Scorer, TrainingData

MORE_PAIRS = 3000
COLUMNS = ["world", "seed", "method", "items", "pairs", "share", "low", "high"]


def linear_map(factor_models):
    """Return the ridge map between the posteriors of two factor models; lists by the decoded mean."""

    def fit(train: TrainingData, *, key) -> Scorer:
        here, there = (factor_models(side, key=key) for side in (train.source, train.target))
        posteriors = (
            laplace.posterior_of(evidence_of(m, s.counts)).mean for m, s in zip((here, there), train.pairs, strict=True)
        )
        ridge = fit_ridge(*map(np.asarray, posteriors))

        def score(history):
            known = np.asarray(laplace.posterior_of(evidence_of(here, history.source)).mean)
            return np.asarray(there(jnp.asarray(known @ ridge.coefficients + ridge.intercept, jnp.float32)))

        return score

    return fit


def exact_posteriors(vaes):
    """Return VAE + ridge map with both posteriors from Newton steps under the decoder in place of the encoder."""

    def posterior_by_newton(model, counts) -> Gaussian:
        found = laplace.approximate(
            _decoded_log_likelihood, jnp.asarray(dense(counts)), model.decoder, latent=model.config.latent, steps=10
        )
        return laplace.posterior_of(found)

    def fit(train: TrainingData, *, key) -> Scorer:
        here, there = (vaes(side, key=key) for side in (train.source, train.target))
        source, target = train.pairs
        sides = (posterior_by_newton(model, side.counts) for model, side in ((here, source), (there, target)))
        pairs = Pairs(*sides, target.counts)
        domain_map = maps.fit_ridge_map(pairs)
        return lambda history: np.asarray(there.decoder(domain_map(posterior_by_newton(here, history.source)).mean))

    return fit


def _decoded_log_likelihood(interest, counts, decoder):
    return likelihoods.multinomial_log_likelihood(decoder(interest), counts)


def cell(kind: str, seed: int) -> pd.DataFrame:
    """The shares of one world's lines."""
    start = time.perf_counter()
    keys = named_keys(jax.random.key(seed), "world", "population", "split", "train", "few", "share")
    config = synthetic.WorldConfig(**WORLDS[kind])
    few_pairs = config.overlapping_users
    world = synthetic.make_world(config, key=keys["world"])
    more = synthetic.WorldConfig(**WORLDS[kind], overlapping_users=few_pairs + MORE_PAIRS)
    people = synthetic.sample_population(world._replace(config=more), key=keys["population"])
    hidden = people.users[people.roles == "test"]
    whole = cold_start(people.interactions, test_users=hidden, key=keys["split"]).direction("films", "books")
    chosen = numpy_generator(keys["few"]).permutation(whole.train.overlapping_users)[:few_pairs]
    few = whole._replace(train=evaluation.with_overlap(whole.train, chosen, drop=True))
    splits = {few_pairs: few, few_pairs + MORE_PAIRS: whole}
    vaes, learned, true = transfer.domain_vaes(VAEConfig()), domain_factor_models(), truth.true_items(world)
    lines = {}
    for pairs in splits:
        for name, models in (("learned", learned), ("true", true)):
            lines["shared + private latents", name, pairs] = partial(
                shared_latents.fit_shared_latents, factor_models=models
            )
            lines["linear map between item models", name, pairs] = linear_map(models)
        lines["VAE + ridge map, encoder", "learned", pairs] = transfer.with_maps({"": maps.fit_ridge_map}, vaes=vaes)[
            ""
        ]
        lines["VAE + ridge map, Newton steps", "learned", pairs] = exact_posteriors(vaes)
    for name, models in (("learned", learned), ("true", true)):
        lines["Gaussian process", name, few_pairs] = partial(fit_gaussian_process, factor_models=models)
    lines["truth: items and map", "true", few_pairs] = truth.true_map(world)
    ends = {"popularity": evaluation.fit_popularity, "oracle: NDCG@10": oracle.with_oracle(world)["oracle: NDCG@10"]}
    measures = {"NDCG@10": evaluation.METRICS["NDCG@10"]}
    names = {str(number): line for number, line in enumerate(lines)}
    values = [evaluation.evaluate(ends, splits[few_pairs], keys=keys["train"][None], measures=measures)]
    for number, line in names.items():
        values.append(
            evaluation.evaluate({number: lines[line]}, splits[line[2]], keys=keys["train"][None], measures=measures)
        )
    shares = evaluation.share_of_lift(pd.concat(values), key=keys["share"]).set_index("method").loc[list(names)]
    shares[["method", "items", "pairs"]] = list(names.values())
    print(f"{kind} {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return shares.assign(world=kind, seed=seed)[COLUMNS]


def main(seeds: tuple[int, ...]) -> None:
    """Run the worlds, two at a time; print and write the table."""
    table = pd.concat(two_at_a_time(cell, list(product(ASSUMED, seeds))), ignore_index=True)
    (ROOT / "build").mkdir(exist_ok=True)
    table.round(4).to_csv(ROOT / "build" / "limits.csv", index=False)
    print(f"\nfilms to books: share of the oracle's lift on NDCG@10, mean of {len(seeds)} worlds\n")
    wide = table.pivot_table(index=["method", "items", "pairs"], columns="world", values="share", sort=False)
    print(wide.round(2).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS[:2])
    main(tuple(parser.parse_args().seeds))

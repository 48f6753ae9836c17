"""The gated table: every method and the oracle, in bent and linear worlds, five seeds each.

A seed draws the world, its users, the split and the training. ``make evidence`` does films to books;
``make evidence ALL=1`` all six directions. Prints the shares of the oracle's lift and writes build/evidence.csv, one
row per world, direction, method, seed and metric; ``tests/reference/evidence.csv`` is a copy of it.
"""

import argparse
import time
from functools import partial
from itertools import permutations, product
from pathlib import Path

import jax
import pandas as pd
from two_processes import two_at_a_time

from rec_transfer import evaluation, maps, synthetic
from rec_transfer.evaluation.splits import ColdStart, cold_start
from rec_transfer.keys import key_for, named_keys, once_per_key
from rec_transfer.maps import distributions, kernels, linear, networks, transport
from rec_transfer.methods import baselines, ensembles, transfer
from rec_transfer.methods.gaussian_process import fit_gaussian_process
from rec_transfer.methods.shared_latents import fit_shared_latents
from rec_transfer.models.factor_model import domain_factor_models
from rec_transfer.models.vae import VAEConfig
from rec_transfer.synthetic import oracle

ROOT = Path(__file__).resolve().parent.parent
WORLDS = {
    "bent": {"bend": 1.0},
    "linear": {"bend": 0.0},
    "two-layer decoder": {"bend": 1.0, "decoder": "two-layer"},
    "overlap by taste": {"bend": 1.0, "overlap_taste": 1.0},
}
SEEDS = (200, 201, 202, 203, 204)  # of what was looked at before, and for what, docs/lab_notes.md keeps the list
METRICS = ("NDCG@10", "Recall@20")
COLUMNS = ["world", "source", "target", "method", "seed", "metric", "value", "low", "high", "share"]


def ladder(world: synthetic.World | None) -> tuple[dict, dict]:
    """Every rung, lowest first, and the ceilings, which are shown target clicks; the oracle's rungs need the world."""
    vaes = transfer.domain_vaes(VAEConfig())
    factor_models = domain_factor_models()
    both = {
        "Gaussian process": once_per_key(partial(fit_gaussian_process, factor_models=factor_models)),
        "shared + private latents": once_per_key(partial(fit_shared_latents, factor_models=factor_models)),
    }
    rungs = {
        "random": evaluation.fit_random,
        "popularity": evaluation.fit_popularity,
        "item cosine": baselines.fit_item_cosine,
        "ridge": baselines.fit_ridge_counts,
        "EASE": baselines.fit_ease,
        "EMCDR": baselines.fit_emcdr,
        "VAE, unknown user": transfer.unknown_user(vaes),
    }
    rungs |= transfer.with_maps(
        {
            "VAE + Wasserstein-2, no pairs": transport.fit_wasserstein_map,
            "VAE + CORAL, no pairs": transport.fit_coral_map,
            "VAE + MMD": distributions.fit_mmd_map,
            "VAE + adversary": distributions.fit_adversarial_map,
            "VAE + Procrustes": linear.fit_procrustes_map,
            "VAE + CCA": linear.fit_cca_map,
            "VAE + ridge map": maps.fit_ridge_map,
            "VAE + weighted map": linear.fit_weighted_map,
            "VAE + kernel ridge": kernels.fit_kernel_ridge_map,
            "VAE + process map": kernels.fit_gaussian_process_map,
            "VAE + MLP map": maps.fit_mlp_map,
            "VAE + contrastive map": networks.fit_contrastive_map,
            "VAE + bridge": networks.fit_bridge_map,
        },
        vaes=vaes,
    )
    rungs |= both | {"shared latents + process": ensembles.averaged(both)}
    rungs |= oracle.with_oracle(world) if world is not None else {}
    return rungs, {"reference: own history": transfer.same_user(vaes)}


def platform_of(kind: str, seed: int) -> tuple[synthetic.World, ColdStart]:
    """Return a world of one kind and its users, split."""
    keys = named_keys(jax.random.key(seed), "world", "population", "split")
    world = synthetic.make_world(synthetic.WorldConfig(**WORLDS[kind]), key=keys["world"])
    people = synthetic.sample_population(world, key=keys["population"])
    hidden = people.users[people.roles == "test"]
    return world, cold_start(people.interactions, test_users=hidden, key=keys["split"])


def cell(kind: str, seed: int, directions) -> pd.DataFrame:
    """The value of every test user in one world, by direction and method."""
    start = time.perf_counter()
    train_key = key_for(jax.random.key(seed), "train")
    world, platform = platform_of(kind, seed)
    (methods, ceilings), parts = ladder(world), []
    measures = {name: evaluation.METRICS[name] for name in METRICS}
    for source, target in directions:
        split = platform.direction(source, target)
        values = evaluation.evaluate(methods, split, keys=train_key[None], measures=measures, ceilings=ceilings)
        parts.append(values.assign(kind=kind, source=source, target=target, world=seed))
    print(f"{kind} {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return pd.concat(parts, ignore_index=True)


def tables(values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the CSV, and the mean share over seeds with its interval."""
    key, rows, shares = jax.random.key(0), [], []
    for (kind, source, target), part in values.groupby(["kind", "source", "target"], sort=False):
        for metric in METRICS:
            top = f"oracle: {metric}"
            for seed, one in part.groupby("world"):
                table = evaluation.summarise(one[one.metric == metric], key=key).rename(columns={"mean": "value"})
                share = evaluation.share_of_lift(one, ceiling=top, metric=metric, key=key).set_index("method").share
                where = {"world": kind, "source": source, "target": target, "seed": seed}
                rows.append(table.assign(**where, share=table.method.map(share)))
            mean = evaluation.share_of_lift(part, ceiling=top, metric=metric, key=key)
            shares.append(mean.assign(world=kind, source=source, target=target, metric=metric))
    return pd.concat(rows, ignore_index=True)[COLUMNS], pd.concat(shares, ignore_index=True)


def main(everything: bool, seeds: tuple[int, ...], name: str) -> None:
    """Run the cells, two at a time; print and write the tables."""
    start = time.perf_counter()
    domains = synthetic.WorldConfig().domains
    directions = list(permutations(domains, 2)) if everything else [domains[:2]]
    cells = list(product(WORLDS, seeds))
    pd.set_option("display.width", 200, "display.max_columns", None)
    values = pd.concat(two_at_a_time(partial(cell, directions=directions), cells), ignore_index=True)
    rows, shares = tables(values)
    (ROOT / "build").mkdir(exist_ok=True)
    rows.round(5).to_csv(ROOT / "build" / name, index=False)
    for (source, target), part in shares.groupby(["source", "target"], sort=False):
        shown = part.assign(text=[f"{s:.2f} [{a:.2f}, {b:.2f}]" for s, a, b in part[["share", "low", "high"]].values])
        print(f"\n{source} to {target}: share of the oracle's lift, mean of {len(seeds)} worlds, 95 % interval\n")
        print(shown.pivot(index="method", columns=["metric", "world"], values="text").loc[list(part.method.unique())])
    print(f"\n{len(rows)} rows in build/{name}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="all six directions, not films to books alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="other worlds, while trying something")
    parser.add_argument("--name", default="evidence.csv", help="file under build/")
    chosen = parser.parse_args()
    main(chosen.all, tuple(chosen.seeds), chosen.name)

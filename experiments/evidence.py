"""The gated table: every method and the oracle, in bent and linear worlds, five seeds each.

A third kind of world contradicts what all methods assume, for those that claims rest on: its overlapping users are no
random sample of users. Methods with a wrong number of latent dimensions stand beside the others.

A seed draws the world, its users, the split and the training. ``make evidence`` does films to books;
``make evidence ALL=1`` all six directions. Prints the shares of the oracle's lift and writes build/evidence.csv, one
row per world, direction, method, seed and metric, with the setting that was chosen on the overlapping users; and
build/ablation.csv, films to books with one thing varied at a time (``ablation.py``). ``tests/reference/`` keeps copies.
"""

import argparse
import time
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import ablation
import jax
import pandas as pd
from two_processes import two_at_a_time

from rec_transfer import evaluation, maps, synthetic
from rec_transfer.evaluation.splits import ColdStart, cold_start
from rec_transfer.evaluation.tuning import telling
from rec_transfer.keys import key_for, named_keys, once_per_key
from rec_transfer.maps import distributions, kernels, linear, networks, transport
from rec_transfer.methods import baselines, ensembles, transfer
from rec_transfer.methods.gaussian_process import fit_gaussian_process
from rec_transfer.methods.shared_latents import fit_shared_latents
from rec_transfer.models.factor_model import domain_factor_models
from rec_transfer.models.vae import VAEConfig
from rec_transfer.synthetic import oracle
from rec_transfer.types import FitMethod, Split

ROOT = Path(__file__).resolve().parent.parent
WORLDS = {
    "bent": {"bend": 1.0},
    "linear": {"bend": 0.0},
    "overlap by taste": {"bend": 1.0, "overlap_taste": 1.0},
}
SEEDS = (200, 201, 202, 203, 204)  # of what was looked at before, and for what, docs/lab_notes.md keeps the list
METRICS = ("NDCG@10", "Recall@20")
COLUMNS = ["world", "source", "target", "method", "seed", "metric", "value", "low", "high", "share", "setting"]
WRONG_SIZES = (4, 16)  # latent dimensions where the world has 8
ASSUMED = ("bent", "linear")  # the kinds of world that every method is run in
FEWER = (  # and those that are run in the other kinds too
    "popularity", "item cosine", "ridge", "EASE", "EMCDR", "VAE + ridge map", "Gaussian process",
    "shared + private latents", "shared latents + process", "oracle: NDCG@10", "oracle: Recall@20",
)  # fmt: skip


class Ladder(NamedTuple):
    """Every rung, lowest first; the references, which are shown target clicks; and the ablation's lines."""

    rungs: dict[str, FitMethod]
    references: dict[str, FitMethod]
    lines: dict[tuple[str, str, str, str], FitMethod]


def ladder(world: synthetic.World | None) -> Ladder:
    """Return all methods, which share their models; the oracle's rungs need the world."""
    vaes, factor_models = transfer.domain_vaes(VAEConfig()), domain_factor_models()
    process = once_per_key(partial(fit_gaussian_process, factor_models=factor_models))
    starts = {
        f"start {n}": once_per_key(partial(fit_shared_latents, start=n, factor_models=factor_models)) for n in (0, 1)
    }
    twice = ensembles.averaged(starts)
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
    rungs |= {
        "Gaussian process": process,
        "shared + private latents": starts["start 0"],
        "shared latents, two starts": twice,
        "shared latents + process": ensembles.averaged({"process": process, "shared latents": twice}),
    }
    for size in WRONG_SIZES:
        wrong = transfer.domain_vaes(VAEConfig(latent=size))
        rungs |= transfer.with_maps({f"VAE + ridge map, {size} latents": maps.fit_ridge_map}, vaes=wrong)
        rungs[f"Gaussian process, {size} latents"] = partial(fit_gaussian_process, latent=size)
    rungs |= oracle.with_oracle(world) if world is not None else {}
    lines = ablation.lines(vaes, factor_models, process, starts["start 0"])
    return Ladder(rungs, {"reference: own history": transfer.same_user(vaes)}, lines)


def platform_of(kind: str, seed: int) -> tuple[synthetic.World, ColdStart]:
    """Return a world of one kind and its users, split."""
    keys = named_keys(jax.random.key(seed), "world", "population", "split")
    world = synthetic.make_world(synthetic.WorldConfig(**WORLDS[kind]), key=keys["world"])
    people = synthetic.sample_population(world, key=keys["population"])
    hidden = people.users[people.roles == "test"]
    return world, cold_start(people.interactions, test_users=hidden, key=keys["split"])


def cell(kind: str, seed: int, directions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The value of every test user in one world, by direction and method; and the ablation's lines there."""
    start = time.perf_counter()
    keys = {name: key_for(jax.random.key(seed), name) for name in ("train", "share")}
    world, platform = platform_of(kind, seed)
    (rungs, references, lines), parts, settings = ladder(world), [], {}
    if kind not in ASSUMED:
        rungs, references, lines = {name: rungs[name] for name in FEWER}, {}, {}
    rungs = {name: telling(fit, partial(settings.__setitem__, name)) for name, fit in rungs.items()}
    measures = {name: evaluation.METRICS[name] for name in METRICS}
    for source, target in directions:
        split = platform.direction(source, target)
        values = evaluation.evaluate(rungs, split, keys=keys["train"][None], measures=measures, ceilings=references)
        values["setting"] = values.method.map(settings).fillna("")
        parts.append(values.assign(kind=kind, source=source, target=target, world=seed))
    ends = parts[0][parts[0].method.isin(["popularity", "oracle: NDCG@10"])]
    varied = varied_lines(lines, ends, platform.direction(*directions[0]), keys).assign(world=kind, seed=seed)
    print(f"{kind} {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return pd.concat(parts, ignore_index=True), varied


def varied_lines(lines, ends: pd.DataFrame, split: Split, keys) -> pd.DataFrame:
    """The value and share of every line of the ablation; ``ends`` are the values of popularity and the oracle."""
    if not lines:
        return pd.DataFrame(columns=ablation.COLUMNS)
    names = {"\t".join(line): method for line, method in lines.items()}
    measures = {"NDCG@10": evaluation.METRICS["NDCG@10"]}
    values = evaluation.evaluate(names, split, keys=keys["train"][None], measures=measures)
    shares = evaluation.share_of_lift(pd.concat([ends[values.columns], values]), key=keys["share"])
    shares, means = shares.set_index("method").share, values.groupby("method").value.mean()
    rows = [(*name.split("\t"), means[name], shares[name]) for name in names]
    return pd.DataFrame(rows, columns=[*ablation.LINE, "value", "share"])


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
                setting = one.groupby("method").setting.first()
                rows.append(table.assign(**where, share=table.method.map(share), setting=table.method.map(setting)))
            mean = evaluation.share_of_lift(part, ceiling=top, metric=metric, key=key)
            shares.append(mean.assign(world=kind, source=source, target=target, metric=metric))
    return pd.concat(rows, ignore_index=True)[COLUMNS], pd.concat(shares, ignore_index=True)


def main(everything: bool, kinds: tuple[str, ...], seeds: tuple[int, ...], name: str) -> None:
    """Run the cells, two at a time; print and write the tables."""
    start = time.perf_counter()
    domains = synthetic.WorldConfig().domains
    directions = list(permutations(domains, 2)) if everything else [domains[:2]]
    cells = list(product(kinds, seeds))
    pd.set_option("display.width", 200, "display.max_columns", None)
    values, varied = zip(*two_at_a_time(partial(cell, directions=directions), cells), strict=True)
    rows, shares = tables(pd.concat(values, ignore_index=True))
    varied = pd.concat(varied, ignore_index=True)[ablation.COLUMNS]
    (ROOT / "build").mkdir(exist_ok=True)
    rows.round(5).to_csv(ROOT / "build" / f"evidence{name}.csv", index=False)
    varied.round(5).to_csv(ROOT / "build" / f"ablation{name}.csv", index=False)
    for (source, target), part in shares.groupby(["source", "target"], sort=False):
        shown = part.assign(text=[f"{s:.2f} [{a:.2f}, {b:.2f}]" for s, a, b in part[["share", "low", "high"]].values])
        print(f"\n{source} to {target}: share of the oracle's lift, mean of {len(seeds)} worlds, 95 % interval\n")
        print(shown.pivot(index="method", columns=["metric", "world"], values="text").loc[list(part.method.unique())])
    print("\nfilms to books, one thing varied at a time: share of the oracle's lift, mean over worlds\n")
    print(varied.pivot_table(index=ablation.LINE, columns="world", values="share", sort=False).round(2).to_string())
    if len(seeds) > 1:
        print("\ndifference of two shares, paired by world, 95 % interval of Student's t over worlds\n")
        print(ablation.contrasts(varied).round(3).to_string(index=False))
    print(f"\n{len(rows)} rows in build/evidence{name}.csv, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="all six directions, not films to books alone")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=tuple(WORLDS), help="kinds of world")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="other worlds, while trying something")
    parser.add_argument("--name", default="", help="what the names of the files under build/ end in")
    chosen = parser.parse_args()
    main(chosen.all, tuple(chosen.worlds), tuple(chosen.seeds), chosen.name)

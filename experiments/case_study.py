"""The committed platform: the oracle, and the best method of the ladder, for the new users of notebook 12.

Both take longer than a notebook should. ``make platform`` writes build/platform.csv: NDCG@10 of every new user, by
direction and method, the best method's averaged over five training keys; ``tests/reference/platform.csv`` is a copy.
"""

import sys
import time
from functools import partial
from pathlib import Path

import jax
import pandas as pd
from two_processes import two_at_a_time

from rec_transfer import evaluation
from rec_transfer.data import from_events, read_log
from rec_transfer.evaluation.splits import cold_start
from rec_transfer.methods import ensembles
from rec_transfer.methods.gaussian_process import fit_gaussian_process
from rec_transfer.methods.shared_latents import fit_shared_latents
from rec_transfer.models.factor_model import domain_factor_models
from rec_transfer.synthetic import oracle

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
DIRECTIONS = (("films", "books"), ("films", "music"), ("books", "music"))
SPLIT_KEY, TRAIN_KEY, SEEDS, LATENT = 0, 12, 5, 6  # as in notebook 12
BEST = "shared latents + process"
COLUMNS = ["source", "target", "method", "user", "value"]


def best_method():
    """Return the process averaged with two starts of the shared latents, all between the same factor models."""
    options = {"latent": LATENT, "factor_models": domain_factor_models(LATENT)}
    starts = {f"start {n}": partial(fit_shared_latents, start=n, **options) for n in (0, 1)}
    process = partial(fit_gaussian_process, **options)
    return ensembles.averaged({"process": process, "shared latents": ensembles.averaged(starts)})


def direction(source: str, target: str) -> pd.DataFrame:
    """The NDCG@10 of every new user in one direction."""
    from make_data import world_of

    start = time.perf_counter()
    log = read_log(ROOT / "data" / "user_behavior_data.csv", ROOT / "data" / "all_items.csv")
    platform = cold_start(from_events(log.coded()), test_users=250, key=jax.random.key(SPLIT_KEY))
    split, keys = platform.direction(source, target), jax.random.split(jax.random.key(TRAIN_KEY), SEEDS)
    measures = {"NDCG@10": evaluation.METRICS["NDCG@10"]}
    top = {"oracle": oracle.with_oracle(world_of())["oracle: NDCG@10"]}
    values = [
        evaluation.evaluate({BEST: best_method()}, split, keys=keys, measures=measures),
        evaluation.evaluate(top, split, keys=keys[:1], measures=measures),
    ]
    mean = pd.concat(values).groupby(["method", "user"], sort=False).value.mean().reset_index()
    print(f"{source} to {target}: {time.perf_counter() - start:.0f} s", flush=True)
    return mean.assign(source=source, target=target)[COLUMNS]


if __name__ == "__main__":
    table = pd.concat(two_at_a_time(direction, DIRECTIONS), ignore_index=True)
    (ROOT / "build").mkdir(exist_ok=True)
    table.round(5).to_csv(ROOT / "build" / "platform.csv", index=False)
    print(table.groupby(["source", "target", "method"], sort=False).value.mean().round(3).to_string())

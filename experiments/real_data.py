"""The papers' protocols on real people: one table per data set, with and without the leaks, tuned without test.

``make real-data`` does the pairs at hand; ``make real-data FOLDER=dir SOURCE=cloth TARGET=sport SHARED=9828`` any pair
in the format of CDRIB. Prints the tables and writes build/real_data.csv. Settings are chosen on training users whose
target rows are hidden (``selected: train``), and once more on the published valid rows, as the papers did
(``valid``); test is looked at by what was chosen, and decides nothing. ``tests/reference/real_data.csv`` keeps the
means over seeds.
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from ladder import OURS, VAE_RUNG, Chosen, choose
from two_processes import two_at_a_time

from rec_transfer import evaluation
from rec_transfer.data.datasets import fetch
from rec_transfer.data.formats import read_cdrib_pair, read_ratings
from rec_transfer.keys import key_for, named_keys
from rec_transfer.methods import standardised
from rec_transfer.types import Split

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("train.txt", "valid.txt", "test.txt")
SEEDS = 5
SCORES = 12_000_000  # users x items that settings are chosen by
HIDDEN = 600  # training users made cold for it, at most
COLD_MEASURES = {name: evaluation.METRICS[name] for name in ("MRR", "NDCG@10", "HR@10")}  # those of the papers
WARM_MEASURES = {name: evaluation.METRICS[name] for name in ("NDCG@10", "HR@10")}
COLUMNS = [
    "dataset", "source", "target", "leaks", "protocol", "selected", "method", "seed", "metric", "value", "low", "high",
]  # fmt: skip

PUBLISHED = pd.DataFrame(
    [
        ("amazon-cloth-sport", "sport", "cloth", "SA-VAE", 4.43, 4.59, 7.21),
        ("amazon-cloth-sport", "sport", "cloth", "CDRIB", 6.29, 6.81, 12.19),
        ("amazon-cloth-sport", "cloth", "sport", "SA-VAE", 3.26, 3.72, 7.51),
        ("amazon-cloth-sport", "cloth", "sport", "CDRIB", 5.59, 6.22, 12.04),
        ("douban-book-music", "music", "book", "NeuMF", np.nan, 22.26, 39.08),
        ("douban-book-music", "music", "book", "DMF", np.nan, 23.62, 39.17),
        ("douban-book-music", "music", "book", "GA-MTCDR-P (films and texts too)", np.nan, 31.58, 49.03),
        ("douban-book-music", "book", "music", "NeuMF", np.nan, 17.91, 32.42),
        ("douban-book-music", "book", "music", "DMF", np.nan, 19.26, 32.67),
        ("douban-book-music", "book", "music", "GA-MTCDR-P (films and texts too)", np.nan, 25.98, 43.77),
    ],
    columns=["dataset", "source", "target", "method", "MRR", "NDCG@10", "HR@10"],
)


class Cell(NamedTuple):
    """One direction of one data set in one state of leaks.

    ``chosen_on`` are the experiments that settings are chosen by, by the name of the selection.
    """

    where: dict
    test: Split
    chosen_on: dict[str, Split]
    measures: dict
    negatives: int
    warm: bool
    keys: dict


def report(cell: Cell, chosen: Chosen) -> pd.DataFrame:
    """Measure every rung and the mixture on test: one line per method, seed, ranking and metric."""
    seeds = [key_for(cell.keys["test"], str(seed)) for seed in range(SEEDS)]
    drawn = [evaluation.draw_negatives(cell.test, cell.negatives, key=key) for key in seeds]
    lines = []

    def scores_of(method, key):
        train, history = cell.test.train, cell.test.history
        return evaluation.all_scores(method(train, key=key), history, len(train.target.items))

    def add(name, seed, scores):
        options = {"key": seeds[seed], "drawn": drawn[seed], "measures": cell.measures, "per": "row"}
        values = evaluation.measure(scores, cell.test, **options)
        table = evaluation.summarise(values, key=cell.keys["interval"]).rename(columns={"mean": "value"})
        lines.append(table.assign(method=name, seed=seed))

    # One method's scores are there at a time; those that no training seed changes meet every seed's negatives.
    for name, method in chosen.rungs.items():
        scores = None
        for seed, key in enumerate(seeds):
            if scores is None or name == VAE_RUNG:
                scores = scores_of(method, key)
            add(name, seed, scores)
    fixed = np.zeros(cell.test.hidden.shape, np.float32)
    for name, (method, weight) in chosen.mixture.items():
        if name != VAE_RUNG:
            fixed += np.float32(weight) * standardised(scores_of(method, seeds[0]))
    for seed, key in enumerate(seeds):
        mixed = fixed
        if VAE_RUNG in chosen.mixture:
            method, weight = chosen.mixture[VAE_RUNG]
            mixed = fixed + np.float32(weight) * standardised(scores_of(method, key))
        add(OURS, seed, mixed)
    table = pd.concat(lines, ignore_index=True)
    table["protocol"] = table.ranking.map({"sampled": f"sampled {cell.negatives}", "full": "full"})
    return table


def keys_of(source: str, target: str) -> dict:
    return named_keys(key_for(jax.random.key(0), f"{source} {target}"), "hide", "choose", "test", "interval")


def cdrib_cells(folder, source: str, target: str, shared: int, dataset: str):
    """One direction of a pair in the CDRIB format, without the leaking source items and with them.

    The papers choose on the valid rows, leaks and all: that column is for the data as they are.
    """
    keys = keys_of(source, target)
    pair = read_cdrib_pair(folder, source, target, shared=shared)
    most = max(1, SCORES // len(pair.train.target.items))
    number = min(HIDDEN, most, len(pair.train.overlapping_users) // 4)
    hidden = evaluation.hide_users(pair.train, number, key=keys["hide"])
    valid = evaluation.some_users(pair.valid, most, key=keys["hide"])
    negatives = min(999, *(evaluation.most_negatives(split) for split in (hidden, valid, pair.test)))
    found = evaluation.identical_audiences(*pair.whole)
    where = {"dataset": dataset, "source": source, "target": target}
    options = {"measures": COLD_MEASURES, "negatives": negatives, "warm": False, "keys": keys}
    clean = {"train": evaluation.without_leaks(hidden, found).split}
    yield Cell(where | {"leaks": "without"}, evaluation.without_leaks(pair.test, found).split, clean, **options)
    yield Cell(where | {"leaks": "with"}, pair.test, {"train": hidden, "valid": valid}, **options)


def douban_cells(folder, source: str, target: str, dataset: str):
    """One direction of Douban, which has no leaking pair and no published valid rows."""
    keys = keys_of(source, target)
    known, new = (read_ratings(Path(folder) / f"douban_{name}" / "ratings.dat", name) for name in (source, target))
    leaks = len(evaluation.identical_audiences(known.interactions, new.interactions))
    number = min(HIDDEN, int((np.bincount(new.user) >= 3).sum()))  # of two rows left to train on one can be hidden
    hidden = evaluation.leave_last_out(known, new, tuning_users=number, key=keys["hide"])
    where = {"dataset": dataset, "source": source, "target": target}
    where["leaks"] = "none found" if leaks == 0 else f"{leaks} pairs, kept"
    test = evaluation.leave_last_out(known, new)
    yield Cell(where, test, {"train": hidden}, WARM_MEASURES, 99, warm=True, keys=keys)


def work(task: dict) -> tuple[pd.DataFrame, list, str]:
    """One process's share: one direction of one data set."""
    start, parts, log = time.perf_counter(), [], []
    cells = cdrib_cells(**task) if "shared" in task else douban_cells(**task)
    for cell in cells:
        for selected, split in cell.chosen_on.items():
            key = key_for(cell.keys["test"], "0")  # on the whole of train, the first seed's VAE serves both
            chosen = choose(split, cell.negatives, cell.warm, fit_key=key, key=cell.keys["choose"])
            log += [(*cell.where.values(), selected, *line) for line in chosen.log]
            parts.append(report(cell, chosen).assign(**cell.where, selected=selected))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    took = (
        f"{task['dataset']}, {task['source']} to {task['target']}: {time.perf_counter() - start:.0f} s, {peak:.1f} GB"
    )
    return pd.concat(parts, ignore_index=True)[COLUMNS], log, took


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows averaged over seeds: what ``tests/reference/real_data.csv`` keeps."""
    by = [name for name in COLUMNS if name not in ("seed", "value", "low", "high")]
    return rows.groupby(by, sort=False)[["value", "low", "high"]].mean().round(5).reset_index()


def show(rows: pd.DataFrame) -> None:
    """One table per direction: means over seeds in percent, the interval of sampled NDCG@10, the published rows."""
    for (dataset, source, target), part in rows.groupby(["dataset", "source", "target"], sort=False):
        print(f"\n{dataset}, {source} to {target}, in percent, mean of {SEEDS} seeds")
        means = part.groupby(["leaks", "selected", "method", "protocol", "metric"], sort=False)[
            ["value", "low", "high"]
        ]
        wide = (100 * means.mean()).round(2).reset_index()
        table = wide.pivot(index=["leaks", "selected", "method"], columns=["protocol", "metric"], values="value")
        order = wide.set_index(["leaks", "selected", "method"]).index.unique()
        main = wide[(wide.metric == "NDCG@10") & wide.protocol.str.startswith("sampled")]
        main = main.set_index(["leaks", "selected", "method"])
        table = table.loc[order]
        table["sampled NDCG@10, 95 %", ""] = [f"[{main.low[name]:.2f}, {main.high[name]:.2f}]" for name in order]
        print(table.to_string())
        printed = PUBLISHED[(PUBLISHED.dataset == dataset) & (PUBLISHED.target == target)]
        if len(printed):
            print("as published (sampled, leaks not audited):")
            print(printed.drop(columns=["dataset", "source", "target"]).to_string(index=False))


def files_of(name: str) -> Path:
    """The folder of a known data set; without files and without a connection the program ends, saying so."""
    try:
        return fetch(name)
    except (OSError, ValueError) as error:  # no connection, a file missing or damaged
        sys.exit(f"{name}: got {error}; expected its files in $REC_TRANSFER_DATA/{name}, or a connection to fetch them")


def tasks_of(options) -> list[dict]:
    """One task per direction: of the pair in ``--folder``, or of the data sets known.

    Raises:
        SystemExit: no such folder, a file that the names stand for missing, or damaged ones.
    """
    if options.folder:
        names = options.source, options.target
        for first, second in (names, names[::-1]):
            missing = [part for part in PARTS if not (options.folder / f"{first}_{second}" / part).is_file()]
            if missing:
                there = sorted(path.name for path in options.folder.glob("*_*")) if options.folder.is_dir() else "none"
                sys.exit(
                    f"FOLDER={options.folder}: got no {first}_{second}/{missing[0]}, expected <target>_<source>/ and "
                    f"<source>_<target>/ with {', '.join(PARTS)} (SOURCE={names[0]}, TARGET={names[1]}; folders "
                    f"there: {there})"
                )
        try:  # the loader's own words, without a trace
            read_cdrib_pair(options.folder, *names, shared=options.shared)
        except ValueError as error:
            sys.exit(f"FOLDER={options.folder} SHARED={options.shared}: {error}")
        pair = {"folder": options.folder, "dataset": "-".join(names), "shared": options.shared}
        return [pair | {"source": one, "target": other} for one, other in (names, names[::-1])]
    amazon, douban = "amazon-cloth-sport", "douban-book-music"
    pair = {"folder": files_of(amazon), "dataset": amazon, "shared": 9828}
    tasks = [pair | {"source": one, "target": other} for one, other in (("sport", "cloth"), ("cloth", "sport"))]
    ratings = {"folder": files_of(douban), "dataset": douban}
    return tasks + [ratings | {"source": one, "target": other} for one, other in (("music", "book"), ("book", "music"))]


def main(options) -> None:
    start = time.perf_counter()
    tasks = tasks_of(options)
    results = two_at_a_time(work, [(task,) for task in tasks])
    rows = pd.concat([rows for rows, _, _ in results], ignore_index=True)
    options.out.parent.mkdir(exist_ok=True)
    rows.round(5).to_csv(options.out, index=False)
    means(rows).to_csv(options.out.with_name(f"{options.out.stem}_means.csv"), index=False)
    show(rows)
    print("\nchosen, with the NDCG@10 (sampled, in percent) that it was chosen by:")
    for _, log, _ in results:
        for *where, value in log:
            print("  " + " | ".join(where) + f" | {100 * value:.2f}")
    for _, _, took in results:
        print(took)
    print(f"{len(rows)} rows in {options.out}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="holds <target>_<source>/{train,valid,test}.txt; the data sets known if left out"
    )
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--shared", type=int, help="ids below it are one person in both domains (n_common)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "real_data.csv", help="where the rows go")
    given = parser.parse_args()
    if given.folder and None in (given.source, given.target, given.shared):
        parser.error("--folder needs --source, --target and --shared")
    main(given)

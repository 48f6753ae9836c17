"""The papers' protocols on real people: one table per data set, with and without the leaks, tuned without test.

``make real-data`` does the pairs at hand; ``make real-data FOLDER=dir SOURCE=cloth TARGET=sport SHARED=9828`` any pair
in the format of CDRIB. Prints the tables and writes build/real_data.csv. Settings are chosen on training users whose
target rows are hidden (``selected on: train``), in a second column on the published valid rows, as the papers did
(``valid``); test is looked at once, by what was chosen.
"""

import argparse
import dataclasses
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from rec_transfer import audit, baselines, item_models, protocols, sparse_models
from rec_transfer.alignment import fit_ridge_map
from rec_transfer.datasets import fetch
from rec_transfer.keys import key_for, named_keys
from rec_transfer.loaders import read_cdrib_pair, read_ratings
from rec_transfer.memo import once_per_key
from rec_transfer.sparse_training import train_vae_sparse
from rec_transfer.transfer import domain_vaes, with_aligners
from rec_transfer.types import History
from rec_transfer.vae import VAEConfig

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 5
HIDDEN = 600  # training users made cold to choose settings by
COLUMNS = [
    "dataset", "source", "target", "leaks", "protocol", "selected", "method", "seed", "metric", "value", "low", "high",
]  # fmt: skip
VAE = VAEConfig(latent=32, hidden=64, epochs=8, anneal_epochs=4, learning_rate=5e-3, batch_size=500)
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)


def grids(warm: bool) -> dict:
    """Every tuned rung's candidates, a dozen each."""
    cosine = {
        f"{form.__name__}, popularity {popularity:g}": item_models.item_cosine(form, popularity)
        for form, popularity in product((item_models.clicked, item_models.damped), (0.1, 0.3, 1.0, 3.0))
    }
    penalised = {
        rung: {
            f"penalty {penalty:g}, popularity {popularity:g}": method(penalty, popularity)
            for penalty, popularity in product((3.0, 10.0, 30.0, 100.0), (0.0, 1.0, 10.0))
        }
        for rung, method in (("ridge + popularity", sparse_models.paired_ridge), ("EASE", sparse_models.paired_ease))
    }
    axes = {
        rung: {
            f"{factors} axes, popularity {popularity:g}": method(factors, popularity)
            for factors, popularity in product((16, 32, 64, 128, 256), (0.5, 0.75, 1.0))
        }
        for rung, method in (
            ("EMCDR (axes + map)", sparse_models.spectral_map),
            ("axes of both graphs", sparse_models.stacked_axes),
        )
    }
    if warm:  # ridge would learn to repeat the target history; EMCDR's map to itself is the one graph's axes
        cosine = {name: sparse_models.warm(method) for name, method in cosine.items()}
        return {"item cosine": cosine, "EASE": penalised["EASE"], "axes of both graphs": axes["axes of both graphs"]}
    return {"item cosine": cosine} | penalised | axes


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


class Cell:
    """One direction of one data set: what is learned from, what settings are chosen on, what is reported.

    A fitted method's scores of the users of a set of rows are computed once: every seed's negatives meet them.
    """

    def __init__(self, train, hidden, test, valid=None, *, measure, negatives, warm, vae, keys):
        self.train, self.seen, self.hidden, self.test, self.valid = train, *hidden, test, valid
        self.measure, self.negatives, self.warm, self.keys = measure, negatives, warm, keys
        self.vaes = domain_vaes(vae, train=partial(train_vae_sparse, precision="float32"))
        self.drawn = {}

    def values(self, fit, train, held, *, key, rankings=protocols.RANKINGS, scores=None):
        """Rows of one fitted method, met with the negatives of ``key``; ``scores`` where they are known already."""
        name = id(held), jax.random.key_data(key).tobytes()
        if name not in self.drawn:
            self.drawn[name] = protocols.draw_negatives(held, self.negatives, key=key)
        scorer = fit(train, key=key) if scores is None else Remembered(scores)
        return self.measure(scorer, held, key=key, rankings=rankings, drawn=self.drawn[name])

    def choose(self, candidates, train, held) -> str:
        """The candidate with the best sampled NDCG@10 on rows held out of training."""
        means = {}
        for name, fit in candidates.items():
            values = self.values(fit, train, held, key=self.keys["choose"], rankings=("sampled",))
            means[name] = values[values.metric == "NDCG@10"].value.mean()
        return max(means, key=means.get)


class Remembered:
    """Scores of all held-out users, dealt out in the chunks they are asked for in."""

    def __init__(self, scores):
        self.scores, self.next = scores, 0

    def __call__(self, history):
        first, self.next = self.next, self.next + history.source.shape[0]
        return self.scores[first : self.next]


def rungs(cell: Cell, selected: str, log) -> dict:
    """Every rung with the settings that one kind of held-out rows chooses; what was chosen goes to ``log``."""
    train, held = {"train": (cell.seen, cell.hidden), "valid": (cell.train, cell.valid)}[selected]
    tuned = {}
    for rung, candidates in grids(cell.warm).items():
        name = cell.choose(candidates, train, held)
        log.append((selected, rung, name))
        tuned[rung] = candidates[name]
    vae = once_per_key(with_aligners({"VAE + ridge map": fit_ridge_map}, vaes=cell.vaes)["VAE + ridge map"])
    tuned["VAE + ridge map"] = vae
    parts = ("axes of both graphs", "EASE") if cell.warm else ("EMCDR (axes + map)", "ridge + popularity")
    methods = {name: once_per_key(tuned[name]) for name in parts} | {"VAE + ridge map": vae}
    mixtures = {
        f"{', '.join(f'{name} {weight:g}' for name, weight in zip(methods, weights, strict=True))}": (
            sparse_models.mixture(methods, dict(zip(methods, weights, strict=True)))
        )
        for weights in product((1.0,), WEIGHTS, (0.0, 0.3, 1.0))
    }
    name = cell.choose(mixtures, train, held)
    log.append((selected, "maps + memory", name))
    return {"popularity": baselines.fit_popularity} | tuned | {"maps + memory": mixtures[name]}


RANDOM = ("VAE + ridge map", "maps + memory")  # the others do not depend on the training seed


def report(cell: Cell, where: dict, log) -> pd.DataFrame:
    """Every rung's rows on test, as lines of the table: one per selection, seed, ranking and metric."""
    lines = []
    for selected in ("train", "valid") if cell.valid is not None else ("train",):
        chosen: list = []
        methods = rungs(cell, selected, chosen)
        log.extend((*where.values(), *line) for line in chosen)
        for name, fit in methods.items():
            scores = None
            for seed in range(SEEDS):
                key = key_for(cell.keys["test"], str(seed))
                if scores is None or name in RANDOM:
                    scorer = fit(cell.train, key=key)
                    scores = np.asarray(scorer(History(cell.test.source, cell.test.target)), np.float32)
                values = cell.values(None, cell.train, cell.test, key=key, scores=scores)
                table = protocols.summarise_rows(values, key=cell.keys["interval"]).rename(columns={"mean": "value"})
                lines.append(table.assign(**where, method=name, seed=seed, selected=selected))
    table = pd.concat(lines, ignore_index=True)
    table["protocol"] = table.ranking.map({"sampled": f"sampled {cell.negatives}", "full": "full"})
    return table[COLUMNS]


def cdrib_cells(folder, names, shared, leaks: bool, dataset: str):
    """Both directions of a pair in the CDRIB format, with or without the leaking source items."""
    for source, target in (names, names[::-1]):
        keys = named_keys(key_for(jax.random.key(0), f"{source} {target}"), "hide", "choose", "test", "interval")
        pair = read_cdrib_pair(folder, source, target, shared=shared)
        train, valid, test = pair.train, pair.valid, pair.test
        found = audit.identical_audiences(*pair.whole)
        if not leaks:
            clean = audit.without_leaks(train, test, found)
            train, test, valid = clean.train, clean.held, audit.without_leaks(train, valid, found).held
        hidden = protocols.hide_users(train, min(HIDDEN, len(train.overlapping_users) // 4), key=keys["hide"])
        cell = Cell(
            train, hidden, test, valid,
            measure=protocols.cold_start_rows, negatives=999, warm=False, vae=VAE, keys=keys,
        )  # fmt: skip
        yield cell, {"dataset": dataset, "source": source, "target": target, "leaks": "with" if leaks else "without"}


def douban_cells(folder):
    """Both directions of Douban, which has no leaking pair."""
    domains = {name: read_ratings(Path(folder) / f"douban_{name}" / "ratings.dat", name) for name in ("book", "music")}
    leaks = len(audit.identical_audiences(*(side.interactions for side in domains.values())))
    for source, target in (("music", "book"), ("book", "music")):
        keys = named_keys(key_for(jax.random.key(0), f"{source} {target}"), "hide", "choose", "test", "interval")
        hidden = protocols.leave_last_out(domains[source], domains[target], tuning_users=HIDDEN, key=keys["hide"])
        train, test = protocols.leave_last_out(domains[source], domains[target])
        vae = dataclasses.replace(VAE, epochs=60, anneal_epochs=20, batch_size=200, learning_rate=2e-3)
        cell = Cell(train, hidden, test, measure=protocols.leave_last_rows, negatives=99, warm=True, vae=vae, keys=keys)
        where = {"dataset": "douban-book-music", "source": source, "target": target}
        yield cell, where | {"leaks": "none found" if leaks == 0 else f"{leaks} pairs"}


def work(task) -> tuple[pd.DataFrame, list, str]:
    """One process's share: the cells of one data set in one state of leaks."""
    cells = douban_cells(task["folder"]) if task["dataset"] == "douban-book-music" else cdrib_cells(**task)
    start, parts, log = time.perf_counter(), [], []
    for cell, where in cells:
        parts.append(report(cell, where, log))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    name = f"{task['dataset']}, leaks {where['leaks']}"
    return pd.concat(parts, ignore_index=True), log, f"{name}: {time.perf_counter() - start:.0f} s, {peak:.1f} GB"


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
        table["sampled NDCG@10, 95 %"] = [f"[{main.low[name]:.2f}, {main.high[name]:.2f}]" for name in order]
        print(table.to_string())
        printed = PUBLISHED[(PUBLISHED.dataset == dataset) & (PUBLISHED.target == target)]
        if len(printed):
            print("as published (sampled, leaks not audited):")
            print(printed.drop(columns=["dataset", "source", "target"]).to_string(index=False))


def main(options) -> None:
    start = time.perf_counter()
    if options.folder:
        names = options.source, options.target
        pairs = [{"dataset": "-".join(names), "folder": options.folder, "names": names, "shared": options.shared}]
        tasks = [pair | {"leaks": leaks} for pair in pairs for leaks in (False, True)]
    else:
        name = "amazon-cloth-sport"
        pair = {"dataset": name, "folder": fetch(name), "names": ("cloth", "sport"), "shared": 9828}
        tasks = [pair | {"leaks": leaks} for leaks in (False, True)]
        tasks.append({"dataset": "douban-book-music", "folder": fetch("douban-book-music")})
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as workers:
        results = list(workers.map(work, tasks))
    rows = pd.concat([rows for rows, _, _ in results], ignore_index=True)
    (ROOT / "build").mkdir(exist_ok=True)
    rows.round(5).to_csv(ROOT / "build" / "real_data.csv", index=False)
    show(rows)
    print("\nchosen:")
    for _, log, _ in results:
        for line in log:
            print("  " + " | ".join(map(str, line)))
    for _, _, took in results:
        print(took)
    print(f"{len(rows)} rows in build/real_data.csv, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", help="holds <target>_<source>/{train,valid,test}.txt; the data sets known if left out"
    )
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--shared", type=int, help="ids below it are one person in both domains (n_common)")
    chosen = parser.parse_args()
    if chosen.folder and None in (chosen.source, chosen.target, chosen.shared):
        parser.error("--folder needs --source, --target and --shared")
    main(chosen)

"""The same model on the same clicks, by this package and by what people would use instead: ``make bench``.

Every implementation lives in a process of its own and gets one epoch in turn; only rounds with quiet neighbours count.
Prints tables, writes build/bench.json, and exits with 1 where a gate of ``gates.py`` falls short.

    .venv/bin/python benchmarks/bench.py [--sizes S M L10] [--parts epochs growth whole log memory] [--rounds 5]
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import gates
from harness.clicks import HIDDEN, LATENT, SIZES, Size, load
from harness.processes import BUILD, HERE, Worker, available, counted, rounds_of, whole
from harness.rounds import Ratio, Round, growth, median, quiet, ratio, verdict

PLAIN, OURS = "with_torch:dense-float32", {"float32": "ours:float32", "bfloat16": "ours:bfloat16"}
STRONGEST = {"float32": "with_torch:sparse-float32", "bfloat16": "with_torch:sparse-bfloat16"}
EPOCHS = 20
GROWTH = {
    "users": [Size(users, 2_000) for users in (5_000, 10_000, 20_000)],
    "items": [Size(10_000, items) for items in (1_000, 2_000, 4_000)],
    "clicks": [Size(10_000, 2_000, clicks) for clicks in (30, 60, 120)],
}


def implementations(libraries: list[str], size: str, bfloat16: bool) -> list[str]:
    """Who takes part; RecBole and Cornac are no quicker than the plain loop, and left out of the largest size."""
    names = [PLAIN, *STRONGEST.values()] if "torch" in libraries else []
    if size != "L10":
        names += [f"with_{library}:" for library in ("recbole", "cornac") if library in libraries]
    names += OURS.values()
    return [name for name in names if bfloat16 or "bfloat16" not in name]


def operations(size: Size, clicks: int) -> float:
    """Floating-point operations of an epoch as ours does them: three products a dense layer, two with the rows.

    Of the rows, dropout leaves half.
    """
    dense = 3 * HIDDEN * LATENT + HIDDEN * size.items  # mean, log-variance, decoder; logits
    return 6.0 * size.users * dense + 2.0 * clicks * HIDDEN


def epochs(label: str, names: list[str], wanted: int) -> dict:
    """Losses before and after the first epoch, then rounds of one epoch each, ceilings, memory, and ranking."""
    size = SIZES[label]
    clicks = load(BUILD / "bench-data", size).train.nnz
    workers = [Worker(name, size) for name in names]
    same = [worker for worker in workers if worker.name.split(":")[0] in ("ours", "with_torch")]
    before = {worker.name: worker.ask("loss")["value"] for worker in same}
    for worker in workers:
        worker.ask("epoch")
    after = {worker.name: worker.ask("loss")["value"] for worker in same}
    times = 8 if label == "S" else 1
    rounds, enough = counted(rounds_of(workers, "epoch", wanted, times))
    result = {
        "size": size,
        "rounds": len(rounds),
        "quiet": enough,
        "loss": {"before": before, "after": after},
        "rows": {},
    }
    for worker in workers:
        name, row = worker.name, {"seconds": median(rounds, worker.name), "peak": worker.ask("peak")["peak"]}
        row["ratio"] = ratio(rounds, PLAIN, name) if PLAIN in names else None
        precision = name.partition(":")[2].split("-")[-1]
        if name in STRONGEST.values() or name in OURS.values():
            row["ceiling"] = max(worker.ask("product", precision=precision)["value"] for _ in range(3))
        if name in OURS.values():
            row["share"] = operations(size, clicks) / row["seconds"] / row["ceiling"]
            if PLAIN in names:
                row["most"] = median(rounds, PLAIN) * row["ceiling"] / operations(size, clicks)
            row["strongest"] = ratio(rounds, STRONGEST[precision], name) if STRONGEST[precision] in names else None
        result["rows"][name] = row
    if label == "M":
        result["ranking"] = ranking(workers, wanted)
    for worker in workers:
        worker.close()
    return result


def ranking(workers: list[Worker], wanted: int) -> dict:
    """Seconds to score every user and judge what was held out: quick ones in rounds, RecBole and Cornac once."""
    quick = [worker for worker in workers if worker.name in (PLAIN, OURS["float32"])]
    for worker in quick:
        worker.ask("rank")
    rounds, enough = counted(rounds_of(quick, "rank", wanted))
    seconds = {worker.name: median(rounds, worker.name) for worker in quick}
    for worker in workers:
        if worker.name in ("with_recbole:", "with_cornac:"):
            seconds[worker.name] = worker.ask("rank")["seconds"]
    ours = seconds[OURS["float32"]]
    ratios = {name: Ratio(*[value / ours] * 3) for name, value in seconds.items() if name != OURS["float32"]}
    if PLAIN in seconds:
        ratios[PLAIN] = ratio(rounds, PLAIN, OURS["float32"])
    return {"seconds": seconds, "ratios": ratios, "quiet": enough}


def exponents(names: list[str], wanted: int = 3) -> dict:
    """Exponents of an epoch's seconds in users, items and clicks: three sizes of each, the rest kept."""
    seconds = {}
    for size in dict.fromkeys(size for sizes in GROWTH.values() for size in sizes):
        load(BUILD / "bench-data", size)
        workers = [Worker(name, size) for name in names]
        for worker in workers:
            worker.ask("epoch")
        rounds, _ = counted(rounds_of(workers, "epoch", wanted, tries=2))
        for worker in workers:
            seconds[worker.name, size] = median(rounds, worker.name)
            worker.close()
    axes = {"users": 0, "items": 1, "clicks": 2}
    return {
        name: {
            axis: growth([size[at] for size in GROWTH[axis]], [seconds[name, size] for size in GROWTH[axis]])
            for axis, at in axes.items()
        }
        for name in names
    }


def runs(label: str, names: list[str], wanted: int) -> dict:
    """Whole processes of 20 epochs and a ranking, in turn; ours with nothing compiled before, then with the cache."""
    cache, rounds, size = BUILD / "bench-cache", [], SIZES[label]
    while len(quiet(rounds)) < wanted and len(rounds) < 2 * wanted:
        answers = {}
        for name in names:
            if not name.startswith("ours"):
                answers[name] = whole(name, size, EPOCHS)
                continue
            shutil.rmtree(cache, ignore_errors=True)
            for state in ("cold", "cached"):
                answers[f"{name} {state}"] = whole(name, size, EPOCHS, JAX_COMPILATION_CACHE_DIR=str(cache))
        others = max(answer["others"] for answer in answers.values())
        rounds.append(Round({name: answer["seconds"] for name, answer in answers.items()}, others))
    rounds, enough = counted(rounds, wanted)
    rows = {}
    for name, answer in answers.items():
        seconds = [one.seconds[name] for one in rounds]
        rows[name] = {"seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds),
                      "ndcg": answer["ndcg"], "peak": answer["peak"]}  # fmt: skip
    return {"quiet": enough, "rounds": len(rounds), "rows": rows}


def script(name: str) -> dict:
    """Exit status and last line of a benchmark that decides for itself."""
    run = subprocess.run([sys.executable, str(HERE / name)], capture_output=True, text=True, check=False)
    return {"status": run.returncode, "said": (run.stdout.strip() or run.stderr.strip()).splitlines()[-1]}


def machine() -> str:
    """Processor, cores and day."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    name, family, model = (fields.get(field, "?") for field in ("model name", "cpu family", "model"))
    name = platform.processor() if name == "?" else name
    return f"{name} (family {family}, model {model}), {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--parts", nargs="+", choices=gates.PARTS, default=list(gates.PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="quiet rounds wanted")
    arguments = parser.parse_args()
    from rec_transfer.training.devices import native_bfloat16

    libraries, bfloat16 = available(), native_bfloat16()
    missing = sorted({"torch", "recbole", "cornac"} - set(libraries))
    result = {"machine": machine(), "bfloat16": bfloat16, "libraries": libraries, "parts": arguments.parts}
    print(result["machine"] + (f"; not installed, so left out: {', '.join(missing)}" if missing else ""), flush=True)
    start = time.perf_counter()
    for part in arguments.parts:
        if part == "epochs":
            result["epochs"] = {}
            for label in arguments.sizes:
                names = implementations(libraries, label, bfloat16)
                result["epochs"][label] = epochs(label, names, 3 if label == "L10" else arguments.rounds)
                gates.print_epochs(label, result["epochs"][label])
        elif part == "growth":
            result["growth"] = exponents([PLAIN] * ("torch" in libraries) + [OURS["float32"]])
            gates.print_growth(result["growth"])
        elif part == "whole":
            result["whole"] = {}
            for label in (label for label in ("S", "M") if label in arguments.sizes):
                names = [PLAIN] * ("torch" in libraries) + [OURS[one] for one in OURS if bfloat16 or one == "float32"]
                result["whole"][label] = runs(label, names, 3 if label == "S" else 1)
                gates.print_whole(label, result["whole"][label])
        else:
            result[part] = script({"log": "big_log.py", "memory": "memory.py"}[part])
            print(f"\n{part}: {result[part]['said']}", flush=True)
        (BUILD / "bench.json").write_text(json.dumps(result, indent=1))
    lines, status = verdict(gates.gates(result))
    print("\n" + "\n".join(lines) + f"\n{time.perf_counter() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())

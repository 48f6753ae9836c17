"""Where the time of a training step goes: what XLA computes in one step, when, for how long and on which thread.

    .venv/bin/python benchmarks/timeline.py [--size M] [--precision bfloat16]

The step printed is the median one of an epoch. Operations of two threads overlap, so that their times do not add up.
What is not printed: sparse products, custom calls that the profiler leaves out, and what takes less than .03 ms.
"""

import argparse
import os
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from harness.clicks import SIZES, load
from harness.processes import BUILD

SHORTEST = 0.03  # ms; shorter ones are left out
UNTRACED = 5  # epochs before the one that is traced


class Operation(NamedTuple):
    """An operation of the compiled program as it ran."""

    name: str
    thread: str
    start: float  # ms
    duration: float


def operations(folder: Path) -> list[Operation]:
    """What ``jax.profiler`` wrote of the training loop, in order."""
    import jax

    (file,) = folder.rglob("*.xplane.pb")
    found = []
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = {name: value for name, value in event.stats if name in ("hlo_op", "hlo_module")}
                if stats.get("hlo_module") == "jit__run_steps":
                    found.append(Operation(stats["hlo_op"], line.name, event.start_ns / 1e6, event.duration_ns / 1e6))
    return sorted(found, key=lambda operation: operation.start)


def median_step(found: list[Operation], steps: int) -> tuple[list[Operation], float]:
    """The operations of the step of median length and that length, in ms; ``start`` counts from its first.

    A step begins where the operation that takes longest of all that run once a step begins.
    """
    times = Counter(operation.name for operation in found)
    spent = Counter()
    for operation in found:
        spent[operation.name] += operation.duration
    once = [name for name, number in times.items() if number == steps and not name.startswith("while")]
    first = max(once, key=spent.get)
    starts = [operation.start for operation in found if operation.name == first]
    lengths = sorted((after - before, before) for before, after in pairwise(starts))
    length, begin = lengths[len(lengths) // 2]
    inside = [part for part in found if begin <= part.start < begin + length and not part.name.startswith("while")]
    return [part._replace(start=part.start - begin) for part in inside], length


def origins(folder: Path) -> dict[str, str]:
    """For each operation of the dumped training loop what it gives and the JAX operation it comes from."""
    *_, file = sorted(folder.glob("*jit__run_steps*cpu_after_optimizations.txt"))  # the last that was compiled
    named = re.findall(r'^\s*(?:ROOT )?%([\w.-]+) = (\w+\[[\d,]*\]).*?(?:op_name="([^"]*)"|$)', file.read_text(), re.M)
    return {name: f"{shape} {source.split('/')[-1]}".strip() for name, shape, source in named}


def main() -> None:
    """Train, trace an epoch, and print its median step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="M")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        dump, trace = Path(folder, "dump"), Path(folder, "trace")
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump} --xla_dump_hlo_as_text"
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # a program from the cache is not dumped
        import jax
        from peers import ours

        trainer = ours.Trainer(load(BUILD / "bench-data", SIZES[arguments.size]), arguments.precision, 20)
        seconds = []
        for _ in range(UNTRACED):
            start = time.perf_counter()
            float(trainer.epoch())
            seconds.append(time.perf_counter() - start)
        with jax.profiler.trace(trace):
            float(trainer.epoch())
        steps = trainer.batches.steps
        found, length = median_step(operations(trace), steps)
        names = origins(dump)
    print(f"{arguments.size}, {arguments.precision}: {1e3 * min(seconds) / steps:.2f} ms a step of the quickest epoch")
    print(f"the median step under the profiler, {length:.2f} ms:\n\n| at ms | for ms | thread | operation | gives |")
    print("|---|---|---|---|---|")
    threads = {name: number for number, name in enumerate(dict.fromkeys(part.thread for part in found))}
    for part in found:
        if part.duration >= SHORTEST:
            when = f"{part.start:.2f}|{part.duration:.2f}"
            print(f"|{when}|{threads[part.thread]}|{part.name}|{names.get(part.name, '')}|")


if __name__ == "__main__":
    main()

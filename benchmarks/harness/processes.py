"""Implementations in processes of their own, given a turn each, and what the rest of the machine did meanwhile."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from harness.clicks import Size
from harness.rounds import ENOUGH, Round, quiet

HERE = Path(__file__).resolve().parents[1]  # benchmarks/
BUILD = HERE.parent / "build"
PEERS = BUILD / "bench-venv/bin/python"
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAUSE = 0.3  # seconds before a turn: threads of the one before spin for a while after their last product


def command(name: str, size: Size, *more: str) -> list[str]:
    """How an implementation, ``file:variant``, is started."""
    file, _, variant = name.partition(":")
    python = sys.executable if file == "ours" else str(PEERS if PEERS.exists() else sys.executable)
    folder = str(BUILD / "bench-data")
    return [
        python,
        str(HERE / "harness" / "worker.py"),
        file,
        "--size",
        *map(str, size),
        "--folder",
        folder,
        "--variant",
        variant,
        *more,
    ]


def available() -> list[str]:
    """Which peers' libraries can be imported where the peers run."""
    python = str(PEERS if PEERS.exists() else sys.executable)
    found = []
    for library in ("torch", "recbole", "cornac"):
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library!r}) is None)"
        if subprocess.run([python, "-c", code], check=False).returncode == 0:
            found.append(library)
    return found


class Worker:
    """An implementation that is kept alive and answers requests; its turn is timed by itself."""

    def __init__(self, name: str, size: Size):
        BUILD.mkdir(exist_ok=True)
        with (BUILD / "bench.log").open("a") as log:
            self.process = subprocess.Popen(
                command(name, size), cwd=BUILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.name = name
        self._read()

    def ask(self, what: str, **more) -> dict:
        """Its answer: value, seconds, and its peak memory so far in bytes."""
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def turn(self, what: str, **more) -> tuple[dict, float]:
        """Its answer, and the cores that processes other than it and this one took meanwhile."""
        time.sleep(PAUSE)
        busy, own, start = busy_seconds(), self._own(), time.perf_counter()
        answer = self.ask(what, **more)
        wall = time.perf_counter() - start
        others = busy_seconds() - busy - (self._own() - own)
        return answer, max(others, 0.0) / max(wall, 0.1)

    def _own(self):
        return process_seconds(self.process.pid) + process_seconds(os.getpid())

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: see {BUILD / 'bench.log'}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def busy_seconds() -> float:
    """Seconds that all cores together have been busy since the machine started (0 where Linux does not say)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = map(int, stat.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / TICK


def process_seconds(pid: int) -> float:
    """Seconds of processor time that a process has taken, all threads."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rounds_of(workers: list[Worker], what: str, wanted: int, times: int = 1, tries: int = 3) -> list[Round]:
    """Rounds in which every worker has its turn, until ``wanted`` quiet ones are there or all tries are used up."""
    found = []
    for _ in range(wanted * tries):
        seconds, others = {}, 0.0
        for worker in workers:
            more = {"times": times} if what == "epoch" else {}
            answer, taken = worker.turn(what, **more)
            seconds[worker.name], others = answer["seconds"] / times, max(others, taken)
        found.append(Round(seconds, others))
        if len(quiet(found)) == wanted:
            break
    return found


def counted(rounds: list[Round], wanted: int = ENOUGH) -> tuple[list[Round], bool]:
    """The quiet rounds where they suffice for a verdict; else all of them, and False."""
    enough = len(quiet(rounds)) >= wanted
    return (quiet(rounds) if enough else rounds), enough


def whole(name: str, size: Size, epochs: int, **environment: str) -> dict:
    """A process from its start to its end: set-up, ``epochs``, ranking; seconds, NDCG, peak memory, others' cores."""
    time.sleep(PAUSE)
    busy, own, start = busy_seconds(), own_seconds(), time.perf_counter()
    with (BUILD / "bench.log").open("a") as log:
        run = subprocess.run(
            command(name, size, "--epochs", str(epochs)), cwd=BUILD, env=os.environ | environment, check=True,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    others = busy_seconds() - busy - (own_seconds() - own)
    return {"seconds": seconds, "others": max(others, 0.0) / seconds, **json.loads(run.stdout)}


def own_seconds() -> float:
    """Seconds of processor time that this process and the children it has waited for have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

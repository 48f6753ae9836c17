"""An implementation kept alive in its own process: it answers one request a line, and is timed while it does.

A trainer is an object with ``epoch() -> mean loss`` (a number, what ``float`` waits for, or None), ``loss() -> mean
loss without noise``, ``rank() -> NDCG@100`` and, where it has a matrix product of its own, ``product(precision, side)
-> seconds``. NumPy alone.
"""

import argparse
import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/, for ``harness`` and ``peers``
from harness.clicks import Size, load  # noqa: E402 - after the path

SIDE = 2000  # of the square matrices whose product is the ceiling


def main() -> None:
    """Run a trainer of ``peers`` as the command line says: a whole run (``--epochs``), or requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", help="a file of peers/, without .py")
    parser.add_argument("--size", type=int, nargs=3, required=True, metavar=("USERS", "ITEMS", "CLICKS"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--epochs", type=int, default=0, help="run so many, rank, and end")
    parser.add_argument("--planned", type=int, default=20, help="epochs that the step size decays over")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    clicks = load(arguments.folder, Size(*arguments.size))
    trainer = import_module(f"peers.{arguments.peer}").Trainer(
        clicks, arguments.variant, arguments.epochs or arguments.planned
    )
    if arguments.epochs:
        loss = _epochs(trainer, arguments.epochs)
        print(json.dumps({"loss": loss, "ndcg": trainer.rank(), "peak": peak()}), file=answers)
        return
    print(json.dumps({"peak": peak()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(trainer, json.loads(line))), file=answers, flush=True)


def _epochs(trainer, times):
    """Loss of the last epoch (None where an implementation tells none), waited for."""
    loss = [trainer.epoch() for _ in range(times)][-1]
    return None if loss is None else float(loss)


def _answer(trainer, request):
    start = time.perf_counter()
    match request["do"]:
        case "epoch":
            value = _epochs(trainer, request.get("times", 1))
        case "loss":
            value = trainer.loss()
        case "rank":
            value = trainer.rank()
        case "peak":
            value = peak()
        case "product":
            value = 2 * SIDE**3 / min(trainer.product(request["precision"], SIDE) for _ in range(8))
    return {"value": value, "seconds": time.perf_counter() - start, "peak": peak()}


def peak() -> int:
    """Largest resident set of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

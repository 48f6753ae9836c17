"""Processes that train together, on one machine or on many: started, connected, and stopped when one is lost.

Each runs the same script, calls ``connect`` first and passes the mesh to a trainer. If a process dies, the others would
wait forever for its gradients. ``run_workers`` stops them and reports which process was lost.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import jax
from jax.sharding import Mesh

from rec_transfer.training.devices import all_devices

VARIABLES = ("REC_TRANSFER_ADDRESS", "REC_TRANSFER_PROCESSES", "REC_TRANSFER_WORKER", "REC_TRANSFER_PATIENCE")
START = 60  # seconds for all workers to have come: one that imports and compiles is no lost one
GRACE = 1.0  # seconds in which a loss that took several workers along shows in all of them
ELSEWHERE = ". If its last words are of a connection, one on another machine was lost before it: see there"


class WorkerLost(RuntimeError):
    """A worker of a run ended before its work was done."""


def connect() -> Mesh:
    """Return the mesh of the devices of all workers, once this process has joined them.

    Each worker calls it first of all, before anything else of JAX.

    Reads what ``run_workers`` set: ``REC_TRANSFER_ADDRESS`` (host:port of worker 0), ``_PROCESSES`` (how many there
    are), ``_WORKER`` (which one this is) and ``_PATIENCE`` (seconds after which a silent one is given up).

    Raises:
        RuntimeError: it was not started as a worker; JAX's own, where not all came in time.
    """
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise RuntimeError(f"environment: got no {', '.join(missing)}, expected a worker started by run_workers")
    address, processes, number, patience = (os.environ[name] for name in VARIABLES)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of processors; an accelerator has its own
    jax.distributed.initialize(
        address, int(processes), int(number), coordinator_bind_address=address,
        initialization_timeout=START, heartbeat_timeout_seconds=int(patience),
        shutdown_timeout_seconds=int(patience),
    )  # fmt: skip
    return all_devices()


def free_address() -> str:
    """Return the address of a port that is free now, reachable from this machine alone."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def run_workers(
    command: Sequence[str],
    *,
    processes: int,
    here: Sequence[int] | None = None,
    address: str | None = None,
    patience: int = 10,
) -> None:
    """Start a run's workers on this machine and wait for them all; when one is lost, end the others.

    On many machines, call it on each, with the same address and the workers that are to run there.

    Args:
        command: what each worker executes, a script that calls ``connect`` first.
        processes: workers of the run, on all machines.
        here: which of them start here; None is all.
        address: host:port on the machine of worker 0 at which the others reach it; None finds a free port here.
        patience: seconds after which a silent worker counts as lost; one that ends is missed at once.

    Raises:
        ValueError: workers that do not exist, or workers elsewhere without an address.
        WorkerLost: one ended with an error, was killed or fell silent. Started again, a run with a checkpoint goes on
            from it.
    """
    numbers = list(range(processes)) if here is None else list(here)
    if not numbers or not set(numbers) <= set(range(processes)) or patience < 1:
        raise ValueError(f"here: got {numbers} of {processes} processes, patience {patience}; expected 1 s or more "
                         f"and some of {list(range(processes))}")  # fmt: skip
    if address is None and len(numbers) < processes:
        raise ValueError("address: got None, expected host:port of worker 0, since some workers are elsewhere")
    address = address or free_address()
    started: dict[int, subprocess.Popen] = {}
    with ThreadPoolExecutor(len(numbers)) as watchers:
        try:
            for number in numbers:
                told = zip(VARIABLES, map(str, (address, processes, number, patience)), strict=True)
                started[number] = subprocess.Popen(command, env=os.environ | dict(told))
            waiting = {watchers.submit(process.wait): number for number, process in started.items()}
            pending = set(waiting)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                failed = {waiting[future]: future.result() for future in done if future.result() != 0}
                if failed:
                    done, pending = wait(pending, timeout=GRACE)
                    later = {waiting[future]: future.result() for future in done if future.result() != 0}
                    verdict = _verdict(failed, later, sorted(waiting[future] for future in pending), processes)
                    raise WorkerLost(verdict + ("" if len(numbers) == processes else ELSEWHERE))
        finally:
            for process in started.values():
                process.kill()


def _verdict(failed, later, silent, processes):
    """Who was lost first: JAX aborts those that miss another, so that an abort points at somebody else."""
    killed = {n: status for n, status in (failed | later).items() if status != -signal.SIGABRT}
    first = {n: status for n, status in failed.items() if n in killed} or killed
    lost = {n: _how(status) for n, status in first.items()} or dict.fromkeys(silent, "fell silent")
    lost = lost or {n: _how(status) for n, status in failed.items()}
    names = ", ".join(f"worker {n} of {processes} {how}" for n, how in sorted(lost.items()))
    return f"lost: {names}; the others were ended. Start the run again: it goes on from its checkpoint"


def _how(status):
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

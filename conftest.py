"""A share of the cores for every worker of pytest-xdist, and for the kernels and processes that it starts.

JAX and BLAS start a thread per core they may use. Two workers that each start one for every core spend half their time
waiting for each other: notebooks and tests take twice as long.
"""

import os


def cores_of(worker: str | None, workers: int, cores: list[int]) -> list[int]:
    """The cores of worker "gw0", "gw1", ...: all where there is no worker, at least one where there is."""
    if not worker:
        return cores
    number = int(worker.removeprefix("gw"))
    return cores[number::workers] or [cores[number % len(cores)]]


def pytest_configure(config):
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere it is only slower
        worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        os.sched_setaffinity(0, cores_of(worker, workers, sorted(os.sched_getaffinity(0))))

"""Work in two processes, each on its half of the cores."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

PROCESSES = 2


def two_at_a_time(work, tasks) -> list:
    """``work(*task)`` of every task, in two processes.

    Each keeps to its own cores: two that each start a thread for every core would spend half their time waiting for
    each other. What an array took goes back to the system when it is freed, and does not wait for the next.
    """
    threads = str(max(1, (os.cpu_count() or 1) // PROCESSES))
    os.environ |= {  # read by the processes as they start
        "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "MALLOC_MMAP_THRESHOLD_": "1000000"
    }  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _keep_to_cores, (context.Value("i", 0),)) as workers:
        return list(workers.map(work, *zip(*tasks, strict=True)))


def _keep_to_cores(number) -> None:
    with number.get_lock():
        own, number.value = number.value, number.value + 1
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere it is only slower
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[own::PROCESSES] or cores)

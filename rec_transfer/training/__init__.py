"""One training loop for networks. It knows no model.

* ``loop``: ``fit`` and ``epoch``, with validation, patience, a bar and exact resume
* ``batches``: batches of arrays in memory or of compressed rows; ``sparse_batch``: how such rows are laid out
* ``checkpoints``: the one reader and writer of files, of runs and of models
* ``devices``: several devices of a process; ``workers``: several processes
"""

from rec_transfer.training.batches import Batches, Chunk, compressed_rows, in_memory
from rec_transfer.training.checkpoints import (
    RUN_FORMAT,
    differing_arrays,
    digest,
    named_leaves,
    read_arrays,
    read_run,
    restored,
    write_arrays,
    write_run,
)
from rec_transfer.training.devices import USERS, all_devices, local_shares, native_bfloat16, on_each, shard
from rec_transfer.training.loop import Fitted, Loss, Model, State, epoch, fit, initial_state, mean_loss
from rec_transfer.training.sparse_batch import SparseBatch, capacity, compress
from rec_transfer.training.workers import WorkerLost, connect, free_address, run_workers

__all__ = [
    "RUN_FORMAT",
    "USERS",
    "Batches",
    "Chunk",
    "Fitted",
    "Loss",
    "Model",
    "SparseBatch",
    "State",
    "WorkerLost",
    "all_devices",
    "capacity",
    "compress",
    "compressed_rows",
    "connect",
    "differing_arrays",
    "digest",
    "epoch",
    "fit",
    "free_address",
    "in_memory",
    "initial_state",
    "local_shares",
    "mean_loss",
    "named_leaves",
    "native_bfloat16",
    "on_each",
    "read_arrays",
    "read_run",
    "restored",
    "run_workers",
    "shard",
    "write_arrays",
    "write_run",
]

"""training"""

from rec_transfer.training.devices import (
    USERS,
    all_devices,
    dealt_out,
    native_bfloat16,
    on_each,
    own_shares,
    share_of_users,
)
from rec_transfer.training.long_runs import FORMAT, Progress, digest, load_run, run_epochs, save_run
from rec_transfer.training.loop import Batch, Fitted, Loss, Model, fit, fit_many
from rec_transfer.training.workers import (
    ELSEWHERE,
    GRACE,
    START,
    VARIABLES,
    WorkerLost,
    connect,
    free_address,
    run_workers,
)

__all__ = [
    "ELSEWHERE",
    "FORMAT",
    "GRACE",
    "START",
    "USERS",
    "VARIABLES",
    "Batch",
    "Fitted",
    "Loss",
    "Model",
    "Progress",
    "WorkerLost",
    "all_devices",
    "connect",
    "dealt_out",
    "digest",
    "fit",
    "fit_many",
    "free_address",
    "load_run",
    "native_bfloat16",
    "on_each",
    "own_shares",
    "run_epochs",
    "run_workers",
    "save_run",
    "share_of_users",
]

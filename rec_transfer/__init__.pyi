# For type checkers and editors: where the names of the contents page come from. `__init__.py` imports them lazily.
from rec_transfer import data, evaluation, maps, methods, models, plotting, synthetic, training
from rec_transfer.data import count_log, from_events, read_log
from rec_transfer.evaluation import (
    cold_start,
    compare,
    evaluate,
    fit_popularity,
    overlap_lift,
    paired_tests,
    summarise,
    tuned,
)
from rec_transfer.keys import named_keys
from rec_transfer.maps import fit_ridge_map
from rec_transfer.methods import fit_ridge_counts, fit_transfer, reasons, recommend, with_aligners
from rec_transfer.models import VAEConfig, posterior, train_vae
from rec_transfer.types import History, Interactions, Split, TrainingData

__all__ = [
    "History",
    "Interactions",
    "Split",
    "TrainingData",
    "VAEConfig",
    "cold_start",
    "compare",
    "count_log",
    "data",
    "evaluate",
    "evaluation",
    "fit_popularity",
    "fit_ridge_counts",
    "fit_ridge_map",
    "fit_transfer",
    "from_events",
    "maps",
    "methods",
    "models",
    "named_keys",
    "overlap_lift",
    "paired_tests",
    "plotting",
    "posterior",
    "read_log",
    "reasons",
    "recommend",
    "summarise",
    "synthetic",
    "train_vae",
    "training",
    "tuned",
    "with_aligners",
]

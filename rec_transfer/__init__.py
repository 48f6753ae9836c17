"""Carry a user's interests from one domain to another: the contents page.

The seven rooms, each with a contents page of its own, and the names that most programs begin with. ``import
rec_transfer as rt`` costs next to nothing: a name is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

MODULES = ("data", "training", "models", "maps", "methods", "evaluation", "synthetic", "plotting")
CONTENTS = {
    "types": ("Interactions", "TrainingData", "History", "Split"),
    "keys": ("named_keys",),
    "data": ("read_log", "from_events", "count_log"),
    "models": ("VAEConfig", "train_vae", "posterior"),
    "maps": ("fit_ridge_map",),
    "methods": ("fit_transfer", "with_maps", "fit_ridge_counts", "recommend", "reasons"),
    "evaluation": (
        "cold_start",
        "evaluate",
        "compare",
        "summarise",
        "paired_tests",
        "overlap_lift",
        "fit_popularity",
        "tuned",
    ),
}
_HOME = {name: module for module, names in CONTENTS.items() for name in names}
__all__ = [*MODULES, *_HOME]

if TYPE_CHECKING:  # the same names, for type checkers and editors, which look nothing up
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
    from rec_transfer.methods import fit_ridge_counts, fit_transfer, reasons, recommend, with_maps
    from rec_transfer.models import VAEConfig, posterior, train_vae
    from rec_transfer.types import History, Interactions, Split, TrainingData


def __getattr__(name: str):
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

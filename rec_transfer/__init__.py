"""Carry a user's interests from one domain to another: the contents page.

The seven rooms, each with a contents page of its own, and the names that most programs begin with. ``import
rec_transfer as rt`` costs next to nothing: a name is imported when it is first asked for.
"""

from importlib import import_module

MODULES = ("data", "training", "models", "maps", "methods", "evaluation", "synthetic", "plotting")
CONTENTS = {
    "types": ("Interactions", "TrainingData", "History", "Split"),
    "data": ("read_log", "from_events", "count_log"),
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
    "models": ("VAEConfig", "train_vae", "posterior"),
    "maps": ("fit_ridge_map",),
    "methods": ("fit_transfer", "with_aligners", "fit_ridge_counts", "recommend", "reasons"),
    "keys": ("named_keys",),
}
_HOME = {name: module for module, names in CONTENTS.items() for name in names}
__all__ = [*MODULES, *_HOME]


def __getattr__(name: str):
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

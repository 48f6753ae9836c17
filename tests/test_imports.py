"""Arrows point one way: who may import whom, as the source has it; what ``import rec_transfer`` must not pull in."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rec_transfer

PACKAGE = Path(rec_transfer.__file__).parent
MODULES = {path.stem: path for path in PACKAGE.glob("*.py")}

# A module may import those of the layers above its own, and no other. ``__init__`` is the contents page: it may import
# all of them, and none of them may import it.
LAYERS = (
    {"types", "naming"},
    {"csv_rows", "keys", "memo", "tables"},
    {
        "calibration", "datasets", "devices", "event_log", "gains", "interactions", "laplace", "likelihoods", "loaders",
        "metrics", "plotting", "ridge", "sparse_layers", "synthetic", "training",
    },
    {
        "audit", "big_logs", "factor_model", "item_models", "log_writer", "long_runs", "protocols", "tuning", "twins",
        "vae", "workers",
    },
    {
        "alignment", "baselines", "checkpoints", "gaussian_process", "oracle", "sampled_softmax", "shared_latents",
        "sparse_models", "sparse_objective",
    },
    {
        "blends", "closed_form_maps", "distribution_maps", "kernel_maps", "network_maps", "sparse_ranking",
        "sparse_training",
    },
    {"transfer"},
    {"evaluation"},
    {"overlap"},
)  # fmt: skip
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}

# The layers would let some of these through; the reasons do not.
MODELS = {
    "vae",
    "factor_model",
    "shared_latents",
    "gaussian_process",
    "item_models",
    "alignment",
    "closed_form_maps",
    "distribution_maps",
    "kernel_maps",
    "network_maps",
    "baselines",
    "oracle",
    "checkpoints",
    "transfer",
    "evaluation",
}
TRUTH = {"synthetic", "oracle", "log_writer", "twins"}
NEVER = {
    "training": MODELS,  # it knows nothing of recommending
    "calibration": MODELS | {"training"},
    "metrics": MODELS | {"training"},  # judges and pictures are independent of what they show
    "plotting": MODELS | {"training"},
    "protocols": MODELS | TRUTH | {"training"},
    "audit": MODELS | TRUTH | {"training"},
    "vae": TRUTH,  # a method that could look into the world would prove nothing
    "alignment": TRUTH,
    "closed_form_maps": TRUTH,
    "distribution_maps": TRUTH,
    "kernel_maps": TRUTH,
    "network_maps": TRUTH,
    "baselines": TRUTH,
    "item_models": TRUTH,
    "factor_model": TRUTH,
    "shared_latents": TRUTH,
    "gaussian_process": TRUTH,
    "tuning": TRUTH | MODELS,  # it chooses among whatever it is given
    "transfer": TRUTH,
}
HEAVY = ("pandas", "matplotlib", "sklearn", "pandera", "scipy.stats", "blackjax", "dask")


def imports_of(source, modules):
    """Modules of the package that a module's source imports, wherever in it; ``__init__`` for the contents page."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {[*name, "__init__"][1] for name in names if name[0] == "rec_transfer"}
        elif isinstance(node, ast.ImportFrom):
            path = (["rec_transfer"] if node.level else []) + (node.module.split(".") if node.module else [])
            if path[0] != "rec_transfer":
                continue
            if len(path) > 1:
                found.add(path[1])
            else:
                found |= {alias.name if alias.name in modules else "__init__" for alias in node.names}
    return found


def forbidden_edges(imports):
    """What is wrong with {module: modules it imports}, one sentence each."""
    wrong = []
    for module, imported in sorted(imports.items()):
        if module == "__init__":
            continue
        if module not in LAYER_OF:
            wrong.append(f"{module} stands in no layer: add it to LAYERS where its imports allow")
            continue
        for other in sorted(imported):
            if other not in LAYER_OF:
                wrong.append(f"{module} imports {other}, which stands in no layer")
            elif LAYER_OF[other] >= LAYER_OF[module]:
                wrong.append(f"{module} imports {other}, which is not above it")
            elif other in NEVER.get(module, ()):
                wrong.append(f"{module} imports {other}, which it must never know")
    return wrong


def test_no_module_imports_one_that_it_may_not():
    imports = {name: imports_of(path.read_text(), MODULES) for name, path in MODULES.items()}
    assert imports["evaluation"] >= {"metrics", "interactions"}  # the walk finds something
    assert forbidden_edges(imports) == []


def test_each_module_stands_in_one_layer():
    assert sum(map(len, LAYERS)) == len(LAYER_OF)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import rec_transfer.vae", {"vae"}),
        ("import numpy, rec_transfer.keys as k", {"keys"}),
        ("from rec_transfer.vae import VAE", {"vae"}),
        ("from rec_transfer import keys, metrics", {"keys", "metrics"}),
        ("from . import keys", {"keys"}),
        ("from .vae import VAE", {"vae"}),
        ("def f():\n    if True:\n        from rec_transfer import vae", {"vae"}),
        ("import rec_transfer", {"__init__"}),
        ("from rec_transfer import compare", {"__init__"}),
        ("import numpy\nfrom scipy import sparse", set()),
    ],
)
def test_the_walk_sees_every_way_to_import(source, expected):
    assert imports_of(source, {"vae", "keys", "metrics"}) == expected


@pytest.mark.parametrize(
    ("module", "imported", "message"),
    [
        ("training", "vae", "training imports vae, which is not above it"),
        ("metrics", "training", "metrics imports training, which is not above it"),
        ("plotting", "vae", "plotting imports vae, which is not above it"),
        ("types", "keys", "types imports keys, which is not above it"),
        ("vae", "alignment", "vae imports alignment, which is not above it"),
        ("likelihoods", "metrics", "likelihoods imports metrics, which is not above it"),
        ("baselines", "synthetic", "baselines imports synthetic, which it must never know"),
        ("transfer", "oracle", "transfer imports oracle, which it must never know"),
        ("keys", "__init__", "keys imports __init__, which stands in no layer"),
        ("helpers", "keys", "helpers stands in no layer: add it to LAYERS where its imports allow"),
    ],
)
def test_a_forbidden_edge_is_reported(module, imported, message):
    assert forbidden_edges({module: {imported}}) == [message]


def test_every_name_on_the_contents_page_can_be_turned_to():
    assert len(rec_transfer.__all__) == len(set(rec_transfer.__all__)) > 10
    for name in rec_transfer.__all__:
        assert getattr(rec_transfer, name).__name__ == name
        assert name in dir(rec_transfer)
    with pytest.raises(AttributeError, match="module 'rec_transfer' has no attribute 'fit_magic'"):
        _ = rec_transfer.fit_magic


def heavy_after(statement, heavy=HEAVY):
    """Which of the heavy libraries a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


def test_the_package_imports_heavy_libraries_only_where_they_are_used():
    assert heavy_after("import rec_transfer") == []
    # Nor do its modules, the ones that exist to draw and to download apart: a notebook pays for what it uses.
    names = sorted(MODULES.keys() - {"__init__", "plotting", "datasets"})
    assert heavy_after("\n".join(f"import rec_transfer.{name}" for name in names)) == []


def test_the_check_for_heavy_libraries_would_find_one():
    assert heavy_after("import wave", heavy=("pandas", "wave")) == ["wave"]

"""Arrows point one way: who may import whom, as the source has it; what ``import rec_transfer`` must not pull in."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rec_transfer

PACKAGE = Path(rec_transfer.__file__).parent
MODULES = {str(path.relative_to(PACKAGE).with_suffix("")).replace("/", "."): path for path in PACKAGE.rglob("*.py")}

# Which rooms a room may import; itself always. The top ``__init__`` is the contents page: nobody imports it. Nobody in
# the package imports ``synthetic``: a method that could look into the world would prove nothing.
ALLOWED = {
    "types": set(),
    "plotting": set(),
    "keys": {"types"},
    "data": {"types", "keys"},
    "training": {"types", "keys"},
    "models": {"types", "keys", "training"},
    "evaluation": {"types", "keys", "data"},
    "maps": {"types", "keys", "training", "models"},
    "methods": {"types", "keys", "training", "models", "maps", "evaluation"},
    "synthetic": {"types", "keys", "data", "models", "methods"},
}
HEAVY = ("pandas", "matplotlib", "sklearn", "pandera", "scipy.stats", "blackjax", "dask")


def imports_of(source):
    """Rooms of the package that a source imports, wherever in it; ``__init__`` for the contents page."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {[*name, "__init__"][1] for name in names if name[0] == "rec_transfer"}
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # the package has folders now: a dot says too little to a reader
                found.add("." * node.level)
                continue
            path = node.module.split(".")
            if path[0] == "rec_transfer":
                found |= (
                    {path[1]} if len(path) > 1 else {a.name if a.name in ALLOWED else "__init__" for a in node.names}
                )
    return found


def forbidden_edges(imports):
    """What is wrong with {module: rooms it imports}, one sentence each."""
    wrong = []
    for module, imported in sorted(imports.items()):
        room = module.split(".")[0]
        if room not in ALLOWED:
            wrong.append(f"{module} stands in no room: add it to ALLOWED")
            continue
        for other in sorted(imported - ALLOWED[room] - {room}):
            wrong.append(f"{module} imports {other}, which {room} may not")
    return wrong


def test_no_module_imports_one_that_it_may_not():
    imports = {name: imports_of(path.read_text()) for name, path in MODULES.items() if name != "__init__"}
    assert imports["evaluation.protocol"] >= {"types", "keys"}  # the walk finds something
    assert forbidden_edges(imports) == []


def test_no_arrow_has_a_way_back():
    above = {room: set(others) for room, others in ALLOWED.items()}
    for _ in ALLOWED:  # those of those above are above as well
        above = {room: others.union(*(above[other] for other in others)) for room, others in above.items()}
    assert not [room for room, others in above.items() if room in others]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import rec_transfer.models.vae", {"models"}),
        ("import numpy, rec_transfer.keys as k", {"keys"}),
        ("from rec_transfer.models.vae import VAE", {"models"}),
        ("from rec_transfer import keys, evaluation", {"keys", "evaluation"}),
        ("from . import keys", {"."}),
        ("from ..models.vae import VAE", {".."}),
        ("def f():\n    if True:\n        from rec_transfer.models import vae", {"models"}),
        ("import rec_transfer", {"__init__"}),
        ("from rec_transfer import compare", {"__init__"}),
        ("import numpy\nfrom scipy import sparse", set()),
    ],
)
def test_the_walk_sees_every_way_to_import(source, expected):
    assert imports_of(source) == expected


@pytest.mark.parametrize(
    ("module", "imported", "message"),
    [
        ("training.loop", "models", "training.loop imports models, which training may not"),
        ("evaluation.metrics", "training", "evaluation.metrics imports training, which evaluation may not"),
        ("plotting", "models", "plotting imports models, which plotting may not"),
        ("types", "keys", "types imports keys, which types may not"),
        ("models.vae", "maps", "models.vae imports maps, which models may not"),
        ("methods.baselines", "synthetic", "methods.baselines imports synthetic, which methods may not"),
        ("keys", "__init__", "keys imports __init__, which keys may not"),
        ("maps.linear", ".", "maps.linear imports ., which maps may not"),
        ("helpers", "keys", "helpers stands in no room: add it to ALLOWED"),
    ],
)
def test_a_forbidden_edge_is_reported(module, imported, message):
    assert forbidden_edges({module: {imported}}) == [message]


def test_every_name_on_the_contents_page_can_be_turned_to():
    names = set(rec_transfer.__all__) - set(rec_transfer.MODULES)
    assert len(rec_transfer.__all__) == len(set(rec_transfer.__all__)) == len(names) + len(rec_transfer.MODULES)
    assert len(names) <= 25
    assert len(rec_transfer.MODULES) <= 8
    for name in rec_transfer.__all__:
        assert getattr(rec_transfer, name).__name__.removeprefix("rec_transfer.") == name
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
    names = sorted(MODULES.keys() - {"__init__", "plotting"})
    assert heavy_after("\n".join(f"import rec_transfer.{name.removesuffix('.__init__')}" for name in names)) == []


def test_the_check_for_heavy_libraries_would_find_one():
    assert heavy_after("import wave", heavy=("pandas", "wave")) == ["wave"]

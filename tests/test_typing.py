"""What type checkers and editors are told: the names at the top of the package, and every public signature."""

import ast
from pathlib import Path

import pytest

import rec_transfer

PACKAGE = Path(rec_transfer.__file__).parent
# Rooms and files whose public functions say what they take and return; the list only grows.
TYPED = ("data", "evaluation", "keys", "maps", "methods", "models", "plotting", "synthetic", "training", "types")


def told_names(source):
    """{name: module it comes from} of the imports that a type checker alone reads."""
    (block,) = (
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {alias.asname or alias.name: node.module for node in block for alias in node.names}


def test_type_checkers_are_told_of_the_names_on_the_lazy_page():
    told = told_names((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    lazy = {name: f"rec_transfer.{module}" for module, names in rec_transfer.CONTENTS.items() for name in names}
    assert told == lazy | dict.fromkeys(rec_transfer.MODULES, "rec_transfer")


def test_what_type_checkers_are_told_is_read():
    source = "import f\nif TYPE_CHECKING:\n    from a.b import c, d as e\n    from a import g"
    assert told_names(source) == {"c": "a.b", "e": "a.b", "g": "a"}


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file(), "without this file, mypy takes no notice of the annotations"


def untyped(source):
    """Public functions, and methods of public classes, that leave an argument or what they return without a type."""

    def look(node, prefix, bound):
        for inner in node.body:
            if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
                yield from look(inner, f"{prefix}{inner.name}.", True)
            if not isinstance(inner, ast.FunctionDef):
                continue
            if inner.name.startswith("_") and inner.name not in {"__init__", "__call__"}:
                continue
            given = inner.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            static = any(ast.unparse(decorator) == "staticmethod" for decorator in inner.decorator_list)
            arguments = [argument for argument in arguments if argument][bound and not static :]
            missing = [argument.arg for argument in arguments if argument.annotation is None]
            missing += ["return"] if inner.returns is None and inner.name != "__init__" else []
            if missing:
                yield f"{prefix}{inner.name}: {', '.join(missing)}"

    return list(look(ast.parse(source), "", False))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a: int, *b: int, c: int = 1, **d: int) -> int: ...", []),
        ("def f(a, /, b: int, *c, d=1, **e): ...", ["f: a, d, c, e, return"]),
        ("def _f(a): ...\nclass _A:\n    def f(self, a): ...", []),
        ("class A:\n    def __init__(self, a): ...\n    def g(self) -> int: ...", ["A.__init__: a"]),
        ("class A:\n    @staticmethod\n    def f(a) -> int: ...", ["A.f: a"]),
    ],
)
def test_what_has_no_type_is_seen(source, expected):
    assert untyped(source) == expected


def test_public_signatures_say_what_they_take_and_return():
    paths = [path for name in TYPED for path in (*PACKAGE.glob(f"{name}.py"), *PACKAGE.glob(f"{name}/*.py"))]
    assert len(paths) >= len(TYPED)
    found = [f"{path.relative_to(PACKAGE)}: {fault}" for path in paths for fault in untyped(path.read_text())]
    assert not found, "\n".join(found)

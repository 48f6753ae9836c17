"""What type checkers and editors are told: the names at the top of the package, and every public signature."""

import ast
from pathlib import Path

import pytest

import rec_transfer

PACKAGE = Path(rec_transfer.__file__).parent
# Rooms and files whose public functions say what they take and return; the list only grows.
TYPED = ("data", "keys", "maps", "plotting", "synthetic", "types")


def imported_names(source):
    """{name: module it comes from} of the imports of a stub."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module for node in nodes for alias in node.names}


def listed_names(source):
    """The literal list ``__all__`` of a stub."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return None


def test_the_stub_and_the_lazy_page_agree():
    stub = (PACKAGE / "__init__.pyi").read_text(encoding="utf-8")
    lazy = {name: f"rec_transfer.{module}" for module, names in rec_transfer.CONTENTS.items() for name in names}
    assert imported_names(stub) == lazy | dict.fromkeys(rec_transfer.MODULES, "rec_transfer")
    assert listed_names(stub) == sorted(rec_transfer.__all__), "`__all__` of the stub: every name once, sorted"


def test_a_stub_is_read_as_a_type_checker_reads_it():
    stub = "from a.b import c, d as e\nimport f\n__all__ = ['c', 'e']"
    assert imported_names(stub) == {"c": "a.b", "e": "a.b"}
    assert listed_names(stub) == ["c", "e"]
    assert listed_names("x = 1") is None


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

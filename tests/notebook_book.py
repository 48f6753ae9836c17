"""A stored notebook as the rules read it: its cells, their checks and what they say, what a reader sees printed."""

import ast
import re
from typing import NamedTuple

import nbformat


class Book(NamedTuple):
    name: str  # of the file
    notebook: nbformat.NotebookNode
    figures: frozenset[str]  # names of the files in figures/

    @property
    def number(self) -> int:
        return int(self.name[:2])

    def code(self):
        return [(position, cell) for position, cell in enumerate(self.notebook.cells) if cell.cell_type == "code"]

    def markdown(self):
        return [(position, cell) for position, cell in enumerate(self.notebook.cells) if cell.cell_type == "markdown"]


def tree(cell):
    """The cell's syntax; empty where it is not Python, which ``plain_python`` reports."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.parse("")


def is_testing_call(node):
    return isinstance(node, ast.Call) and re.fullmatch(r"(np|numpy)\.testing\.assert_\w+", ast.unparse(node.func))


def checks(cell):
    return [node for node in ast.walk(tree(cell)) if isinstance(node, ast.Assert) or is_testing_call(node)]


def messages(cell):
    """What the cell's checks say where they fail, by line; f-strings and joined strings as they are written."""
    for node in checks(cell):
        if isinstance(node, ast.Assert):
            said = [node.msg] if node.msg else []
        else:
            said = [*node.args[2:], *(keyword.value for keyword in node.keywords if keyword.arg == "err_msg")]
        if said:
            yield node.lineno, " ".join(map(ast.unparse, said))


def printed(cell):
    """Text that a reader sees in the cell's stored outputs: of two forms the HTML, without its markup."""
    for output in cell.outputs:
        shown = output.get("data", {})
        if "text/html" in shown:
            yield re.sub(r"<[^<>]+>", " ", re.sub(r"(?s)<style.*?</style>", "", shown["text/html"]))
        else:
            text = shown.get("text/plain", output.get("text", "\n".join(output.get("traceback", []))))
            yield re.sub(r"\x1b\[[\d;]*m", "", text)  # colours


def saved_figures(cell):
    """Names that the cell hands to ``plotting.save``; None for what is not a literal string."""
    for node in ast.walk(tree(cell)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "plotting.save":
            name = node.args[1] if len(node.args) > 1 else None
            yield name.value if isinstance(name, ast.Constant) else None

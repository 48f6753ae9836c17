"""Notebooks for a class, under build/student: solutions become stubs, checks stay, outputs are cleared.

In a copy each exercise fails its check with one sentence until it is solved, and Run All still reaches the last cell.
Copies lie in ``build/student/notebooks`` beside a link to the data, so that the notebooks' relative paths hold there.
"""

import argparse
import ast
import copy
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import nbformat

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("data", "docs", "figures", "tests")  # what notebooks reach by "../"
STUB = 'raise NotImplementedError("Exercise {number}: write the body of {function}, then run the check below")'


class MalformedNotebook(ValueError):
    """A notebook whose exercises cannot be turned into stubs; the message names the notebook and the cell."""


class Exercise(NamedTuple):
    """One exercise: its number, and the positions of its solution and of its self-check among the cells."""

    number: int
    solution: int
    check: int


def tags(cell) -> list[str]:
    return list(cell.metadata.get("tags", []))


def place(name: str, position: int, cell) -> str:
    """How errors name a cell: JupyterLab shows no cell numbers, so its first line is quoted too."""
    return f"{name}, cell {position} ({(cell.source.splitlines() or [''])[0][:60]!r})"


def headings(markdown: str) -> Iterable[tuple[int, str]]:
    """Level and text of each heading, code blocks left out."""
    for mark, text in re.findall(r"(?m)^(#{1,6})\s+(.*)", re.sub(r"(?ms)^```.*?^```", "", markdown)):
        yield len(mark), text.strip()


def find_exercises(notebook, name: str) -> list[Exercise]:
    """Exercises in the order of the notebook: a heading, one solution, one self-check.

    Raises:
        MalformedNotebook: where one of the three is missing, doubled or out of order, or a solution is more than
            imports and functions with docstrings.
    """
    found: list[Exercise] = []
    number = solution = check = None  # of the exercise being read; positions of its cells
    last = 0

    def close() -> None:
        if number is not None and check is None:
            missing = "solution" if solution is None else "self-check"
            where = place(name, last, notebook.cells[last])
            raise MalformedNotebook(f"{where}: exercise {number} has no code cell tagged `{missing}` after this one")

    for position, cell in enumerate(notebook.cells):
        where, tagged = place(name, position, cell), set(tags(cell)) & {"solution", "self-check"}
        if tagged and (cell.cell_type != "code" or len(tagged) > 1):
            raise MalformedNotebook(f"{where}: tagged {sorted(tagged)}: one of the two, on a code cell")
        if cell.cell_type == "markdown":
            for level, text in headings(cell.source):
                exercise = re.match(r"Exercise (\d+)\b", text) if level == 3 else None
                if exercise or level <= 2:
                    close()
                    number, solution, check = int(exercise[1]) if exercise else None, None, None
                    last = position
        elif "solution" in tagged:
            if number is None:
                raise MalformedNotebook(f"{where}: a solution needs a heading `### Exercise N` before it")
            if solution is not None:
                raise MalformedNotebook(f"{where}: exercise {number} has a second solution cell: put both into one")
            replace_bodies(cell.source, lambda function: None, where)
            solution = last = position
        elif "self-check" in tagged:
            if solution is None or check is not None:
                raise MalformedNotebook(f"{where}: a self-check follows the solution it checks, one for each exercise")
            check = position
            found.append(Exercise(number, solution, check))
    close()
    return found


def function_names(source: str) -> list[str]:
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def replace_bodies(source: str, body: Callable[[str], str | None], where: str) -> str:
    """Put ``body(function name)`` below each function's docstring; None leaves the function as it is.

    Imports, decorators, signatures, docstrings and the comments between functions are kept to the letter.

    Raises:
        MalformedNotebook: where the source is not imports and functions with docstrings.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise MalformedNotebook(f"{where}: not Python, {error.msg} in line {error.lineno}") from error
    lines, kept, end = source.split("\n"), [], 0
    for node in statements:
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        kept += [line for line in lines[end:start] if not line.startswith((" ", "\t"))]  # a body's last comment goes
        end = node.end_lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept += lines[start:end]
            continue
        if not isinstance(node, ast.FunctionDef):
            raise MalformedNotebook(
                f"{where}: line {node.lineno} is neither an import nor a function: a solution cell holds nothing else; "
                "move it into the setup cell or into a function"
            )
        docstring = node.body[0]
        if not ast.get_docstring(node) or lines[docstring.lineno - 1].encode()[: docstring.col_offset].strip():
            raise MalformedNotebook(f"{where}: function {node.name} needs a docstring, on a line of its own")
        new = body(node.name)
        if new is None:
            kept += lines[start:end]
            continue
        kept += lines[start : docstring.end_lineno - 1]
        kept.append(lines[docstring.end_lineno - 1].encode()[: docstring.end_col_offset].decode())
        kept.append(" " * docstring.col_offset + new)
    kept += [line for line in lines[end:] if not line.startswith((" ", "\t"))]
    if not function_names(source):
        raise MalformedNotebook(f"{where}: a solution cell defines at least one function")
    return "\n".join(kept).rstrip()


def stub(source: str, number: int, where: str) -> str:
    """The solution cell as a student gets it."""
    return replace_bodies(source, lambda function: STUB.format(number=number, function=function), where)


def student_copy(notebook, name: str):
    """The notebook with stubs for solutions and nothing computed."""
    exercises = find_exercises(notebook, name)
    made = copy.deepcopy(notebook)
    made.metadata.pop("widgets", None)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    for exercise in exercises:
        cell = made.cells[exercise.solution]
        cell.source = stub(cell.source, exercise.number, place(name, exercise.solution, cell))
        cell.metadata.pop("jupyter", None)  # a folded solution is an open stub
        cell.metadata.tags = [tag for tag in tags(cell) if tag != "solution"]
        if not cell.metadata.tags:
            del cell.metadata["tags"]
        check = made.cells[exercise.check]
        check.metadata.tags = [*tags(check), "raises-exception"]  # Run All goes on to the next exercise
    made.metadata.student_copy = {"sources": digest(made)}
    nbformat.validate(made)
    return made


def digest(notebook) -> str:
    return hashlib.sha256(json.dumps([cell.source for cell in notebook.cells]).encode()).hexdigest()


def worked_on(path: Path) -> bool:
    """Whether somebody has changed the text of a copy since it was written."""
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("student_copy", {}).get("sources") != digest(notebook)


def link(source: Path, at: Path) -> None:
    """A relative link to a folder; a copy of it where the machine makes no links."""
    if at.is_symlink():
        return
    try:
        at.symlink_to(os.path.relpath(source, at.parent), target_is_directory=True)
    except (OSError, NotImplementedError):
        shutil.copytree(source, at, dirs_exist_ok=True)


def write_copies(root: Path, only: Iterable[str] = ()) -> dict[Path, bool]:
    """Write the copies of ``root/notebooks``; each path with whether it was written (work in it is never lost)."""
    starts = tuple(only) or ("",)
    target = root / "build" / "student"
    copies = {
        target / "notebooks" / path.name: student_copy(nbformat.read(path, as_version=4), path.name)
        for path in sorted((root / "notebooks").glob("*.ipynb"))
        if path.name.startswith(starts)
    }
    (target / "notebooks").mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        if (root / name).is_dir():
            link(root / name, target / name)
    written = {}
    for path, notebook in copies.items():
        written[path] = not worked_on(path)
        if written[path]:
            nbformat.write(notebook, path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="numbers of the notebooks, e.g. 09; all by default")
    try:
        written = write_copies(ROOT, parser.parse_args().only)
    except MalformedNotebook as error:
        sys.exit(str(error))
    for path, fresh in written.items():
        note = "" if fresh else ": kept, it was worked on (delete it for a fresh one)"
        print(f"{path.relative_to(ROOT)}{note}")


if __name__ == "__main__":
    main()

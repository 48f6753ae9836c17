"""Read text tables of whole numbers, the form of most public data sets. Errors name the first bad line."""

import csv
import io
from pathlib import Path

import numpy as np
from jaxtyping import Int

MIN_PATTERN = 20  # rows, or steps of an order: fewer may look like a pattern by chance
_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
)
GENRES_100K = tuple(_GENRES.split())


def read_numbers(
    path: str | Path, columns: tuple[str, ...], separator: str = "\t", swapped: bool = True
) -> tuple[Int[np.ndarray, "rows columns"], Int[np.ndarray, " rows"]]:
    """Return the numbers [rows, columns] of a text table without a header, and the line number of each row.

    Args:
        path: the file.
        columns: names of the columns, for the messages; the first two are user and item.
        separator: a tabulator or ``::``.
        swapped: refuse a file whose rows are grouped by item and not by user, which suggests swapped columns.

    Raises:
        ValueError: the file is empty, has another number of columns, contains anything but digits, or has swapped
            columns; the message names the line.
        FileNotFoundError: the file does not exist.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent}")
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(
            f"{path.parent.name}/{path.name}: got an empty file, expected {' '.join(columns)} in each line"
        )
    if separator == "::":  # pandas' fast parser takes one character
        content = content.replace(b"::", b"\t")
    try:
        table = pd.read_csv(io.BytesIO(content), sep="\t", header=None, dtype=np.int64, quoting=csv.QUOTE_NONE)
        rows = table.to_numpy()
    except (ValueError, OverflowError):  # a ParserError is a ValueError
        rows = None
    if rows is None or rows.shape[1] != len(columns) or (rows < 0).any():
        _complain(path, content, columns)
    lines = np.arange(1, len(rows) + 1)
    if b"\n\n" in content or content.startswith((b"\n", b"\r")) or b"\r\n\r\n" in content:
        lines = np.array([number for number, line in enumerate(content.splitlines(), 1) if line.strip()])
    if swapped and len(rows) >= MIN_PATTERN and not _together(rows[:, 0]) and _together(rows[:, 1]):
        raise ValueError(
            f"{path.parent.name}/{path.name}: got rows that stand together by the second column, expected {columns[0]} "
            f"then {columns[1]}, all rows of a user together (columns swapped?)"
        )
    return rows, lines


def _together(ids):
    """Return whether all rows of an id are adjacent, in a column that repeats its ids at least twice on average."""
    distinct = len(np.unique(ids))
    return 2 * distinct <= len(ids) and np.count_nonzero(np.diff(ids)) + 1 == distinct


def _complain(path, content, columns):
    """Raise an error that names the first line which is not a row of whole numbers."""
    wanted = f"expected {len(columns)} whole numbers, {' '.join(columns)}"
    for number, line in enumerate(content.splitlines(), 1):
        fields = line.split(b"\t")
        if line.strip() and (len(fields) != len(columns) or not all(field.strip().isdigit() for field in fields)):
            got = line[:60].decode("utf-8", "replace")
            header = " (a header? there is none in this format)" if number == 1 and len(fields) == len(columns) else ""
            raise ValueError(f"{path.parent.name}/{path.name}, line {number}: got {got!r}, {wanted}{header}")
    raise ValueError(f"{path.parent.name}/{path.name}: got numbers out of range, {wanted}")


def films_100k(path: Path) -> dict[int, set[str]]:
    """Return the genres of each film number in MovieLens-100K's ``u.item``.

    Raises:
        ValueError: a line has another number of fields, or no film number; the message names the line.
        FileNotFoundError: the file does not exist.
    """
    films = {}
    for number, fields in _film_lines(path, "|"):
        flags = fields[-len(GENRES_100K) :]
        if len(fields) != 5 + len(GENRES_100K) or not set(flags) <= {"0", "1"}:
            raise ValueError(
                f"{path.name}, line {number}: got {len(fields)} fields, expected 24 with 19 genres of 0 or 1"
            )
        films[int(fields[0])] = {genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"}
    return films


def films_1m(path: Path) -> dict[int, set[str]]:
    """Return the genres of each film number in MovieLens-1M's ``movies.dat``.

    Raises:
        ValueError: a line has another number of fields, or no film number; the message names the line.
        FileNotFoundError: the file does not exist.
    """
    films = {}
    for number, fields in _film_lines(path, "::"):
        if len(fields) != 3:
            raise ValueError(f"{path.name}, line {number}: got {len(fields)} fields, expected film::title::genres")
        films[int(fields[0])] = set(fields[2].split("|"))
    return films


def _film_lines(path, separator):
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent}")
    for number, line in enumerate(path.read_bytes().decode("latin-1").split("\n"), 1):
        if line.strip():
            fields = line.rstrip("\r").split(separator)
            if not fields[0].isdigit():
                raise ValueError(f"{path.name}, line {number}: got {fields[0][:20]!r}, expected a film's number first")
            yield number, fields

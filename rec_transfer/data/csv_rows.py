"""Read a CSV file strictly, as rows of text, whole or in pieces, and count what became of every row."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd


BOM = b"\xef\xbb\xbf"
MAX_RECORD = 8  # in pieces: a longer row means that a quote is never closed
_PARSING = Lock()  # see _long_fields


@dataclass
class Report:
    """Counts of what became of every row of a file; rows read = rows kept + all dropped rows.

    Repaired rows are among the kept ones. A row that cannot be split into its fields counts once for every line it
    occupies, because a stray quote can join several lines. ``ignored`` names the columns that the package does not use.
    """

    rows_read: int = 0
    rows_kept: int = 0
    dropped: Counter = field(default_factory=Counter)
    repaired: Counter = field(default_factory=Counter)
    ignored: tuple[str, ...] = ()

    def table(self) -> "pd.DataFrame":
        """Return one row per reason: ``what`` (read, ignored, dropped, repaired, kept), ``reason``, ``rows``."""
        import pandas as pd

        rows = [("read", "", self.rows_read)]
        rows += [("ignored", f"column {column}", self.rows_read) for column in self.ignored]
        rows += [("dropped", *item) for item in sorted(self.dropped.items())]
        rows += [("repaired", *item) for item in sorted(self.repaired.items())]
        return pd.DataFrame([*rows, ("kept", "", self.rows_kept)], columns=["what", "reason", "rows"])


class Piece(NamedTuple):
    """The rows between two byte positions of a file; ``line`` is the number of their first line.

    ``header`` names the fields of a row.
    """

    path: Path
    header: tuple[str, ...]
    start: int
    stop: int
    line: int


def read_rows(path: str | Path, columns: tuple[str, ...]) -> tuple["pd.DataFrame", Report]:
    """Return all rows that have the right number of fields, as text, and a report that counts the others.

    Args:
        path: the file.
        columns: the columns that are needed; they are returned in this order.

    Raises:
        ValueError: the file is a directory, is empty, is not UTF-8, lacks a column or names one twice.
        FileNotFoundError: the file does not exist.
    """
    path = _existing(path)
    text = _decoded(path.read_bytes().removeprefix(BOM), path, 1)
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return _frame(reader, _read_header(path, reader, columns), columns)


def pieces(path: str | Path, columns: tuple[str, ...], size: int) -> Iterator[Piece]:
    """Split a file of any length into pieces of whole rows, about ``size`` bytes each, and read one at a time.

    Args:
        path: the file.
        columns: the columns that are needed.
        size: bytes.

    Raises:
        ValueError: as ``read_rows``; also a row longer than ``MAX_RECORD`` pieces.
        FileNotFoundError: the file does not exist.
    """
    path = _existing(path)
    header, start, line = _leading(path, columns, MAX_RECORD * size)
    with path.open("rb") as file:
        file.seek(start)
        held = b""
        while chunk := file.read(size):
            held += chunk
            stop = _last_end(held)
            if stop:
                yield Piece(path, header, start, start + stop, line)
                start, line, held = start + stop, line + held.count(b"\n", 0, stop), held[stop:]
            elif len(held) > MAX_RECORD * size:
                raise ValueError(_endless(path, line, MAX_RECORD * size))
        if held:
            yield Piece(path, header, start, start + len(held), line)


def read_piece(piece: Piece, columns: tuple[str, ...]) -> tuple["pd.DataFrame", Report]:
    """Return what ``read_rows`` returns, for one piece of a file."""
    with piece.path.open("rb") as file:
        file.seek(piece.start)
        text = _decoded(file.read(piece.stop - piece.start), piece.path, piece.line)
    with _long_fields():
        return _frame(csv.reader(io.StringIO(text, newline=""), strict=True), list(piece.header), columns)


def _existing(path):
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path.name}: got a directory, expected a CSV file")
    if not path.exists():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent}")
    return path


def _decoded(data, path, first_line):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + first_line
        raise ValueError(
            f"{path.name}: got bytes that are no UTF-8 ({error.reason} in line {line}), expected UTF-8"
        ) from error


def _leading(path, columns, most):
    """Return the header, the position of the first byte after it, and the number of the line at that byte."""
    start, count = 0, 0

    def lines(file):
        nonlocal start, count
        for line in file:
            start, count = start + len(line.encode("utf-8", "surrogateescape")), count + 1
            if start > most:
                raise ValueError(_endless(path, 1, most))
            yield line

    with path.open("rb") as file:
        bom = file.read(len(BOM)) == BOM
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file, _long_fields():
        header = tuple(_read_header(path, csv.reader(lines(file), strict=True), columns))
    start += len(BOM) * bom
    with path.open("rb") as file:
        _decoded(file.read(start), path, 1)
    return header, start, 1 + count


def _endless(path, line, most):
    return (
        f"{path.name}: got a row of more than {most:,} bytes in line {line}, expected rows of less "
        "(a quote that is never closed?)"
    )


@contextmanager
def _long_fields():
    """Accept fields of any length while the block runs; a long field is cut and counted later.

    ``csv`` has one limit for the whole process: neither a reader nor a dialect has one of its own, and a reader looks
    the limit up while it parses. The lock keeps one thread from restoring the limit while another still parses.
    """
    with _PARSING:
        limit = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def _last_end(data):
    """Return the length of the whole rows at the start of ``data``, in bytes; 0 if no row ends in it."""
    stop = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, -1) + 1
    if data.find(b'"', 0, stop) < 0:
        return stop
    read, exhausted = 0, False

    def lines():
        nonlocal read, exhausted
        for line in io.StringIO(data[:stop].decode("latin-1"), newline=""):  # a byte a character, commas stay commas
            read += len(line)
            yield line
        exhausted = True

    with _long_fields():
        reader = csv.reader(lines(), strict=True)
        while not exhausted:
            whole = read
            with suppress(csv.Error):
                next(reader, None)
    return whole


def _read_header(path, reader, columns):
    wanted = f"expected a header with {', '.join(columns)}"
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"{path.name}: got a first line that is no CSV ({error}), {wanted}") from error
    if not header:
        raise ValueError(f"{path.name}: got an empty file or first line, {wanted}")
    if missing := [column for column in columns if column not in header]:
        raise ValueError(f"{path.name}: column {', '.join(missing)} is missing: got {header}, {wanted}")
    if len(set(header)) != len(header):
        raise ValueError(f"{path.name}: got a column twice: {header}, expected each once")
    return header


def _frame(reader, header, columns):
    import pandas as pd

    rows, report = _split(reader, len(header))
    report.ignored = tuple(name for name in header if name not in columns)
    return pd.DataFrame(rows, columns=header, dtype=object)[list(columns)], report


def _split(reader, width):
    rows, report = [], Report()
    while True:
        before = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return rows, report
        except csv.Error:  # a stray quote
            row = []
        if len(row) == width and not any("\0" in cell for cell in row):
            rows.append(row)
            report.rows_read += 1
        else:
            lines = reader.line_num - before  # more than one if a stray quote has joined lines
            report.rows_read += lines
            report.dropped["wrong number of fields" if len(row) != width else "NUL byte"] += lines

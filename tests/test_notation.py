"""One notation for the series: every symbol that a notebook's header lists has its row in docs/notation.md."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTATION = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
COLUMNS = ("symbol", "meaning", "in code", "中文")


def rows(markdown, columns):
    """Cells of every row below the table head that starts with ``columns``; a bar inside formulas is ``\\|``."""
    found, inside = [], False
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if inside and cells and not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found.append(cells)
        inside = bool(cells) and (inside or tuple(cells[: len(columns)]) == columns)
    return found


def split_at_commas(formula):
    """Parts between the commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in formula:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def symbols(cell):
    """LaTeX of the symbols in a table cell, without the spaces that TeX ignores."""
    formulas = (part for formula in re.findall(r"\$([^$]+)\$", cell) for part in split_at_commas(formula))
    # \mid x and \midx differ: a space after a command goes only where no letter follows it.
    return [
        re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])|\s+", lambda gap: f"{gap[1]} " if gap[1] else "", one) for one in formulas
    ]


def notation_faults(markdown):
    """What is wrong with the table of symbols itself."""
    seen = set()
    for cells in rows(markdown, COLUMNS[:1]):
        if len(cells) != len(COLUMNS) or not all(cells[column] for column in (0, 1, 3)):
            yield f"row {cells[0]}: fill the columns {', '.join(COLUMNS)} (`in code` may be empty), got {cells}"
        if not symbols(cells[0]):
            yield f"row {cells[0]}: write the symbol between $ signs"
        if "(" in re.sub(r"\$[^$]+\$", "", cells[0]):  # says where the symbol means this
            continue
        for symbol in symbols(cells[0]):
            if symbol in seen:
                yield f"${symbol}$ has two rows: one symbol, one meaning, or say (in brackets) where it means the other"
            seen.add(symbol)


def header_faults(name, header, notation):
    """Symbols of a notebook's header that the notation lacks."""
    known = {symbol for cells in rows(notation, COLUMNS[:1]) for symbol in symbols(cells[0])}
    table = rows(header, COLUMNS[:3])
    if not table:
        yield f"{name}: the header has no table | symbol | meaning | in code |"
    for cells in table:
        if not symbols(cells[0]):
            yield f"{name}: row {cells[0]!r}: write the symbol between $ signs"
        for symbol in symbols(cells[0]):
            if symbol not in known:
                yield f"{name}: ${symbol}$ is not in docs/notation.md: use the series' symbol, or add its row there"


def test_notation_has_a_full_row_for_every_symbol():
    assert len(rows(NOTATION, COLUMNS)) > 30
    assert not (found := list(notation_faults(NOTATION))), "\n".join(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_header_symbols_are_in_the_notation(path):
    header = nbformat.read(path, as_version=4).cells[0].source
    assert not (found := list(header_faults(path.name, header, NOTATION))), "\n".join(found)


# The machinery, on small tables.

TABLE = """| symbol | meaning | in code | 中文 |
|---|:---:|---|---|
| $s$, $t$ (as subscripts) | source, target | | 源、目标 |
| $p_\\theta(x \\mid z)$ | likelihood | `likelihoods` | 似然 |
| $\\mathcal{N}(0, I), \\mu$ | a normal, its mean | | 正态 |
| $\\lVert x \\rVert$ \\| norm | length | | 长度 |
"""
HEADER = "# 01\n\n| symbol | meaning | in code |\n|---|---|---|\n"


def test_a_symbol_may_mean_something_else_where_its_row_says_so():
    assert list(notation_faults(TABLE + "| $t$ (of a test) | statistic | `t` | 统计量 |")) == []


def test_symbols_are_read_from_the_first_column():
    assert list(notation_faults(TABLE)) == []
    assert [symbols(cells[0]) for cells in rows(TABLE, COLUMNS)] == [
        ["s", "t"],
        [r"p_\theta(x\mid z)"],
        [r"\mathcal{N}(0,I)", r"\mu"],
        [r"\lVert x\rVert"],
    ]
    assert rows("| a | b |\n|---|---|\n| $x$ | 1 |", COLUMNS) == []


@pytest.mark.parametrize("cell", ["$s$", "$ t $, $s$", r"$p_\theta (x\mid z)$", r"$\mu$ (mean)", r"$\mathcal{N}(0,I)$"])
def test_spaces_and_words_beside_a_symbol_do_not_matter(cell):
    assert list(header_faults("01", f"{HEADER}| {cell} | meaning | `code` |", TABLE)) == []


@pytest.mark.parametrize(
    ("cell", "fault"),
    [("$q$", "$q$ is not in"), ("$s$, $S$", "$S$ is not in"), (r"$\nu$", r"$\nu$ is not in"), ("s", "between $ signs")],
)
def test_an_unknown_symbol_is_reported(cell, fault):
    (found,) = header_faults("01", f"{HEADER}| {cell} | meaning | `code` |", TABLE)
    assert fault in found


def test_a_header_without_a_table_is_reported():
    (found,) = header_faults("01", "# 01\n\n| name |\n|---|\n| $s$ |", TABLE)
    assert "no table" in found


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("| $q$ | meaning | `code` |", "fill the columns"),
        ("| $q$ | | `code` | 中文 |", "fill the columns"),
        ("| $q$ | meaning | `code` | |", "fill the columns"),
        ("| q | meaning | `code` | 中文 |", "between $ signs"),
        ("| $\\mu$ | time | `time` | 时间 |", r"$\mu$ has two rows"),
    ],
)
def test_a_bad_row_of_the_notation_is_reported(row, fault):
    (found,) = notation_faults(TABLE + row)
    assert fault in found

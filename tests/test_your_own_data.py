"""docs/your_own_data.md tells the truth: its code runs, notebook 15 runs the same, its errors are those that come."""

import re
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest

from rec_transfer.data.counts import from_events
from rec_transfer.data.log import EVENT_COLUMNS, ITEM_COLUMNS, read_log
from rec_transfer.evaluation.overlap import overlap_lift
from rec_transfer.methods.linear import emcdr
from rec_transfer.methods.lists import recommend
from rec_transfer.types import TrainingData

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?s)```python\n(.*?)```", PAGE)
ERRORS = dict(re.findall(r"(?m)^\| ([^|`]+?) \| `([^`]+)` \|$", PAGE))


def test_the_code_runs_from_the_notebooks_folder(monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "notebooks")
    names = {}
    for block in BLOCKS:
        exec(compile(block, "your_own_data.md", "exec"), names)
    new, lists, films, books = names["new"], names["lists"], *(names["platform"][name] for name in ("films", "books"))
    assert lists.shape == (len(new.users), 5) == (450, 5)
    assert not set(new.users) & set(books.users)
    assert set(new.users) < set(films.users)
    assert set(lists.ravel()) <= set(books.items)
    printed = capsys.readouterr().out
    measured = re.search(r"(?m)^400 overlapping users.*", PAGE)[0]
    numbers, told = (np.array(re.findall(r"[+-]0\.\d+", text), float) for text in (measured, printed))
    np.testing.assert_allclose(told[:3], numbers, atol=0.002)  # the page says what is printed
    curve = names["curve"]
    assert curve.enough[10] == 0 < curve.enough[40] < 1, "the page says that 40 are enough in some draws"
    assert (curve.enough[[80, 160, 320]] == 1).all(), "the page says that 80 are enough"
    assert curve.lift[10] < 0 < curve.lift[40] < curve.lift[160]


def test_the_lines_are_ten():
    code = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) == 10


def test_notebook_15_runs_the_same_cells():
    cells = nbformat.read(ROOT / "notebooks" / "15_real_data.ipynb", as_version=4).cells
    sources = {cell.source.strip() for cell in cells if cell.cell_type == "code"}
    for block in BLOCKS:
        assert block.strip() in sources, f"not a cell of notebook 15:\n{block}"


EVENTS = [
    [f"u{user}", item, "", "click", f"2025-01-0{1 + user} 08:0{number}", "", ""]
    for user in range(3)
    for number, item in enumerate(("F1", "F2", "B1", "B2"))
]
ITEMS = [[item, domain, "", "", "", ""] for item, domain in (("F1", "films"), ("F2", "films"), ("B1", "books"),
         ("B2", "books"), ("B3", "books"))]  # fmt: skip


def write(path, columns, rows):
    path.write_text("\n".join(",".join(row) for row in [columns, *rows]) + "\n", encoding="utf-8")
    return path


def log_of(folder, events=EVENTS, columns=EVENT_COLUMNS):
    return read_log(write(folder / "log.csv", columns, events), write(folder / "items.csv", ITEM_COLUMNS, ITEMS))


def books_without(events, *, kind=None):
    """The events without those of books, or with another kind of event there."""
    return [
        [*row[:3], kind, *row[4:]] if kind and row[1].startswith("B") else row
        for row in events
        if kind or not row[1].startswith("B")
    ]


def lift(log, folds=5):
    platform = from_events(log.coded())
    train = TrainingData(platform["films"], platform["books"])
    return overlap_lift(train, emcdr(1), key=jax.random.key(0), folds=folds)


def test_blank_columns_may_be_blank(tmp_path):
    log = log_of(tmp_path)
    assert log.events_report.rows_kept == len(EVENTS)
    assert {name: domain.counts.sum() for name, domain in from_events(log.coded()).items()} == {"films": 6, "books": 6}


def bad(folder, text=None, encoding="utf-8", **options):
    if text is None:
        return log_of(folder, **options)
    log_of(folder)
    (folder / "log.csv").write_bytes(text.encode(encoding))
    return read_log(folder / "log.csv", folder / "items.csv")


HEADER = ",".join(EVENT_COLUMNS)
COMES = {
    "a column missing": lambda folder: bad(folder, HEADER.replace("event,", "") + "\nu0,F1,,2025-01-01,,\n"),
    "another encoding": lambda folder: bad(folder, HEADER + "\nu0,F1,,click,2025-01-01,,é\n", "latin-1"),
    "an empty file": lambda folder: bad(folder, ""),
    "no row left": lambda folder: bad(folder, events=[["", *row[1:]] for row in EVENTS]),
    "a domain nobody used": lambda folder: lift(bad(folder, events=books_without(EVENTS))),
    "no clicks in a domain": lambda folder: lift(bad(folder, events=books_without(EVENTS, kind="view"))),
    "no overlapping user": lambda folder: lift(bad(folder, events=[[row[0] + row[1][0], *row[1:]] for row in EVENTS])),
    "fewer than five": lambda folder: lift(bad(folder)),
    "a list too long": lambda folder: recommend(np.zeros((1, 3)), np.array(["B1", "B2", "B3"]), k=99),
}


def test_every_error_of_the_page_is_tried():
    assert set(ERRORS) == set(COMES)


@pytest.mark.parametrize("input", COMES)
def test_the_errors_are_those_of_the_page(input, tmp_path):
    with pytest.raises(ValueError, match="got") as caught:
        COMES[input](tmp_path)
    pattern = ".*".join(re.escape(part) for part in ERRORS[input].split("..."))
    assert re.fullmatch(pattern, str(caught.value)), f"{caught.value}\nis not as the page says\n{ERRORS[input]}"

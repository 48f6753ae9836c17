"""The platform's log: read, validate, clean, and count every row that is dropped or repaired, by reason.

The only module, with ``log_writer``, that knows the names of columns; everything after it works on coded ``Events``.
"""

import csv
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rec_transfer.types import Events

if TYPE_CHECKING:
    import pandas as pd

EVENTS = ("view", "click", "purchase", "comment")
EVENT_COLUMNS = ("user_id", "item_id", "domain", "event", "timestamp", "rating", "comment")
ITEM_COLUMNS = ("item_id", "domain", "title", "genre", "price", "text")
EVENT_ORDER = ("timestamp", "user_id", "item_id", "event")
RATINGS = (1, 5)
LONGEST_TEXT = 2000  # characters of a comment or blurb that are kept
BOT_EVENTS, BOT_MINUTES = 30, 10  # nobody reads thirty pages in ten minutes, and then goes on
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so


@dataclass
class Report:
    """What became of every row of a file: read = kept + all dropped. Repaired rows are among the kept ones.

    ``ignored`` names columns of the file that the package has no use for.
    """

    rows_read: int = 0
    rows_kept: int = 0
    dropped: Counter = field(default_factory=Counter)
    repaired: Counter = field(default_factory=Counter)
    ignored: tuple[str, ...] = ()

    def table(self) -> "pd.DataFrame":
        """One row per reason: ``what`` (read, dropped, repaired, kept), ``reason``, ``rows``."""
        import pandas as pd

        rows = [("read", "", self.rows_read)]
        rows += [("ignored", f"column {column}", self.rows_read) for column in self.ignored]
        rows += [("dropped", *item) for item in sorted(self.dropped.items())]
        rows += [("repaired", *item) for item in sorted(self.repaired.items())]
        return pd.DataFrame([*rows, ("kept", "", self.rows_kept)], columns=["what", "reason", "rows"])


@dataclass(frozen=True)
class Log:
    """A clean log: ``events`` and ``items`` as frames with typed columns, and a report on each file."""

    events: "pd.DataFrame"
    items: "pd.DataFrame"
    events_report: Report
    items_report: Report

    def coded(self) -> dict[str, Events]:
        """One ``Events`` per domain, its items in the order of the catalogue, its users sorted.

        Raises:
            ValueError: a domain of the catalogue in which nobody did anything.
        """
        import pandas as pd

        result = {}
        for domain, items in self.items.groupby("domain", sort=False):
            events = self.events[self.events.domain == domain]
            if events.empty:
                raise ValueError(f"domain {domain!r}: got no users, expected at least one event after cleaning")
            users, user = np.unique(events.user_id.to_numpy(str), return_inverse=True)
            result[domain] = Events(
                domain=domain,
                users=users,
                items=items.item_id.to_numpy(str),
                genres=items.genre.to_numpy(str),
                user=user,
                item=pd.Index(items.item_id).get_indexer(events.item_id),
                kind=events.event.to_numpy(str),
                day=(events.timestamp - pd.Timestamp(0)) / pd.Timedelta(days=1),
            )
        return result


def read_log(events_path: str | Path, items_path: str | Path) -> Log:
    """Read and clean the two files of a platform.

    What happens to a bad row: **dropped** where it cannot be known what happened (wrong number of fields, no user, an
    item that is not in the catalogue, no or an impossible time, an unknown kind of event, a domain that contradicts
    the item, a second copy, anything done by a bot); **repaired** where the event is certain and a detail is not
    (spelling of the event, a blank domain, a rating that is no number from 1 to 5, a text that is too long or that a
    spreadsheet would run as a formula). The report counts either by reason.

    Raises:
        ValueError: a file that is a directory, empty, not UTF-8, or lacks a column; no row left.
        FileNotFoundError: a file that is not there.
    """
    items, items_report = read_items(items_path)
    rows, report = _read_rows(events_path, EVENT_COLUMNS)
    events = _finish(*_clean_events(rows, items, report), report, events_path)
    return Log(events.sort_values(list(EVENT_ORDER), ignore_index=True), items, report, items_report)


def read_items(path: str | Path) -> tuple["pd.DataFrame", Report]:
    """Read and clean the catalogue: rows without id or domain and repeated ids are dropped, bad prices blanked.

    Raises:
        ValueError, FileNotFoundError: as ``read_log``.
    """
    import pandera.pandas as pa

    items, report = _read_rows(path, ITEM_COLUMNS)
    repairs = {}
    for column in ("item_id", "domain", "title", "genre"):
        items[column] = items[column].str.strip()
    for column in ("title", "text"):
        items[column] = _safe_text(items[column], repairs)
    items["price"] = _numbers(items.price, 0, np.inf, repairs)
    present = pa.Check.str_length(min_value=1, error="missing")
    items = _drop_invalid(
        items, pa.DataFrameSchema({"item_id": pa.Column(checks=present), "domain": pa.Column(checks=present)}), report
    )
    items = _drop(items, items.item_id.duplicated(), "duplicate", report)
    return _finish(items, repairs, report, path).reset_index(drop=True), report


def _clean_events(events, items, report):
    """The rows that can be used, and per kind of repair which rows (of all that were read) it touched."""
    import pandas as pd
    import pandera.pandas as pa

    for column in ("user_id", "item_id", "domain"):
        events[column] = events[column].str.strip()
    spelled = events.event.str.strip().str.lower()
    repairs = {"event: spelling": spelled != events.event}
    events["event"] = spelled
    home = events.item_id.map(items.set_index("item_id").domain)
    blank = (events.domain == "") & home.notna()
    repairs["domain: filled in from the item"] = blank
    events["domain"] = events.domain.mask(blank, home)
    times = pd.to_datetime(events.timestamp.replace("", None), errors="coerce", format="ISO8601", utc=True)
    events["timestamp"] = times.dt.tz_localize(None)
    events["rating"] = _numbers(events.rating, *RATINGS, repairs)
    events["comment"] = _safe_text(events.comment, repairs)
    schema = pa.DataFrameSchema(
        {
            "user_id": pa.Column(checks=pa.Check.str_length(min_value=1, error="missing")),
            "item_id": pa.Column(checks=pa.Check.isin(set(items.item_id), error="not in the catalogue")),
            "domain": pa.Column(checks=pa.Check(lambda domain: (domain == home) | home.isna(), error="not the item's")),
            "event": pa.Column(checks=pa.Check.isin(EVENTS, error=f"not one of {', '.join(EVENTS)}")),
            "timestamp": pa.Column(nullable=False),
        }
    )
    events = _drop_invalid(events, schema, report)
    events = _drop(events, events.duplicated(["user_id", "item_id", "event", "timestamp"]), "duplicate", report)
    return _drop(events, events.user_id.isin(_bots(events)), "bot", report), repairs


def _finish(frame, repairs, report, path):
    """Count what was kept, and the repairs among it; a file of which nothing is left is refused."""
    report.rows_kept = len(frame)
    if frame.empty:
        raise ValueError(f"{Path(path).name}: got no usable row, dropped {dict(report.dropped)}")
    report.repaired.update({reason: int(rows[frame.index].sum()) for reason, rows in repairs.items()})
    report.repaired = +report.repaired
    return frame


def _drop_invalid(frame, schema, report):
    """Drop the rows that fail a schema; a row that fails twice is counted under its first failing column."""
    from pandera.errors import SchemaErrors

    try:
        return schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        failures = errors.failure_cases
    order = {column: position for position, column in enumerate(schema.columns)}
    failures = failures.sort_values("column", key=lambda column: column.map(order), kind="stable")
    reasons = failures.drop_duplicates("index").set_index("index")
    missing = {"not_nullable": "missing or no date"}
    for (column, check), rows in reasons.groupby(["column", "check"]):
        report.dropped[f"{column}: {missing.get(check, check)}"] += len(rows)
    return frame.drop(index=reasons.index)


def _drop(frame, unwanted, reason, report):
    if unwanted.any():
        report.dropped[reason] += int(unwanted.sum())
    return frame[~unwanted]


def _numbers(texts, low, high, repairs):
    """Texts as numbers, blank where they are no number from low to high (a blank text is no repair)."""
    import pandas as pd

    numbers = pd.to_numeric(texts.replace("", None), errors="coerce")
    numbers = numbers.where(numbers.between(low, high) & np.isfinite(numbers)).astype(float)
    wanted = f"from {low} to {high}" if np.isfinite(high) else f"of at least {low}"
    repairs[f"{texts.name}: no number {wanted}, blanked"] = numbers.isna() & (texts.str.strip() != "")
    return numbers


def _safe_text(texts, repairs):
    """Cut texts that are too long; put an apostrophe before those that a spreadsheet would run."""
    formula = texts.str.startswith(FORMULA)
    repairs[f"{texts.name}: cut to {LONGEST_TEXT:,} characters"] = texts.str.len() > LONGEST_TEXT
    repairs[f"{texts.name}: formula made plain text"] = formula
    texts = texts.str.slice(stop=LONGEST_TEXT)
    return texts.mask(formula, "'" + texts)


def _bots(events):
    """Users with more than ``BOT_EVENTS`` events within some ``BOT_MINUTES`` minutes."""
    import pandas as pd

    times = events.sort_values(["user_id", "timestamp"])[["user_id", "timestamp"]]
    later = times.groupby("user_id").timestamp.shift(-BOT_EVENTS)
    return times.user_id[(later - times.timestamp) <= pd.Timedelta(minutes=BOT_MINUTES)].unique()


def _read_rows(path: str | Path, columns: tuple[str, ...]):
    """All rows with the right number of fields, as text, and a report that counts the lines that had another."""
    import pandas as pd

    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path.name}: got a directory, expected a CSV file")
    if not path.exists():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent}")
    report, rows = Report(), []
    limit = csv.field_size_limit(sys.maxsize)  # a long field is cut and counted later, not refused
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, columns)
            report.ignored = tuple(name for name in header if name not in columns)
            before = reader.line_num
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    break
                except csv.Error:  # a stray quote: every line it swallowed is lost, and counted
                    row = None
                if row is not None and len(row) == len(header):
                    rows.append(row)
                    report.rows_read += 1
                else:
                    lines = reader.line_num - before if row is None else 1
                    report.rows_read += lines
                    report.dropped["wrong number of fields"] += lines
                before = reader.line_num
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name}: got bytes that are no UTF-8 ({error.reason} at byte {error.start}), expected UTF-8"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return pd.DataFrame(rows, columns=header, dtype=object)[list(columns)], report


def _check_header(path, header, columns):
    if not header:
        raise ValueError(f"{path.name}: got an empty file, expected a header with {', '.join(columns)}")
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(f"{path.name}: column {', '.join(missing)} is missing: got {', '.join(header)}")
    if len(set(header)) != len(header):
        raise ValueError(f"{path.name}: got a column twice: {', '.join(header)}, expected each once")

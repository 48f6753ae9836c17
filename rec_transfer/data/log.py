"""The platform's log: read, validate, clean, and count every row that is dropped or repaired, by reason.

The only module, with ``log_writer``, that knows the names of columns; everything after it works on coded ``Events``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rec_transfer.data.csv_rows import Report, read_rows
from rec_transfer.types import Events

if TYPE_CHECKING:
    import pandas as pd


EVENTS = ("view", "click", "purchase", "comment")
EVENT_COLUMNS = ("user_id", "item_id", "domain", "event", "timestamp", "rating", "comment")
ITEM_COLUMNS = ("item_id", "domain", "title", "genre", "price", "text")
EVENT_ORDER = ("timestamp", "user_id", "item_id", "event")
RATINGS = (1, 5)
LONGEST_TEXT = 2000  # characters of a title, comment or blurb that are kept
LONGEST_ID = 100  # NumPy stores every id of an array in the width of the longest
BOT_EVENTS, BOT_MINUTES = 30, 10  # nobody reads thirty pages in ten minutes, and then goes on
DATE = r"\s*(?:19[7-9]|20\d|21\d)\d-\d\d-\d\d"  # how a timestamp has to begin: pandas also takes "now", and 1735
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so


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
                day=((events.timestamp - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy(),
            )
        return result


def read_log(events_path: str | Path, items_path: str | Path) -> Log:
    """Read and clean the two files of a platform.

    What happens to a bad row: **dropped** where it cannot be known what happened (wrong number of fields, a NUL byte,
    no user or one longer than ``LONGEST_ID``, an item that is not in the catalogue, a domain that contradicts the
    item, an unknown kind of event, no date from 1970 to 2199, a second copy (same user, item, event and
    time), anything done by a bot: more than ``BOT_EVENTS`` events within ``BOT_MINUTES``); **repaired** where the
    event is certain and a detail is not (spaces around an id or domain, spelling of the event, a blank domain, a
    rating that is no number from 1 to 5, a text that is too long or that a spreadsheet would run as a formula). The
    report counts either by reason, a row dropped under the first of them. Times are in ISO 8601
    (``2025-01-31 08:15``, with or without ``T``, seconds and a zone), kept in UTC, and taken as UTC without a zone.

    Raises:
        ValueError: a file that is a directory, empty, not UTF-8, or lacks a column or names it twice; no row left.
        FileNotFoundError: a file that is not there.
    """
    items, items_report = read_items(items_path)
    rows, report = read_rows(events_path, EVENT_COLUMNS)
    events, repairs = clean_rows(rows, items, report)
    events = _finish(drop_copies_and_bots(events, report), repairs, report, events_path)
    return Log(events.sort_values(list(EVENT_ORDER), ignore_index=True), items, report, items_report)


def read_items(path: str | Path) -> tuple["pd.DataFrame", Report]:
    """Read and clean the catalogue: rows without id or domain and repeated ids are dropped, bad prices blanked.

    Spaces, texts and errors are those of ``read_log``.
    """
    import pandera.pandas as pa

    items, report = read_rows(path, ITEM_COLUMNS)
    repairs = {}
    for column in ("item_id", "domain", "title", "genre"):
        items[column] = _stripped(items[column], repairs)
    for column in ("title", "genre", "text"):
        items[column] = _safe_text(items[column], repairs)
    items["price"] = _numbers(items.price, 0, np.inf, repairs)
    items = _drop_invalid(items, pa.DataFrameSchema({"item_id": _id_column(), "domain": _id_column()}), report)
    items = _drop(items, items.item_id.duplicated(), "duplicate", report)
    return _finish(items, repairs, report, path).reset_index(drop=True), report


def clean_rows(events: "pd.DataFrame", items: "pd.DataFrame", report: Report) -> tuple["pd.DataFrame", dict]:
    """Clean each row on its own: the rows that can be used, and per kind of repair which of all rows it touched.

    Dropped rows are counted in ``report``; copies and bots, which no row shows alone, are left in.
    """
    import pandas as pd
    import pandera.pandas as pa

    repairs = {}
    for column in ("user_id", "item_id", "domain"):
        events[column] = _stripped(events[column], repairs)
    spelled = events.event.str.strip().str.lower()
    repairs["event: spelling"] = spelled != events.event
    events["event"] = spelled
    home = events.item_id.map(items.set_index("item_id").domain)
    blank = (events.domain == "") & home.notna()
    repairs["domain: filled in from the item"] = blank
    events["domain"] = events.domain.mask(blank, home)
    dated = events.timestamp.where(events.timestamp.str.match(DATE))
    times = pd.to_datetime(dated, errors="coerce", format="ISO8601", utc=True)
    events["timestamp"] = times.dt.tz_localize(None)
    events["rating"] = _numbers(events.rating, *RATINGS, repairs)
    events["comment"] = _safe_text(events.comment, repairs)
    schema = pa.DataFrameSchema(
        {
            "user_id": _id_column(),
            "item_id": pa.Column(checks=pa.Check.isin(set(items.item_id), error="not in the catalogue")),
            "domain": pa.Column(checks=pa.Check(lambda domain: (domain == home) | home.isna(), error="not the item's")),
            "event": pa.Column(checks=pa.Check.isin(EVENTS, error=f"not one of {', '.join(EVENTS)}")),
            "timestamp": pa.Column(nullable=False),
        }
    )
    return _drop_invalid(events, schema, report), repairs


def drop_copies_and_bots(events: "pd.DataFrame", report: Report) -> "pd.DataFrame":
    """Drop second copies and whatever bots did, counted in ``report``, from all the clean rows of some users."""
    events = _drop(events, events.duplicated(["user_id", "item_id", "event", "timestamp"]), "duplicate", report)
    return _drop(events, events.user_id.isin(_bots(events)), "bot", report)


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
    failures = failures.sort_values("column", key=lambda names: names.map(list(schema.columns).index), kind="stable")
    reasons = failures.drop_duplicates("index").set_index("index")
    missing = {"not_nullable": "missing or no date"}
    for (column, check), rows in reasons.groupby(["column", "check"]):
        report.dropped[f"{column}: {missing.get(check, check)}"] += len(rows)
    return frame.drop(index=reasons.index)


def _drop(frame, unwanted, reason, report):
    if unwanted.any():
        report.dropped[reason] += int(unwanted.sum())
    return frame[~unwanted]


def _id_column():
    import pandera.pandas as pa

    given = pa.Check.str_length(min_value=1, error="missing")
    return pa.Column(checks=[given, pa.Check.str_length(max_value=LONGEST_ID, error=f"over {LONGEST_ID} characters")])


def _stripped(texts, repairs):
    stripped = texts.str.strip()
    repairs[f"{texts.name}: spaces around it removed"] = stripped != texts
    return stripped


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
    formula = repairs[f"{texts.name}: formula made plain text"] = texts.str.startswith(FORMULA)
    texts = texts.mask(formula, "'" + texts)
    repairs[f"{texts.name}: cut to {LONGEST_TEXT:,} characters"] = texts.str.len() > LONGEST_TEXT
    return texts.str.slice(stop=LONGEST_TEXT)


def _bots(events):
    """Users with more than ``BOT_EVENTS`` events within some ``BOT_MINUTES`` minutes."""
    import pandas as pd

    times = events.sort_values(["user_id", "timestamp"])[["user_id", "timestamp"]]
    later = times.groupby("user_id").timestamp.shift(-BOT_EVENTS)
    return times.user_id[(later - times.timestamp) <= pd.Timedelta(minutes=BOT_MINUTES)].unique()

"""Read, validate and clean the platform's log, and count every dropped or repaired row by reason.

Only this module and ``synthetic.log_writer`` know the names of columns. Everything else works on coded ``Events``.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
MAX_TEXT = 2000  # characters of a title, comment or blurb that are kept
MAX_ID = 100  # NumPy stores every id of an array in the width of the longest
BOT_EVENTS, BOT_MINUTES = 30, 10  # more than anybody reads
DATE_PATTERN = r"\s*(?:19[7-9]|20\d|21\d)\d-\d\d-\d\d"  # pandas would also accept "now", or 1735
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that starts with one


@dataclass(frozen=True)
class Log:
    """A clean log: ``events`` and ``items`` as frames with typed columns, and a report on each file."""

    events: "pd.DataFrame"
    items: "pd.DataFrame"
    events_report: Report
    items_report: Report

    def coded(self) -> dict[str, Events]:
        """Return one ``Events`` per domain; its items are in the order of the catalogue, its users are sorted.

        Raises:
            ValueError: a domain of the catalogue has no event.
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
    """Return the clean log of a platform, read from its file of events and its catalogue.

    A row is **dropped** if it does not say what happened: the wrong number of fields, no user, an unknown item or
    event, a domain that is not the item's, no date. So are repeated rows, and all rows of a bot: a user with more than
    ``BOT_EVENTS`` events within ``BOT_MINUTES`` minutes. A row is **repaired** if the event is certain and a detail is
    wrong: spaces, spelling, a blank domain, a rating that is not a number from 1 to 5, a text that is too long or that
    a spreadsheet would run as a formula. docs/your_own_data.md has the whole table.

    The reports count the rows by reason; a dropped row counts under the first of its reasons. Times are in ISO 8601
    (``2025-01-31 08:15``, with or without ``T``, seconds and a zone). They are kept in UTC; a time without a zone is
    UTC.

    Args:
        events_path: the file of events.
        items_path: the catalogue.

    Raises:
        ValueError: a file is a directory, is empty, is not UTF-8, lacks a column or names one twice; or no row is left.
        FileNotFoundError: a file does not exist.
    """
    items, items_report = read_items(items_path)
    rows, report = read_rows(events_path, EVENT_COLUMNS)
    clean = clean_rows(rows, items)
    events, dropped = drop_copies_and_bots(clean.rows)
    report.dropped += clean.dropped + dropped
    _count_kept(events, clean.repairs, report, events_path)
    return Log(events.sort_values(list(EVENT_ORDER), ignore_index=True), items, report, items_report)


def read_items(path: str | Path) -> tuple["pd.DataFrame", Report]:
    """Return the clean catalogue and its report.

    Rows without an id or a domain and rows that repeat an id are dropped. Prices that are not numbers of at least 0 are
    blanked. Spaces, texts and errors are treated as in ``read_log``.
    """
    import pandera.pandas as pa

    items, report = read_rows(path, ITEM_COLUMNS)
    repairs = {}
    for column in ("item_id", "domain", "title", "genre"):
        items[column] = _stripped(items[column], repairs)
    for column in ("title", "genre", "text"):
        items[column] = _safe_text(items[column], repairs)
    items["price"] = _numbers(items.price, 0, np.inf, repairs)
    items, invalid = _drop_invalid(items, pa.DataFrameSchema({"item_id": _id_column(), "domain": _id_column()}))
    items, repeated = _drop(items, items.item_id.duplicated(), "duplicate")
    report.dropped += invalid + repeated
    _count_kept(items, repairs, report, path)
    return items.reset_index(drop=True), report


class CleanRows(NamedTuple):
    """The usable rows, how many others were dropped by reason, and for each kind of repair which rows it changed.

    ``repairs`` covers all rows, the dropped ones too; their index is that of ``rows``.
    """

    rows: "pd.DataFrame"
    dropped: Counter
    repairs: dict[str, "pd.Series"]


def clean_rows(events: "pd.DataFrame", items: "pd.DataFrame") -> CleanRows:
    """Return the rows of a log that are usable on their own; duplicates and bots are still among them.

    The frame that is handed in stays as it is.

    Args:
        events: rows of text, as ``read_rows`` returns them.
        items: the clean catalogue.
    """
    import pandas as pd
    import pandera.pandas as pa

    repairs = {}
    events = events.copy(deep=False)  # its columns are replaced one by one, never written to
    for column in ("user_id", "item_id", "domain"):
        events[column] = _stripped(events[column], repairs)
    spelled = events.event.str.strip().str.lower()
    repairs["event: spelling"] = spelled != events.event
    events["event"] = spelled
    home = events.item_id.map(items.set_index("item_id").domain)
    blank = (events.domain == "") & home.notna()
    repairs["domain: filled in from the item"] = blank
    events["domain"] = events.domain.mask(blank, home)
    dated = events.timestamp.where(events.timestamp.str.match(DATE_PATTERN))
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
    return CleanRows(*_drop_invalid(events, schema), repairs)


def drop_copies_and_bots(events: "pd.DataFrame") -> tuple["pd.DataFrame", Counter]:
    """Return the events without repeated rows and without bots, and how many rows each reason dropped.

    Args:
        events: all clean rows of some users: either fault shows only in all rows of a user.
    """
    repeated = events.duplicated(["user_id", "item_id", "event", "timestamp"])
    events, copies = _drop(events, repeated, "duplicate")
    events, bots = _drop(events, events.user_id.isin(_bots(events)), "bot")
    return events, copies + bots


def _count_kept(frame, repairs, report, path):
    """Add to a report the rows kept and the repairs among them; raise if no row is left."""
    report.rows_kept = len(frame)
    if frame.empty:
        raise ValueError(f"{Path(path).name}: got no usable row, dropped {dict(report.dropped)}")
    report.repaired.update({reason: int(rows[frame.index].sum()) for reason, rows in repairs.items()})
    report.repaired = +report.repaired


def _drop_invalid(frame, schema):
    """Return the rows that pass a schema, and the number of others by reason: a row's first failing column."""
    from pandera.errors import SchemaErrors

    try:
        return schema.validate(frame, lazy=True), Counter()
    except SchemaErrors as errors:
        failures = errors.failure_cases
    failures = failures.sort_values("column", key=lambda names: names.map(list(schema.columns).index), kind="stable")
    reasons = failures.drop_duplicates("index").set_index("index")
    dropped, missing = Counter(), {"not_nullable": "missing or no date"}
    for (column, check), rows in reasons.groupby(["column", "check"]):
        dropped[f"{column}: {missing.get(check, check)}"] += len(rows)
    return frame.drop(index=reasons.index), dropped


def _drop(frame, unwanted, reason):
    return frame[~unwanted], +Counter({reason: int(unwanted.sum())})


def _id_column():
    import pandera.pandas as pa

    given = pa.Check.str_length(min_value=1, error="missing")
    return pa.Column(checks=[given, pa.Check.str_length(max_value=MAX_ID, error=f"over {MAX_ID} characters")])


def _stripped(texts, repairs):
    stripped = texts.str.strip()
    repairs[f"{texts.name}: spaces around it removed"] = stripped != texts
    return stripped


def _numbers(texts, low, high, repairs):
    """Return texts as numbers, blank if not a number from low to high; blanking an empty text is not a repair."""
    import pandas as pd

    numbers = pd.to_numeric(texts.replace("", None), errors="coerce")
    numbers = numbers.where(numbers.between(low, high) & np.isfinite(numbers)).astype(float)
    wanted = f"from {low} to {high}" if np.isfinite(high) else f"of at least {low}"
    repairs[f"{texts.name}: no number {wanted}, blanked"] = numbers.isna() & (texts.str.strip() != "")
    return numbers


def _safe_text(texts, repairs):
    """Cut texts that are too long; put an apostrophe before those that a spreadsheet would run as a formula."""
    formula = repairs[f"{texts.name}: formula made plain text"] = texts.str.startswith(FORMULA_STARTS)
    texts = texts.mask(formula, "'" + texts)
    repairs[f"{texts.name}: cut to {MAX_TEXT:,} characters"] = texts.str.len() > MAX_TEXT
    return texts.str.slice(stop=MAX_TEXT)


def _bots(events):
    """Return the users with more than ``BOT_EVENTS`` events within ``BOT_MINUTES`` minutes."""
    import pandas as pd

    times = events.sort_values(["user_id", "timestamp"])[["user_id", "timestamp"]]
    later = times.groupby("user_id").timestamp.shift(-BOT_EVENTS)
    return times.user_id[(later - times.timestamp) <= pd.Timedelta(minutes=BOT_MINUTES)].unique()

"""Count logs bigger than memory, piece by piece through Dask, by the functions that clean a log in memory.

Each piece of the file is cleaned on its own. Repeated rows and bots show only in all rows of a user. The clean rows are
therefore split by user into shares on disk, and each share is cleaned of them and counted.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from scipy import sparse

from rec_transfer.data.counts import from_events
from rec_transfer.data.csv_rows import Piece, Report, pieces, read_piece
from rec_transfer.data.log import EVENT_COLUMNS, EVENT_ORDER, Log, clean_rows, drop_copies_and_bots, read_items
from rec_transfer.types import Interactions

PIECE_BYTES = 8_000_000  # some 130,000 rows, which take about 200 MB while they are cleaned


class CountedLog(NamedTuple):
    """The counts of each domain, and reports on every row of the log and of the catalogue."""

    interactions: dict[str, Interactions]
    events_report: Report
    items_report: Report


def count_log(
    events_path: str | Path | Sequence[str | Path],
    items_path: str | Path,
    *,
    kind: str = "click",
    piece_bytes: int = PIECE_BYTES,
    scratch: str | Path | None = None,
) -> CountedLog:
    """Return the counts per domain of a log of any length, and the reports on its rows.

    They equal ``from_events(read_log(...).coded())`` and that log's reports. The tasks run in Dask: in threads of this
    process, or in the scheduler that its configuration names (processes, a cluster). Each worker needs memory of about
    25 times ``piece_bytes`` and the catalogue. The counts are returned in memory.

    Args:
        events_path: the log, or its files in the order of time, each with a header.
        items_path: the catalogue; it is held in memory.
        kind: the kind of event that is counted.
        piece_bytes: bytes of the log that one task reads at a time.
        scratch: folder for the clean rows, about half the log's size; emptied afterwards. Workers on several machines
            need one that all of them share. None is the system's own.

    Raises:
        ValueError: as ``read_log`` and ``from_events``; also a row longer than ``MAX_RECORD`` pieces.
        FileNotFoundError: a file does not exist.
    """
    import dask

    if piece_bytes < 1:
        raise ValueError(f"piece_bytes: got {piece_bytes}, expected at least 1")
    paths = [events_path] if isinstance(events_path, str | Path) else list(events_path)
    items, items_report = read_items(items_path)
    cut = [piece for path in paths for piece in pieces(path, EVENT_COLUMNS, piece_bytes)]
    shares = max(1, len(cut))
    with TemporaryDirectory(dir=scratch) as folder:
        catalogue = dask.delayed(items)
        clean = dask.delayed(_clean_piece)
        files = [Path(folder) / f"{number}.parquet" for number in range(len(cut))]
        cleaned = dask.compute(*(clean(*task, catalogue, shares) for task in zip(cut, files, strict=True)))
        report = _added([report for report, _ in cleaned])
        reasons: list[str] = next((reasons for _, reasons in cleaned), [])
        count = dask.delayed(_count_share)
        counted = dask.compute(*(count(files, number, reasons, catalogue, kind) for number in range(shares)))
    report = _added([report, *(share.report for share in counted)])
    if not report.rows_kept:
        names = ", ".join(Path(path).name for path in paths)
        raise ValueError(f"{names}: got no usable row, dropped {dict(report.dropped)}")
    kinds: dict[str, set[str]] = {domain: set() for domain in items.domain.unique()}
    for share in counted:
        for domain, found in share.kinds.items():
            kinds[domain] |= found
    interactions = {}
    for domain, found in kinds.items():
        parts = [share.counts[domain] for share in counted if domain in share.counts]
        interactions[domain] = _joined(domain, parts, kind, found)
    return CountedLog(interactions, report, items_report)


class Share(NamedTuple):
    """Some users' counts per domain, the kinds of event they have there, and a report on their rows."""

    counts: dict[str, Interactions]
    kinds: dict[str, set]
    report: Report


def _clean_piece(piece: Piece, file: Path, items, shares: int):
    """Clean a piece and write its rows to ``file``, one row group per share of the users.

    Return the report and the names of the repairs.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    rows, report = read_piece(piece, EVENT_COLUMNS)
    events, dropped, repairs = clean_rows(rows, items)
    report.dropped += dropped
    flags = np.zeros(len(events), np.int64)  # one bit per kind of repair, counted for the rows that are kept
    for bit, repaired in enumerate(repairs.values()):
        flags |= repaired[events.index].to_numpy(np.int64) << bit
    events = events[[*EVENT_ORDER, "domain"]].assign(repairs=flags)
    share = pd.util.hash_array(events.user_id.to_numpy(object)) % np.uint64(shares)
    table = pa.Table.from_pandas(events, preserve_index=False)
    with ParquetWriter(file, table.schema) as spilled:
        for number in range(shares):
            spilled.write_table(table.filter(share == number))
    return report, list(repairs)


def _count_share(files, number, reasons, items, kind):
    """Count all events of one share's users, from all pieces, without repeated rows and bots."""
    import pandas as pd
    from pyarrow.parquet import ParquetFile

    parts = []
    for file in files:
        with ParquetFile(file) as spilled:
            part = spilled.read_row_group(number).to_pandas()
        parts.append(part.astype({"user_id": object, "item_id": object}))
    report = Report()
    if not parts:
        return Share({}, {}, report)
    events, report.dropped = drop_copies_and_bots(pd.concat(parts, ignore_index=True))
    report.rows_kept = len(events)
    for bit, reason in enumerate(reasons):
        report.repaired[reason] += int((events.repairs.to_numpy() >> bit & 1).sum())
    kinds = {domain: set(found) for domain, found in events.groupby("domain").event}
    chosen = events[events.event == kind]
    homes = items[items.domain.isin(chosen.domain.unique())]
    counts = from_events(Log(chosen, homes, report, report).coded(), kind=kind)
    return Share(counts, kinds, report)


def _joined(domain, parts, kind, kinds):
    """Return the users of all shares in one matrix, sorted by their ids."""
    if not kinds:
        raise ValueError(f"domain {domain!r}: got no users, expected at least one event after cleaning")
    if not parts:
        raise ValueError(f"kind: got {kind!r}, expected one that happened in {domain!r}: {sorted(kinds)}")
    users = np.concatenate([part.users for part in parts])
    order = np.argsort(users)
    counts = sparse.vstack([part.counts for part in parts], format="csr")[order]
    return Interactions(domain, counts, users[order], parts[0].items)


def _added(reports):
    """Return the sum of several reports."""
    total = Report(ignored=tuple(dict.fromkeys(name for report in reports for name in report.ignored)))
    for report in reports:
        total.rows_read += report.rows_read
        total.rows_kept += report.rows_kept
        total.dropped += report.dropped
        total.repaired += report.repaired
    return total

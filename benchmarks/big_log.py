"""A log of 10^7 events, counted through Dask in a process of its own: seconds, rows a second, peak memory.

    .venv/bin/python benchmarks/big_log.py [--events 10000000] [--folder FOLDER]

Exits with 1 where the peak of the counting process (its resident set, all threads) passes 1 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

LIMIT = 1_000_000_000  # bytes
USERS, ITEMS, CHUNK = 200_000, 20_000, 250_000
KINDS = np.array(["click", "view", "purchase", "comment", " Click"])
SHARES = (0.8, 0.12, 0.05, 0.02, 0.01)
DAYS = np.datetime_as_string(np.datetime64("2025-01-01") + np.arange(365))
MINUTES = np.array([f" {minute // 60:02d}:{minute % 60:02d}" for minute in range(24 * 60)])


def write_log(folder: Path, events: int, seed: int = 0) -> int:
    """A dirty log in two domains, item popularity as 1/rank; the number of rows, copies and bots included."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    items = np.array([f"{'FB'[number % 2]}{number:06d}" for number in range(ITEMS)])
    domains = np.array(["films", "books"])[np.arange(ITEMS) % 2]
    pd.DataFrame(
        {"item_id": items, "domain": domains, "title": items, "genre": "any", "price": 1.0, "text": ""}
    ).to_csv(folder / "items.csv", index=False)  # fmt: skip
    popularity = np.cumsum(1 / np.arange(1, ITEMS + 1))
    users = np.array([f"u{number:07d}" for number in range(USERS)])
    written = 0
    with (folder / "events.csv").open("w") as file:
        for first in range(0, events, CHUNK):
            rows = min(CHUNK, events - first)
            item = np.searchsorted(popularity, rng.random(rows) * popularity[-1])
            frame = pd.DataFrame(
                {
                    "user_id": users[rng.integers(USERS, size=rows)],
                    "item_id": items[item],
                    "domain": domains[item],
                    "event": KINDS[rng.choice(len(KINDS), size=rows, p=SHARES)],
                    "timestamp": DAYS[rng.integers(365, size=rows)] + MINUTES[rng.integers(24 * 60, size=rows)],
                    "rating": "",
                    "comment": "",
                }
            )
            said = frame.event == "comment"
            frame.loc[said, "rating"], frame.loc[said, "comment"] = "4", "Very good, would recommend."
            copies = frame.sample(frac=0.01, random_state=first)
            bot = frame.head(200).assign(user_id=f"crawler{first}", timestamp="2025-06-01 08:00")
            lost = frame.tail(100).assign(user_id="")
            frame = pd.concat([frame, copies, bot, lost]).sample(frac=1, random_state=first)
            frame.to_csv(file, index=False, header=first == 0)
            written += len(frame)
    return written


def count(folder: Path) -> None:
    """Count the log in this process and print what it took, as JSON."""
    from rec_transfer.data.big_log import count_log

    start = time.perf_counter()
    counted = count_log(folder / "events.csv", folder / "items.csv", scratch=folder)
    seconds = time.perf_counter() - start
    report = counted.events_report
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "rows_read": report.rows_read,
                "rows_kept": report.rows_kept,
                "dropped": dict(report.dropped),
                "clicks": {name: int(one.counts.sum()) for name, one in counted.interactions.items()},
            }
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the log is written (about 0.5 GB)")
    parser.add_argument("--count", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        count(arguments.count)
        return 0
    with TemporaryDirectory(dir=arguments.folder) as name:
        start = time.perf_counter()
        rows = write_log(Path(name), arguments.events)
        size = (Path(name) / "events.csv").stat().st_size
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB, written in {time.perf_counter() - start:.0f} s", flush=True)
        run = subprocess.run([sys.executable, __file__, "--count", name], check=True, capture_output=True, text=True)
    found = json.loads(run.stdout)
    print(json.dumps(found, indent=1))
    print(f"{rows / found['seconds']:,.0f} rows a second, peak {found['peak_bytes'] / 1e6:,.0f} MB (limit 1,000 MB)")
    if found["rows_read"] != rows:
        print(f"rows_read: got {found['rows_read']:,}, expected {rows:,}")
        return 1
    return int(found["peak_bytes"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())

"""A log counted piece by piece is the log counted in memory: matrices, ids and reports, wherever it is cut."""

import csv
import re
import subprocess
import sys

import dask
import jax
import numpy as np
import pytest

from rec_transfer.data import big_log, csv_rows
from rec_transfer.data.big_log import count_log
from rec_transfer.data.counts import from_events
from rec_transfer.data.csv_rows import pieces, read_piece, read_rows
from rec_transfer.data.log import EVENT_COLUMNS, ITEM_COLUMNS, read_log
from rec_transfer.synthetic.log_writer import Dirt, write_log
from rec_transfer.synthetic.world import WorldConfig, make_world, sample_population

HEADER = ",".join(EVENT_COLUMNS)
ITEMS = f"{','.join(ITEM_COLUMNS)}\nF1,films,The Last Orbit,Crime,3.99,x\nB1,books,The Hidden Crow,Gothic,5.99,y\n"
GOOD = "u1,F1,films,click,2025-01-01 10:00,,\nu2,B1,books,click,2025-01-01 11:00,,\n"


def write_world(folder, users, seed=0):
    config = WorldConfig(items=60, latent=2, users_per_domain=users, overlapping_users=users // 3,
                         test_users=users // 6)  # fmt: skip
    world = make_world(config, key=jax.random.key(seed))
    population = sample_population(world, key=jax.random.key(seed + 1))
    write_log(population, world, folder, key=jax.random.key(seed + 2), dirt=Dirt(bots=5))
    return folder / "user_behavior_data.csv", folder / "all_items.csv"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    paths = write_world(tmp_path_factory.mktemp("small"), 40)
    return paths, read_log(*paths)


def assert_same(counted, log, kind="click"):
    expected = from_events(log.coded(), kind=kind)
    assert list(counted.interactions) == list(expected)
    for domain, truth in expected.items():
        found = counted.interactions[domain]
        np.testing.assert_array_equal(found.users, truth.users)
        np.testing.assert_array_equal(found.items, truth.items)
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(found.counts, name), getattr(truth.counts, name), strict=True)
    assert counted.events_report == log.events_report
    assert counted.items_report == log.items_report


@pytest.mark.slow
def test_a_dirty_log_of_1e5_events_is_counted_as_in_memory(tmp_path):
    paths = write_world(tmp_path, 640)
    log = read_log(*paths)
    assert log.events_report.rows_read >= 100_000
    assert {"duplicate", "bot"} < set(log.events_report.dropped)
    assert_same(count_log(*paths, piece_bytes=900_000), log)


@pytest.mark.parametrize(("kind", "number"), [("click", 20), ("purchase", 3)])
def test_tiny_pieces_give_the_same(small, kind, number):
    paths, log = small
    size = paths[0].stat().st_size // number
    assert len(list(pieces(paths[0], EVENT_COLUMNS, size))) >= number
    assert_same(count_log(*paths, piece_bytes=size, kind=kind), log, kind)


@pytest.mark.slow
def test_so_do_files_one_after_the_other_and_worker_processes(small, tmp_path):
    (events, items), log = small
    rows = list(csv.reader(events.open(newline="")))
    halves = [tmp_path / "first.csv", tmp_path / "second.csv"]
    for path, part in zip(halves, (rows[: len(rows) // 2], rows[len(rows) // 2 :]), strict=True):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(part if part[0] == rows[0] else [rows[0], *part])
    with dask.config.set(scheduler="processes", num_workers=1):
        assert_same(count_log(halves, items, piece_bytes=len(events.read_bytes()) // 3), log)


def test_a_bot_that_shows_in_no_single_piece_is_found(tmp_path):
    lines = [f"crawler,F1,films,click,2025-01-01 10:{n // 6:02d}:{n % 6 * 10:02d},,\n" for n in range(31)]
    fair = [line.replace("crawler", "reader") for line in lines[:-1]]
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    events.write_text(f"{HEADER}\n{GOOD}{''.join(lines + fair)}{lines[3]}")
    items.write_text(ITEMS)
    counted = count_log(events, items, piece_bytes=200)
    assert counted.interactions["films"].users.tolist() == ["reader", "u1"]
    assert dict(counted.events_report.dropped) == {"duplicate": 1, "bot": 31}
    assert_same(counted, read_log(events, items))


# --- where a file may be cut

AWKWARD = [
    '"u1",F1,films,comment,2025-01-01 10:00,5,"a, ""quoted"" one"',
    'u2,F1,films,comment,2025-01-01 10:00,5,"two\nlines\r\nthree"',
    'u3,F1,films,comment,2025-01-01 10:00,5,"stray"quote',
    "u4,F1,films,click,2025-01-01 10:00,,naïve 读者 ✓",
    "",
    "u5,F1,films",
    'u"6,F1,films,click,2025-01-01 10:00,,',
    "u7,F1,films,click,2025-01-01 10:00,,nul\0",
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", 'u8,F1,films,click,2025-01-01 10:00,,"never closed'])
def test_pieces_hold_the_rows_of_the_whole_wherever_they_are_cut(tmp_path, end, bom, last):
    path = tmp_path / "events.csv"
    path.write_bytes((bom + end.join([f'"user_id",{HEADER.partition(",")[2]}', *AWKWARD, *AWKWARD, last])).encode())
    whole, report = read_rows(path, EVENT_COLUMNS)
    assert report.dropped
    for size in [*range(60, 200, 7), 5000]:
        parts = list(pieces(path, EVENT_COLUMNS, size))
        assert parts[-1].stop == path.stat().st_size
        assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
        read = [read_piece(part, EVENT_COLUMNS) for part in parts]
        assert [row for rows, _ in read for row in rows.to_numpy().tolist()] == whole.to_numpy().tolist()
        assert big_log._added([part for _, part in read]) == report


def test_a_quote_that_is_never_closed_is_refused_before_memory_is_full(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(f'{HEADER}\n{GOOD}u1,F1,films,click,2025-01-01 10:00,,"open\n{GOOD * 100}')
    with pytest.raises(ValueError, match=r"events\.csv: got a row of more than 1,600 bytes in line 4, expected"):
        list(pieces(path, EVENT_COLUMNS, 1600 // csv_rows.MAX_RECORD))


# --- refusals: as in memory


@pytest.mark.parametrize(
    ("events", "items", "kind"),
    [
        ("", ITEMS, "click"),
        ("user_id,item_id\n", ITEMS, "click"),
        (f"{HEADER},domain\n", ITEMS, "click"),
        (f"{HEADER}\n", ITEMS, "click"),
        (f"{HEADER}\nu1,F9,films,click,2025-01-01 10:00,,\n", ITEMS, "click"),
        (f"{HEADER}\n{GOOD.splitlines()[0]}\n", ITEMS, "click"),
        (f"{HEADER}\n{GOOD}", ITEMS, "purchase"),
        (f"{HEADER}\n{GOOD}".encode() + b"u3,F1,films,click,2025-01-01 10:00,,\xff\n", ITEMS, "click"),
    ],
)
def test_what_is_refused_in_memory_is_refused_in_the_same_words(tmp_path, events, items, kind):
    paths = tmp_path / "events.csv", tmp_path / "items.csv"
    for path, content in zip(paths, (events, items), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as expected:  # noqa: PT011 - its words are the point
        from_events(read_log(*paths).coded(), kind=kind)
    with pytest.raises(ValueError) as found:  # noqa: PT011
        count_log(*paths, kind=kind, piece_bytes=20)
    assert str(found.value) == re.sub(r"np\.str_\((.*?)\)", r"\1", str(expected.value))


def test_pieces_of_nothing_and_files_that_are_not_there_are_refused(small, tmp_path):
    paths, _ = small
    with pytest.raises(ValueError, match="piece_bytes: got 0, expected at least 1"):
        count_log(*paths, piece_bytes=0)
    with pytest.raises(FileNotFoundError, match=r"gone\.csv: no such file"):
        count_log(tmp_path / "gone.csv", paths[1])
    with pytest.raises(ValueError, match="got a directory"):
        count_log(tmp_path, paths[1])


def test_dask_is_imported_where_it_is_used():
    code = "import rec_transfer.data.big_log, sys; sys.exit('dask' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

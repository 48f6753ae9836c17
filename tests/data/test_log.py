"""Every bad input of a log is refused with a clear message, or dropped or repaired and counted."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_transfer.data.csv_rows import read_rows
from rec_transfer.data.log import (
    BOT_EVENTS,
    BOT_MINUTES,
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    MAX_ID,
    MAX_TEXT,
    Report,
    clean_rows,
    drop_copies_and_bots,
    read_items,
    read_log,
)

EVENTS_HEADER = ",".join(EVENT_COLUMNS)
ITEMS = (
    ",".join(ITEM_COLUMNS),
    "F1,films,The Last Orbit,Science fiction,3.99,A slow piece.",
    "F2,films,The Paper Alibi,Crime,4.99,A bright piece.",
    "B1,books,The Hidden Crow,Gothic,5.99,An odd piece.",
)
GOOD = "u1,F1,films,click,2025-01-01 10:00,,"
OTHER = "u2,B1,books,click,2025-01-01 11:00,,"
WHEN = "timestamp: missing or no date"
FIELDS = "wrong number of fields"


@pytest.fixture
def read(tmp_path):
    """Write lines (or bytes as they are) to two files and read them."""

    def write(name, lines):
        path = tmp_path / name
        path.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode())
        return path

    def read(*lines, header=EVENTS_HEADER, items=ITEMS, raw=None):
        events_path = write("events.csv", [header, *lines] if raw is None else raw)
        log = read_log(events_path, write("items.csv", items))
        adds_up(log.events_report)
        adds_up(log.items_report)
        assert log.events_report.rows_kept == len(log.events)
        return log

    return read


def adds_up(report):
    assert report.rows_read == report.rows_kept + sum(report.dropped.values())
    assert all(0 < rows <= report.rows_kept for rows in report.repaired.values())


def item_line(**changes):
    cells = dict(zip(ITEM_COLUMNS, ("F9", "films", "A Title", "Crime", "1.99", "A blurb."), strict=True)) | changes
    return row_line(cells.values())


def event_line(**changes):
    return row_line((dict(zip(EVENT_COLUMNS, GOOD.split(","), strict=True)) | changes).values())


def row_line(cells):
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().removesuffix("\r\n")


# ---- what a clean log becomes


def test_a_clean_log_is_kept_as_it_is(read):
    log = read(GOOD, "u2,B1,books,purchase,2025-01-01 11:00,4,Very good.")
    assert log.events_report == Report(rows_read=2, rows_kept=2)
    assert log.items_report == Report(rows_read=3, rows_kept=3)
    first, second = log.events.to_dict("records")
    assert (first["user_id"], first["item_id"], first["domain"], first["event"]) == ("u1", "F1", "films", "click")
    assert np.isnan(first["rating"])
    assert first["comment"] == ""
    assert second["timestamp"] == pd.Timestamp("2025-01-01 11:00")
    assert (second["rating"], second["comment"]) == (4.0, "Very good.")


def test_coded_events_point_into_sorted_users_and_the_catalogue(read):
    coded = read(
        "u3,F2,films,click,2025-01-03 12:00,,", "u1,F2,films,view,2025-01-01 00:00,,", OTHER,
        "u1,F1,films,click,2025-01-02 06:00,,",
    ).coded()  # fmt: skip
    assert list(coded) == ["films", "books"]
    films = coded["films"]
    assert films.users.tolist() == ["u1", "u3"]
    assert films.items.tolist() == ["F1", "F2"]
    assert films.genres.tolist() == ["Science fiction", "Crime"]
    assert films.user.tolist() == [0, 0, 1]
    assert films.item.tolist() == [1, 0, 1]
    assert films.kind.tolist() == ["view", "click", "click"]
    first = (pd.Timestamp("2025-01-01") - pd.Timestamp("1970-01-01")).days
    np.testing.assert_allclose(films.day, [first, first + 1.25, first + 2.5])
    for name in ("users", "items", "genres", "user", "item", "kind", "day"):
        assert isinstance(getattr(films, name), np.ndarray), name


def test_a_domain_without_users_is_refused_when_it_is_coded(read):
    with pytest.raises(ValueError, match="domain 'books': got no users, expected at least one event"):
        read(GOOD).coded()


def test_the_order_of_rows_does_not_matter(read):
    lines = [GOOD, OTHER, "u1,F2,films,view,2025-01-01 10:00,,", "u0,F1,films,click,2025-01-01 10:00,,"]
    pd.testing.assert_frame_equal(read(*lines).events, read(*lines[::-1]).events)


def test_the_table_of_a_report_lists_every_reason_once(read):
    table = read(GOOD, GOOD, "u2,F1,,CLICK,2025-01-01 10:00,,").events_report.table()
    assert table.values.tolist() == [
        ["read", "", 3], ["dropped", "duplicate", 1], ["repaired", "domain: filled in from the item", 1],
        ["repaired", "event: spelling", 1], ["kept", "", 2],
    ]  # fmt: skip


# ---- files that are refused


@pytest.mark.parametrize("column", EVENT_COLUMNS)
def test_a_missing_event_column_is_named(read, column):
    kept = [name for name in EVENT_COLUMNS if name != column]
    with pytest.raises(ValueError, match=rf"events.csv: column {column} is missing: got \['.*expected a header with"):
        read("1,2,3,4,5,6", header=",".join(kept))


@pytest.mark.parametrize("column", ITEM_COLUMNS)
def test_a_missing_item_column_is_named(read, column):
    kept = [name for name in ITEM_COLUMNS if name != column]
    with pytest.raises(ValueError, match=f"items.csv: column {column} is missing"):
        read(GOOD, items=(",".join(kept), "1,2,3,4,5"))


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf", b"\n" + GOOD.encode()])
def test_a_file_without_a_header_is_refused(read, raw):
    with pytest.raises(ValueError, match=r"events.csv: got an empty file or first line, expected .* user_id, item_id"):
        read(raw=raw)


def test_a_header_alone_is_refused(read):
    with pytest.raises(ValueError, match=r"events.csv: got no usable row, dropped \{\}"):
        read()
    with pytest.raises(ValueError, match=r"items.csv: got no usable row, dropped \{\}"):
        read(GOOD, items=ITEMS[:1])


def test_a_log_of_bad_rows_alone_is_refused_with_the_reasons(read):
    with pytest.raises(ValueError, match=rf"no usable row, dropped .*'{WHEN}': 2, 'user_id: missing': 1"):
        read(event_line(user_id=""), event_line(timestamp=""), event_line(timestamp="soon"))
    with pytest.raises(
        ValueError, match=r"items.csv: got no usable row, .*'domain: missing': 1, 'item_id: missing': 1"
    ):
        read(GOOD, items=(ITEMS[0], item_line(item_id=""), item_line(domain="")))


def test_a_column_named_twice_is_refused(read):
    with pytest.raises(ValueError, match=r"events.csv: got a column twice: .*'rating'.* expected each once"):
        read(f"{GOOD},5", header=f"{EVENTS_HEADER},rating")


def test_a_stray_quote_in_the_header_is_refused(read):
    with pytest.raises(ValueError, match=r"events.csv: got a first line that is no CSV .*expected a header with"):
        read(GOOD, header=f'"{EVENTS_HEADER}')


def test_another_separator_shows_in_the_message(read):
    with pytest.raises(ValueError, match=r"is missing: got \['user_id;item_id"):
        read(GOOD.replace(",", ";"), header=EVENTS_HEADER.replace(",", ";"))


def test_latin_1_is_refused_with_the_line_it_is_in(read):
    # Far enough into the file that a decoder which works in chunks would count from the wrong place.
    lines = [event_line(user_id=f"u{number}") for number in range(2000)]
    lines[1700] = event_line(comment="Très bon")
    raw = "\n".join([EVENTS_HEADER, *lines]).encode("latin-1")
    with pytest.raises(
        ValueError, match=r"events.csv: got bytes that are no UTF-8 \(.* in line 1702\), expected UTF-8"
    ):
        read(raw=raw)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused(read, encoding):
    # Without a mark at its head, UTF-16 is valid UTF-8 full of NUL bytes: the message has to show them.
    message = "no UTF-8" if encoding == "utf-16" else r"column user_id, .* is missing: got .*\\x00"
    with pytest.raises(ValueError, match=f"events.csv: .*{message}"):
        read(raw=f"{EVENTS_HEADER}\n{GOOD}\n".encode(encoding))


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "items.csv").write_text("\n".join(ITEMS))
    with pytest.raises(ValueError, match=f"{tmp_path.name}: got a directory, expected a CSV file"):
        read_log(tmp_path, tmp_path / "items.csv")
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: no such file in .*"):
        read_log(tmp_path / "nowhere.csv", tmp_path / "items.csv")
    with pytest.raises(FileNotFoundError, match=r"nothing.csv: no such file in .*"):
        read_items(tmp_path / "nothing.csv")


# ---- forms of the same file


@pytest.mark.parametrize("name", ["bom", "crlf", "reordered", "spaced header", "extra column", "no last newline"])
def test_the_same_log_in_another_form_reads_the_same(read, name):
    lines = [GOOD, row_line(("u2", "B1", "books", "comment", "2025-01-01 11:00", "5", "Good, very"))]
    expected = read(*lines).events
    raw = "".join(f"{line}\n" for line in [EVENTS_HEADER, *lines])
    if name == "bom":
        raw = "\ufeff" + raw
    elif name == "crlf":
        raw = raw.replace("\n", "\r\n")
    elif name == "reordered":
        raw = "".join(f"{row_line(row[::-1])}\n" for row in csv.reader(raw.splitlines()))
    elif name == "spaced header":
        raw = raw.replace(EVENTS_HEADER, EVENTS_HEADER.replace(",", " , "))
    elif name == "extra column":
        raw = "".join(f"{row_line([*row, 'device'])}\n" for row in csv.reader(raw.splitlines()))
    else:
        raw = raw.removesuffix("\n")
    log = read(raw=raw.encode())
    pd.testing.assert_frame_equal(log.events, expected)
    assert log.events_report.ignored == (("device",) if name == "extra column" else ())
    assert not log.events_report.dropped
    assert not log.events_report.repaired


def test_an_extra_column_is_reported_as_ignored(read):
    report = read(f"{GOOD},phone", header=f"{EVENTS_HEADER},device").events_report
    assert ["ignored", "column device", 1] in report.table().values.tolist()


# ---- rows that are dropped


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_id": ""}, "user_id: missing"),
        ({"user_id": "   "}, "user_id: missing"),
        ({"user_id": "u" * (MAX_ID + 1)}, f"user_id: over {MAX_ID} characters"),
        ({"user_id": "u" * 10**6}, f"user_id: over {MAX_ID} characters"),
        ({"item_id": "F3"}, "item_id: not in the catalogue"),
        ({"item_id": ""}, "item_id: not in the catalogue"),
        ({"item_id": "f1"}, "item_id: not in the catalogue"),
        ({"domain": "books"}, "domain: not the item's"),
        ({"domain": "Films"}, "domain: not the item's"),
        ({"event": "scroll"}, "event: not one of view, click, purchase, comment"),
        ({"event": ""}, "event: not one of view, click, purchase, comment"),
        ({"user_id": "u\0"}, "NUL byte"),
        ({"comment": "\0"}, "NUL byte"),
    ],
)
def test_a_row_of_which_it_is_unknown_what_happened_is_dropped(read, changes, reason):
    report = read(GOOD, event_line(**changes)).events_report
    assert dict(report.dropped) == {reason: 1}
    assert not report.repaired


def test_a_user_id_of_the_longest_length_is_kept(read):
    assert read(event_line(user_id="u" * MAX_ID)).events_report == Report(1, 1)


def test_a_row_that_fails_twice_is_counted_once_under_its_first_column(read):
    report = read(GOOD, ",F3,books,scroll,never,11,=1", "u1,F1,books,scroll,never,,").events_report
    assert dict(report.dropped) == {"user_id: missing": 1, "domain: not the item's": 1}
    assert not report.repaired


@pytest.mark.parametrize(
    ("timestamp", "kept_as"),
    [
        ("2025-03-01 10:00", "2025-03-01 10:00"),
        ("2025-03-01T10:00", "2025-03-01 10:00"),
        ("2025-03-01T10:00:30.5", "2025-03-01 10:00:30.5"),
        (" 2025-03-01 10:00 ", "2025-03-01 10:00"),
        ("2025-03-01T10:00Z", "2025-03-01 10:00"),
        ("2025-03-01 01:00+02:00", "2025-02-28 23:00"),
        ("2025-03-01", "2025-03-01 00:00"),
        ("1970-01-01 00:00", "1970-01-01 00:00"),
        ("2199-12-31 23:59", "2199-12-31 23:59"),
    ],
)
def test_iso_timestamps_are_read_and_kept_in_utc(read, timestamp, kept_as):
    log = read(event_line(timestamp=timestamp))
    assert log.events.timestamp.tolist() == [pd.Timestamp(kept_as)]
    assert not log.events_report.repaired


OTHER_TIMES = (
    "", "soon", "nan", "NaT", "2025-13-45 99:99", "2025-02-30 10:00", "2025-01-01 25:00", "1735725600", "1735725600000",
    "1735725600.5", "2025", "20250301", "01/03/2025", "1 March 2025", "now", "today", "0001-01-01 00:00", "1735-01-01",
    "1969-12-31", "2200-01-01", "9999-12-31 10:00", "99999-01-01",
)  # fmt: skip


def test_other_timestamps_are_dropped(read):
    # "now" and "today" would be the time of reading, a bare number a year, and a far one overflows nanoseconds.
    log = read(GOOD, OTHER, *(event_line(user_id=f"at {time}", timestamp=time) for time in OTHER_TIMES))
    assert log.events.user_id.tolist() == ["u1", "u2"]
    assert dict(log.events_report.dropped) == {WHEN: len(OTHER_TIMES)}
    assert log.coded()["films"].users.tolist() == ["u1"]


def test_a_second_copy_is_dropped_and_the_first_kept(read):
    log = read(GOOD, event_line(rating="4", event="CLICK "), OTHER)
    assert dict(log.events_report.dropped) == {"duplicate": 1}
    assert np.isnan(log.events.rating.iloc[0])
    assert not log.events_report.repaired  # the misspelt row is gone


@pytest.mark.parametrize(
    "changes", [{"user_id": "u9"}, {"item_id": "F2"}, {"event": "view"}, {"timestamp": "2025-01-01 10:01"}]
)
def test_rows_that_differ_in_what_happened_are_no_copies(read, changes):
    assert read(GOOD, event_line(**changes)).events_report == Report(2, 2)


@pytest.mark.parametrize("line", ["", "u1", GOOD[:-1], f"{GOOD},", f"{GOOD},?,?"])
def test_a_line_with_another_number_of_fields_is_dropped(read, line):
    report = read(GOOD, line, OTHER).events_report
    assert (report.rows_read, dict(report.dropped)) == (3, {FIELDS: 1})


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (['u3,F1,films,comment,2025-01-01 12:00,5,"Good" film'], 1),  # the rest of a closed field
        (['u3,F1,films,comment,2025-01-01 12:00,5,"Good', GOOD, GOOD, 'u4,"F1",films,click,2025-01-01,,'], 4),
        (['u3,F1,films,comment,2025-01-01 12:00,5,"Good', GOOD, GOOD], 3),  # open until the end of the file
        (['u3,"F1,films,comment,2025-01-01 12:00,5,Good', GOOD, 'Good"'], 3),  # closed: a line of two fields
        (['u3,"F1', GOOD, '",films,click,2025-01-01,,,?'], 3),  # closed: a line of eight
    ],
)
def test_every_line_that_a_stray_quote_swallows_is_counted(read, lines, lost):
    report = read(GOOD, OTHER, *lines).events_report
    assert (report.rows_read, report.rows_kept, dict(report.dropped)) == (2 + lost, 2, {FIELDS: lost})


def test_rows_after_a_stray_quote_are_read_again(read):
    assert read(GOOD, 'u3,F1,films,comment,2025-01-01,5,"Good" film', OTHER).events.user_id.tolist() == ["u1", "u2"]


def test_a_newline_within_quotes_is_part_of_the_comment(read):
    log = read(event_line(comment="One\nTwo\r\nThree"), OTHER)
    assert log.events_report == Report(2, 2)
    assert log.events.comment.iloc[0] == "One\nTwo\r\nThree"


@pytest.mark.parametrize(
    ("events", "minutes", "is_bot"),
    [
        (BOT_EVENTS, BOT_MINUTES, False),
        (BOT_EVENTS + 1, BOT_MINUTES, True),
        (BOT_EVENTS + 1, BOT_MINUTES + 1 / 60, False),
        (BOT_EVENTS + 1, 0, True),
        (2 * BOT_EVENTS, 2 * BOT_MINUTES, False),
    ],
)
def test_a_bot_is_who_does_more_than_the_threshold_within_the_window(read, events, minutes, is_bot):
    start = pd.Timestamp("2025-01-01 09:58")
    seconds = np.round(np.linspace(0, 60 * minutes, events))
    pages = [f"P{number}" for number in range(events)]
    lines = [
        event_line(user_id="crawler", item_id=page, timestamp=str(start + pd.Timedelta(seconds=second)))
        for page, second in zip(pages, seconds, strict=True)
    ]
    log = read(GOOD, *lines[::-1], items=(*ITEMS, *(item_line(item_id=page) for page in pages)))
    assert dict(log.events_report.dropped) == ({"bot": events} if is_bot else {})


def test_the_threshold_is_what_notebook_and_data_card_say():
    assert (BOT_EVENTS, BOT_MINUTES) == (30, 10)


def test_everything_a_bot_ever_did_is_dropped_and_nothing_of_others(read):
    pages = [f"P{number}" for number in range(BOT_EVENTS + 1)]
    burst = [event_line(user_id="crawler", item_id=page) for page in pages]
    calm = event_line(user_id="crawler", timestamp="2024-06-01 10:00")
    crowd = [event_line(user_id=f"v{number}") for number in range(BOT_EVENTS + 1)]  # many people in one minute
    log = read(*burst, calm, *crowd, items=(*ITEMS, *(item_line(item_id=page) for page in pages)))
    assert dict(log.events_report.dropped) == {"bot": BOT_EVENTS + 2}
    assert log.events_report.rows_kept == len(crowd)


def test_copies_of_one_row_make_nobody_a_bot(read):
    report = read(*[GOOD] * (BOT_EVENTS + 10)).events_report
    assert dict(report.dropped) == {"duplicate": BOT_EVENTS + 9}


# ---- rows that are repaired


NO_RATINGS = ("0", "11", "nan", "inf", "-inf", "-1", "five", "5.5", "0x5", "5 stars", "None", "1e9", "0.99")


def test_a_rating_that_is_no_number_from_1_to_5_is_blanked(read):
    log = read(*(event_line(user_id=f"gives {rating}", rating=rating) for rating in NO_RATINGS))
    assert log.events.user_id[log.events.rating.notna()].tolist() == []
    assert dict(log.events_report.repaired) == {"rating: no number from 1 to 5, blanked": len(NO_RATINGS)}


def test_a_rating_in_range_or_none_is_no_repair(read):
    ratings = {"1": 1, "5": 5, "": None, "4.5": 4.5, " ": None, " 3 ": 3}  # a blank must not copy its neighbour
    log = read(*(event_line(user_id=f"u{n}", rating=rating) for n, rating in enumerate(ratings)))
    np.testing.assert_array_equal(log.events.rating, np.array(list(ratings.values()), float))
    assert not log.events_report.repaired


def test_ids_with_spaces_around_them_are_stripped_and_counted(read):
    log = read(GOOD, event_line(user_id=" u1", item_id="F2\t", domain=" films "), OTHER)
    assert log.events.user_id.unique().tolist() == ["u1", "u2"]
    spaces = "spaces around it removed"
    assert dict(log.events_report.repaired) == {f"{column}: {spaces}": 1 for column in EVENT_COLUMNS[:3]}


def test_a_space_within_an_id_makes_another_user(read):
    assert read(GOOD, event_line(user_id="u 1")).events.user_id.tolist() == ["u 1", "u1"]


def test_a_copy_under_an_id_with_spaces_is_a_copy(read):
    assert dict(read(GOOD, event_line(user_id=" u1 ")).events_report.dropped) == {"duplicate": 1}


@pytest.mark.parametrize("event", ["CLICK", " click", "Click\t"])
def test_an_event_spelt_otherwise_is_repaired(read, event):
    log = read(event_line(event=event))
    assert log.events.event.tolist() == ["click"]
    assert dict(log.events_report.repaired) == {"event: spelling": 1}


def test_a_blank_domain_is_filled_in_from_the_item(read):
    log = read(event_line(domain=""), event_line(item_id="B1", domain=""))
    assert set(zip(log.events.item_id, log.events.domain, strict=True)) == {("F1", "films"), ("B1", "books")}
    assert dict(log.events_report.repaired) == {"domain: filled in from the item": 2}


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_formula_becomes_plain_text(read, mark):
    log = read(event_line(comment=f"{mark}HYPERLINK(A1)"), event_line(user_id="u5", comment=f"1 {mark} 1"))
    assert log.events.comment.tolist() == [f"'{mark}HYPERLINK(A1)", f"1 {mark} 1"]
    assert dict(log.events_report.repaired) == {"comment: formula made plain text": 1}


@pytest.mark.parametrize("column", ["title", "genre", "text"])
def test_a_formula_in_the_catalogue_becomes_plain_text(read, column):
    log = read(GOOD, items=(*ITEMS, item_line(**{column: "=cmd()"})))
    assert log.items[column].iloc[-1] == "'=cmd()"
    assert dict(log.items_report.repaired) == {f"{column}: formula made plain text": 1}


@pytest.mark.parametrize("text", ["x" * 10**6, "=" + "x" * MAX_TEXT, "=" + "x" * (MAX_TEXT - 1)])
def test_a_long_text_is_cut(read, text):
    log = read(event_line(comment=text), OTHER)
    assert log.events.comment.str.len().tolist() == [MAX_TEXT, 0]
    assert log.events_report.repaired[f"comment: cut to {MAX_TEXT:,} characters"] == 1
    assert read(GOOD, items=(*ITEMS, item_line(title=text))).items.title.str.len().max() == MAX_TEXT


def test_a_text_of_the_longest_length_is_no_repair(read):
    assert read(event_line(comment="x" * MAX_TEXT)).events_report == Report(1, 1)


@pytest.fixture
def field_limit():
    before = csv.field_size_limit(54_321)
    yield 54_321
    csv.field_size_limit(before)


@pytest.mark.parametrize("raw", [f"{EVENTS_HEADER}\n{GOOD}".encode(), b""])
def test_the_limit_of_the_csv_module_is_left_as_it_was(read, raw, field_limit):
    try:
        read(raw=raw)
    except ValueError:
        assert raw == b""
    assert csv.field_size_limit() == field_limit


# ---- the catalogue


def test_an_item_id_that_comes_twice_counts_once(read):
    log = read(GOOD, items=(*ITEMS, "F1,books,Another,Crime,1.99,x", " F2,films,Again,Crime,1.99,x"))
    assert log.items.item_id.tolist() == ["F1", "F2", "B1"]
    assert log.items.domain.tolist() == ["films", "films", "books"]  # the first of two wins
    assert dict(log.items_report.dropped) == {"duplicate": 2}
    assert not log.items_report.repaired  # the one with a space is gone


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"item_id": " "}, "item_id: missing"),
        ({"domain": ""}, "domain: missing"),
        ({"item_id": "F" * 10**6}, f"item_id: over {MAX_ID} characters"),
    ],
)
def test_an_item_without_an_id_or_domain_is_dropped(read, changes, reason):
    assert dict(read(GOOD, items=(*ITEMS, item_line(**changes))).items_report.dropped) == {reason: 1}


def test_a_price_that_is_no_number_of_at_least_0_is_blanked(read):
    prices = ["-0.01", "-5", "inf", "nan", "free", "3,99"]
    items = [item_line(item_id=f"P{number}", price=price) for number, price in enumerate(prices)]
    log = read(GOOD, items=(*ITEMS, *items))
    assert log.items.item_id[log.items.price.notna()].tolist() == ["F1", "F2", "B1"]
    assert dict(log.items_report.repaired) == {"price: no number of at least 0, blanked": len(prices)}


def test_a_price_of_at_least_0_or_none_is_no_repair(read):
    prices = {"0": 0.0, "1e3": 1000.0, "": None, " 2.5 ": 2.5}
    items = [item_line(item_id=f"P{number}", price=price) for number, price in enumerate(prices)]
    log = read(GOOD, items=(*ITEMS, *items))
    np.testing.assert_array_equal(log.items.price.iloc[3:], np.array(list(prices.values()), float))
    assert not log.items_report.repaired


# ---- any mix of rows

CELLS = {
    "item_id": ["F1", "F2", "B1", " F1", "F3", ""],
    "domain": ["films", "books", "", " films", "Films"],
    "event": ["click", "view", "PURCHASE", " comment", "scroll", ""],
    "timestamp": ["2025-01-01 10:00", "2025-01-01T10:00:01Z", "2025-13-45 99:99", "", "now"],
    "rating": ["", "4", "11", "five", "nan"],
    "comment": ["", "Good, very", '"quoted"', "two\nlines", "=1+1", "-", "x" * (MAX_TEXT + 1), "\0"],
}
ROWS = st.lists(st.tuples(*(st.sampled_from(cells) for cells in CELLS.values())), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, copies=st.lists(st.integers(0, 11), max_size=6), nobody=st.sets(st.integers(0, 11), max_size=2))
def test_every_row_is_kept_or_counted_and_repairs_are_among_the_kept(tmp_path_factory, rows, copies, nobody):
    folder = tmp_path_factory.mktemp("log")
    (folder / "items.csv").write_text("\n".join(ITEMS))

    def report_of(rows):
        # A user of one good row, so that something is left, then one user per row: kept rows can be told by them.
        lines = [EVENTS_HEADER, event_line(user_id="sure"), *(row_line(row) for row in rows)]
        (folder / "events.csv").write_text("".join(f"{line}\n" for line in lines), newline="")
        log = read_log(folder / "events.csv", folder / "items.csv")
        return log.events_report, set(log.events.user_id)

    rows = [("" if number in nobody else f"u{number}", *row) for number, row in enumerate(rows)]
    report, users = report_of(rows + [rows[number] for number in copies if number < len(rows)])
    assert report.rows_read == 1 + len(rows) + sum(number < len(rows) for number in copies)
    adds_up(report)
    assert report.rows_kept == len(users)
    # Without the rows that were dropped nothing is dropped, and the same repairs are made.
    again, same_users = report_of([row for row in rows if row[0] in users])
    assert same_users == users
    assert again == Report(len(users), len(users), repaired=report.repaired)


@settings(max_examples=25, deadline=None)
@given(junk=st.lists(st.text(alphabet='u1F,"\n\r\0=é ', max_size=20), max_size=8))
def test_no_line_of_junk_is_lost_or_raises(tmp_path_factory, junk):
    folder = tmp_path_factory.mktemp("junk")
    (folder / "items.csv").write_text("\n".join(ITEMS))
    text = "".join(f"{line}\n" for line in [EVENTS_HEADER, GOOD, *junk])
    (folder / "events.csv").write_bytes(text.encode())
    report = read_log(folder / "events.csv", folder / "items.csv").events_report
    adds_up(report)
    assert report.rows_kept == 1
    physical = sum(1 for _ in io.StringIO(text, newline="")) - 1
    assert report.rows_read == physical if '"' not in text else report.rows_read <= physical


# ---- the frame handed in


def test_cleaning_leaves_the_rows_it_is_given_as_they_are(read, tmp_path):
    odd = event_line(user_id=" u3 ", event="CLICK", domain="", rating="five", comment="=A1")
    read(GOOD, GOOD, odd, event_line(item_id="X1"))
    rows, _ = read_rows(tmp_path / "events.csv", EVENT_COLUMNS)
    items, _ = read_items(tmp_path / "items.csv")
    before = rows.copy()
    clean = clean_rows(rows, items)
    pd.testing.assert_frame_equal(rows, before)
    assert clean.rows.user_id.tolist() == ["u1", "u1", "u3"]
    assert clean.dropped == {"item_id: not in the catalogue": 1}
    before = clean.rows.copy()
    events, dropped = drop_copies_and_bots(clean.rows)
    pd.testing.assert_frame_equal(clean.rows, before)
    assert events.user_id.tolist() == ["u1", "u3"]
    assert dropped == {"duplicate": 1}

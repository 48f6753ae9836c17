"""The committed files are what `make data` writes, and the data card says what is in them."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from rec_transfer.data.counts import from_events
from rec_transfer.data.log import EVENT_COLUMNS, ITEM_COLUMNS, read_log
from rec_transfer.synthetic.log_writer import Dirt
from rec_transfer.synthetic.world import WorldConfig

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
EVENTS, ITEMS = DATA / "user_behavior_data.csv", DATA / "all_items.csv"
CARD = (DATA / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_data", ROOT / "tools" / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tool, tmp_path_factory):
    """What the tool makes in an empty folder: the folder, the population, the dirt it says it wrote."""
    folder = tmp_path_factory.mktemp("data")
    _, population, dirt = tool.make(folder)
    return folder, population, dirt


@pytest.fixture(scope="module")
def log():
    return read_log(EVENTS, ITEMS)


@pytest.fixture(scope="module")
def interactions(log):
    return from_events(log.coded())


def numbers(text):
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


def test_the_committed_files_are_made_anew_byte_for_byte(made):
    folder = made[0]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in DATA.glob("*.csv"))
    for path in (EVENTS, ITEMS):
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_files_stay_small():
    assert sum(path.stat().st_size for path in (EVENTS, ITEMS)) < 5_000_000


def test_the_click_counts_of_the_world_come_back_exactly(made, interactions):
    for domain, truth in made[1].interactions.items():
        read = interactions[domain]
        assert read.users.tolist() == sorted(truth.users)
        assert read.items.tolist() == truth.items.tolist()
        assert (read.counts != truth.select(read.users).counts).nnz == 0


def test_the_card_states_the_report(log):
    rows = re.findall(r"^\| (read|dropped|repaired|kept) \| `?(.*?)`? ?\| ([\d,]+) \|", CARD, re.MULTILINE)
    card = [[what, reason, *numbers(count)] for what, reason, count in rows]
    assert card == log.events_report.table().values.tolist()
    assert not log.items_report.dropped + log.items_report.repaired  # "clean", says the card


def test_the_card_states_what_the_writer_says_it_wrote(made):
    dirt = made[2]
    assert all(dirt[name] for name in Dirt.__dataclass_fields__ if name != "lost")
    copies, repeats = numbers(re.search(r"([\d,]+) rows logged twice, (\d+) repeats of the bots", CARD)[0])
    assert copies == dirt["duplicates"]
    kept, clicks, less = numbers(re.search(r"`bot` \| ([\d,]+) \|.* less (\d+) repeats", CARD)[0])
    assert less == repeats
    assert kept + less == 3 * clicks == dirt["bots"]


def test_the_card_states_sizes_and_columns(log):
    for path, columns, rows in (
        (EVENTS, EVENT_COLUMNS, log.events_report.rows_read),
        (ITEMS, ITEM_COLUMNS, log.items_report.rows_read),
    ):
        stated, table = re.search(rf"^`{path.name}`: (.*?)\n\n(.*?)\n\n", CARD, re.MULTILINE | re.DOTALL).groups()
        assert f"{rows:,} rows, {path.stat().st_size / 1e6:.2f} MB" in stated
        assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == columns


def test_the_card_states_users_events_and_pairs(log, interactions):
    users = log.events.groupby("user_id").domain.nunique()
    assert f"{len(users):,} made-up users" in CARD
    assert f"{(users == 1).sum():,} users are active in one domain" in CARD
    assert f"{(users == 3).sum()} in all three: {len(interactions['films'].users)} users a domain" in CARD
    counts = log.events.event.value_counts()
    assert ", ".join(f"{counts[kind]:,} {kind}s" for kind in ("click", "view", "purchase", "comment")) in CARD
    pairs = [f"{domain.counts.nnz:,} ({name})" for name, domain in interactions.items()]
    assert "{}, {} and {} user-item pairs".format(*pairs) in " ".join(CARD.split())
    for domain in interactions.values():
        assert domain.counts.shape == (850, 200)


def test_the_card_states_seed_world_and_prices(tool, log):
    assert f"seed {tool.SEED}" in CARD
    stated = dict(re.findall(r"(\w+)=([\d.]+)", re.search(r"`WorldConfig\((.*?)\)`", CARD)[1]))
    stated = {name: float(value) if "." in value else int(value) for name, value in stated.items()}
    assert dataclasses.replace(WorldConfig(), **stated) == tool.CONFIG
    assert f"{log.items.price.min():.2f} to {log.items.price.max():.2f}" in CARD
    assert set(log.items.groupby("domain").genre.nunique()) == {6}
    assert (log.events.timestamp.dt.year == 2025).all()

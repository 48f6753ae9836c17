"""The dirty log gives back exactly what went into it, and the reader's report is what the writer says it wrote."""

import jax
import numpy as np
import pandas as pd
import pytest

from rec_transfer.data.counts import from_events
from rec_transfer.data.log import EVENT_ORDER, read_log
from rec_transfer.synthetic.log_writer import CLEAN, COMMENT_SHARE, PRAISE, PURCHASE_SHARE, VIEW_SHARE, Dirt, write_log
from rec_transfer.synthetic.world import WorldConfig, click_probabilities, make_world, sample_population

DROPPED = {
    "no_user": "user_id: missing",
    "unknown_items": "item_id: not in the catalogue",
    "wrong_domains": "domain: not the item's",
    "impossible_times": "timestamp: missing or no date",
    "unknown_events": "event: not one of view, click, purchase, comment",
    "wrong_fields": "wrong number of fields",
}
REPAIRED = {
    "odd_spelling": "event: spelling",
    "blank_domains": "domain: filled in from the item",
    "wrong_ratings": "rating: no number from 1 to 5, blanked",
    "formulas": "comment: formula made plain text",
}
MENDED = [name for name in Dirt.__dataclass_fields__ if name != "lost"]  # what leaves the click counts as they are
HEAVY = Dirt(**{name: 0.2 for name in MENDED if name != "bots"}, bots=4)


def write_and_read(population, world, folder, *, dirt, seed=0):
    """The log as read, what the writer says it wrote, and how many of a bot's rows are copies of its others.

    A bot clicks the same item twice in a minute: such rows are found to be copies before the rest is found a bot's.
    """
    written = write_log(population, world, folder, key=jax.random.key(seed), dirt=dirt)
    path = folder / "user_behavior_data.csv"
    bursts = [line for line in path.read_text().splitlines() if line.startswith("crawler")]
    return read_log(path, folder / "all_items.csv"), written, len(bursts) - len(set(bursts))


@pytest.fixture(scope="module")
def clean(population, world, tmp_path_factory):
    return write_and_read(population, world, tmp_path_factory.mktemp("clean"), dirt=CLEAN)


@pytest.fixture(scope="module")
def few():
    """A world of ten users in each domain, for tests that write many logs."""
    world = make_world(WorldConfig(items=20, latent=2, users_per_domain=6, overlapping_users=2, test_users=2),
                       key=jax.random.key(1))  # fmt: skip
    return world, sample_population(world, key=jax.random.key(2))


def assert_same_clicks(log, population):
    """The very matrices of the population, users in another order."""
    read = from_events(log.coded())
    assert list(read) == list(population.interactions)
    for domain, truth in population.interactions.items():
        assert sorted(truth.users) == read[domain].users.tolist()
        np.testing.assert_array_equal(read[domain].items, truth.items)
        np.testing.assert_array_equal(
            read[domain].counts.toarray(), truth.select(read[domain].users).counts.toarray(), strict=True
        )


def assert_as_written(report, written, bots_copies):
    expected = {reason: written[name] for name, reason in DROPPED.items()}
    expected |= {"duplicate": written["duplicates"] + bots_copies, "bot": written["bots"] - bots_copies}
    assert dict(report.dropped) == {reason: rows for reason, rows in expected.items() if rows}
    assert dict(report.repaired) == {reason: written[name] for name, reason in REPAIRED.items() if written[name]}


def test_a_clean_log_holds_nothing_to_drop_or_repair(clean, population):
    log, written, _ = clean
    assert not any(written.values())
    for report in (log.events_report, log.items_report):
        assert report.rows_read == report.rows_kept
        assert not report.dropped
        assert not report.repaired
        assert not report.ignored
    assert_same_clicks(log, population)


def test_a_dirty_log_gives_back_the_clean_one(clean, population, world, tmp_path):
    log, written, bots_copies = write_and_read(population, world, tmp_path, dirt=Dirt())
    assert all(written[name] > 0 for name in MENDED)
    assert_same_clicks(log, population)
    assert_as_written(log.events_report, written, bots_copies)
    added = sum(written[name] for name in ("duplicates", "bots", *DROPPED))
    assert log.events_report.rows_read == log.events_report.rows_kept + added
    details = ["rating", "comment"]  # the only ones that dirt overwrites for good
    clean_events = clean[0].events.drop(columns=details)
    pd.testing.assert_frame_equal(log.events.drop(columns=details), clean_events)
    pd.testing.assert_frame_equal(log.items, clean[0].items)


@pytest.mark.parametrize("seed", range(3))
def test_so_does_a_log_of_which_every_second_row_is_dirt(few, tmp_path, seed):
    world, population = few
    log, written, bots_copies = write_and_read(population, world, tmp_path, dirt=HEAVY, seed=seed)
    assert_same_clicks(log, population)
    assert_as_written(log.events_report, written, bots_copies)


def test_damage_to_every_row_is_still_repaired(few, tmp_path):
    # Rows without a domain are copied under a wrong one, which must not happen to be the item's.
    world, population = few
    dirt = Dirt(**(dict.fromkeys(MENDED, 1.0) | {"bots": 1}))
    log, written, bots_copies = write_and_read(population, world, tmp_path, dirt=dirt)
    assert_same_clicks(log, population)
    assert_as_written(log.events_report, written, bots_copies)
    assert log.events_report.repaired["domain: filled in from the item"] == log.events_report.rows_kept


@pytest.mark.parametrize("name", MENDED)
def test_each_kind_of_dirt_alone_is_reported_as_that_alone(few, tmp_path, name):
    world, population = few
    dirt = Dirt(**{**vars(CLEAN), name: 2 if name == "bots" else 0.5})
    log, written, bots_copies = write_and_read(population, world, tmp_path, dirt=dirt)
    assert {kind for kind, rows in written.items() if rows} == {name}
    assert_as_written(log.events_report, written, bots_copies)
    if name in ("duplicates", "bots"):
        assert ("bot" in log.events_report.dropped) == (name == "bots")
    assert bool(log.events_report.repaired) == (name in REPAIRED)


def test_lost_rows_do_not_come_back(few, tmp_path):
    world, population = few
    log, written, _ = write_and_read(population, world, tmp_path, dirt=Dirt(**{**vars(CLEAN), "lost": 0.5}))
    report = log.events_report
    assert written["lost"] == report.dropped["user_id: missing"] == round(0.5 * report.rows_read)
    truth = {name: domain.counts.sum() for name, domain in population.interactions.items()}
    read = {name: domain.counts.sum() for name, domain in from_events(log.coded()).items()}
    assert all(0.2 < read[name] / truth[name] < 0.8 for name in truth)
    for name, domain in from_events(log.coded()).items():
        assert (domain.counts > population.interactions[name].select(domain.users).counts).nnz == 0


@pytest.mark.parametrize("dirt", [CLEAN, Dirt()], ids=["clean", "dirty"])
def test_the_files_are_a_pure_function_of_the_key(few, tmp_path, dirt):
    world, population = few

    def files(name, seed):
        write_log(population, world, tmp_path / name, key=jax.random.key(seed), dirt=dirt)
        return [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]

    first, again, other = files("first", 3), files("again", 3), files("other", 4)
    assert first == again
    assert len(first) == 2
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_the_folder_is_made_and_named_by_path_or_text(few, tmp_path):
    world, population = few
    write_log(population, world, str(tmp_path / "new" / "folder"), key=jax.random.key(0))
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 2


def test_a_purchase_or_comment_follows_a_click_of_the_same_user_and_item(clean):
    events = clean[0].events
    key = ["user_id", "item_id", "timestamp"]
    clicks = pd.MultiIndex.from_frame(events.loc[events.event == "click", key])
    for kind, minutes in (("purchase", 1), ("comment", 2)):
        chosen = events[events.event == kind]
        assert len(chosen) > 100
        before = chosen.assign(timestamp=chosen.timestamp - pd.Timedelta(minutes=minutes))
        assert pd.MultiIndex.from_frame(before[key]).isin(clicks).all(), kind


def test_ratings_and_comments_stand_where_they_belong(clean):
    events = clean[0].events
    rated = events.event.isin(["purchase", "comment"])
    assert (events.rating.notna() == rated).all()
    assert events.rating[rated].isin(list(PRAISE)).all()
    commented = events.event == "comment"
    assert (events.comment[~commented] == "").all()
    assert (events.comment[commented] == events.rating[commented].map(PRAISE)).all()


def test_a_user_has_one_event_a_minute_in_a_domain(clean):
    assert not clean[0].events.duplicated(["user_id", "domain", "timestamp"]).any()


def test_rows_are_written_in_the_order_of_time(few, tmp_path):
    world, population = few
    write_log(population, world, tmp_path, key=jax.random.key(0))
    rows = pd.read_csv(tmp_path / "user_behavior_data.csv")
    columns = list(EVENT_ORDER[:3])
    assert rows[columns].values.tolist() == rows.sort_values(columns)[columns].values.tolist()


def test_shares_of_views_purchases_and_comments_are_those_stated(clean):
    counts = clean[0].events.event.value_counts()
    for kind, share in (("view", VIEW_SHARE), ("purchase", PURCHASE_SHARE), ("comment", COMMENT_SHARE)):
        error = np.sqrt(share * (1 - share) / counts["click"])
        assert abs(counts[kind] / counts["click"] - share) < 4 * error, kind


@pytest.mark.parametrize("domain", ["films", "books", "music"])
def test_views_are_drawn_from_popularity_alone(clean, world, domain):
    views = from_events(clean[0].coded(), kind="view")[domain].counts.sum(axis=0)
    expected = views.sum() * click_probabilities(world, domain, np.zeros((1, world.config.latent)))[0]
    # Pearson's statistic has mean (items - 1) and variance 2 (items - 1).
    statistic, freedom = np.sum((views - expected) ** 2 / expected), len(views) - 1
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(("name", "value"), [("duplicates", -0.1), ("formulas", 1.5), ("no_user", float("nan")),
                                             ("bots", -1)])  # fmt: skip
def test_impossible_dirt_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: got {value}, expected a "):
        Dirt(**{name: value})

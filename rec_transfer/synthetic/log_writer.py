"""Write a population as the log of a platform, and damage it on request.

The click counts can be recovered exactly, unless rows are asked to be lost.
"""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rec_transfer.data.log import EVENT_COLUMNS, ITEM_COLUMNS
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.synthetic.world import Population, World, click_probabilities
from rec_transfer.types import Key

MINUTES = 365 * 24 * 60
FIRST_DAY = np.datetime64("2025-01-01T00:00")
VIEW_SHARE, PURCHASE_SHARE, COMMENT_SHARE = 0.15, 0.1, 0.03  # per click
PRAISE = {
    1: "Not for me.",
    2: "Expected more, sadly.",
    3: "Fine for an evening.",
    4: "Very good, would recommend.",
    5: "Loved it, start to end!",
}


@dataclass(frozen=True)
class Dirt:
    """How dirty a log is made: rates are shares of the clean rows; ``bots`` is a number of accounts.

    The fields up to ``bots`` add rows beside intact ones; the reader drops them. The fields after it damage a detail of
    an intact row; the reader repairs it. ``lost`` takes the user from rows that have no intact one beside them, as real
    damage does: the reader can only drop them, and counts come out too low. A bot needs a catalogue of at least seven
    items, or its rows are not recognised as a bot's.

    Raises:
        ValueError: a share is outside 0 to 1, or the number of bots is negative; the message names it.
    """

    duplicates: float = 0.02
    no_user: float = 0.003
    unknown_items: float = 0.003
    wrong_domains: float = 0.002
    impossible_times: float = 0.003
    unknown_events: float = 0.002
    wrong_fields: float = 0.003
    bots: int = 3
    odd_spelling: float = 0.01
    blank_domains: float = 0.01
    wrong_ratings: float = 0.03
    formulas: float = 0.01
    lost: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            high, wanted = (np.inf, "a number of accounts") if name == "bots" else (1, "a share from 0 to 1")
            if not 0 <= value <= high:
                raise ValueError(f"{name}: got {value}, expected {wanted}")


CLEAN = Dirt(bots=0, **dict.fromkeys(Dirt.__dataclass_fields__.keys() - {"bots"}, 0.0))


def write_log(population: Population, world: World, folder: str | Path, *, key: Key, dirt: Dirt = CLEAN) -> Counter:
    """Write ``user_behavior_data.csv`` and ``all_items.csv`` into ``folder``, and return what was damaged.

    Each click of the population is one row. A share of the clicks is followed by a purchase or a comment. Views are
    sampled from popularity alone: they depend on the shop window and not on the user's taste. All events of a user in a
    domain have different minutes, so a repeated row is always a duplicate.

    Args:
        population: the users and their clicks.
        world: the world that they were sampled from.
        folder: gets the two files.
        key: for the events, the texts and the damage.
        dirt: how much is damaged; nothing by default.

    Returns:
        How many rows of each kind of dirt were written (by the name of ``Dirt``'s field; bots in rows).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keys = named_keys(key, "events", "dirt", "texts")
    _write(folder / "all_items.csv", ITEM_COLUMNS, _item_rows(world, numpy_generator(keys["texts"])))
    rows = _event_rows(population, world, numpy_generator(keys["events"]))
    rows, written = _dirty(rows, world, dirt, numpy_generator(keys["dirt"]))
    _write(folder / "user_behavior_data.csv", EVENT_COLUMNS, rows)
    return written


def _write(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _item_rows(world, rng):
    for domain, catalogue in world.catalogue.items():
        for number, title, genre, price in zip(*catalogue, strict=True):
            mood = rng.choice(["A slow", "A bright", "A restless", "A tender", "An odd"])
            yield number, domain, title, genre, f"{price:.2f}", f"{mood} piece of {genre.lower()}."


def _event_rows(population, world, rng):
    """Return the clean rows, in the order of time."""
    rows = []
    for domain, interactions in population.interactions.items():
        window = click_probabilities(world, domain, np.zeros((1, world.config.latent)))[0]
        for row, user in enumerate(interactions.users):
            counts = interactions.counts[[row]]
            likes = np.repeat(counts.data, counts.data)
            clicked = np.repeat(counts.indices, counts.data)
            viewed = rng.choice(len(window), rng.binomial(len(clicked), VIEW_SHARE), p=window)
            # Only every third minute is sampled: a purchase and a comment fit behind a click.
            minutes = 3 * rng.choice(MINUTES // 3, len(clicked) + len(viewed), replace=False)
            for item, minute in zip(viewed, minutes[len(clicked) :], strict=True):
                rows.append(_row(minute, user, interactions.items[item], domain, "view"))
            bought, commented = rng.random((2, len(clicked))) < [[PURCHASE_SHARE], [COMMENT_SHARE]]
            ratings = np.clip(np.round(rng.normal(3 + 0.6 * likes, 1)), 1, 5).astype(int).tolist()
            for n, (item, minute) in enumerate(zip(clicked, minutes[: len(clicked)], strict=True)):
                name = interactions.items[item]
                rows.append(_row(minute, user, name, domain, "click"))
                if bought[n]:
                    rows.append(_row(minute + 1, user, name, domain, "purchase", ratings[n]))
                if commented[n]:
                    rows.append(_row(minute + 2, user, name, domain, "comment", ratings[n], PRAISE[ratings[n]]))
    return sorted(rows, key=lambda row: (row[4], row[0], row[1]))


def _row(minute, user, item, domain, event, rating="", comment=""):
    time = str(FIRST_DAY + np.timedelta64(int(minute), "m")).replace("T", " ")
    return [str(user), str(item), domain, event, time, rating, comment]


def _dirty(rows, world, dirt, rng):
    user, item, domain, event, time, rating, comment = range(len(EVENT_COLUMNS))
    written, clean = Counter(), len(rows)

    def damage(name, column, values, candidates):
        """Overwrite a column in a share of the candidates (rows of the log itself)."""
        chosen = rng.permutation(candidates)[: round(getattr(dirt, name) * len(candidates))]
        for position in chosen:
            rows[position][column] = values[rng.integers(len(values))](rows[position])
        written[name] = len(chosen)

    damage("odd_spelling", event, [lambda row: row[event].upper(), lambda row: f" {row[event]}"], range(clean))
    damage("blank_domains", domain, [lambda row: ""], range(clean))
    rated = [position for position, row in enumerate(rows) if row[rating] != ""]
    damage("wrong_ratings", rating, [lambda row: 11, lambda row: -1, lambda row: "five"], rated)
    commented = [position for position, row in enumerate(rows) if row[comment] != ""]
    damage("formulas", comment, [lambda row: "=HYPERLINK(A1)", lambda row: "+1 for this one"], commented)

    if dirt.lost:  # else nothing is drawn for it
        damage("lost", user, [lambda row: ""], range(clean))

    home = {name: domain_name for domain_name, catalogue in world.catalogue.items() for name in catalogue.ids}
    added = []

    def others(row):  # by the item: the row's own domain may have been blanked
        return next(name for name in world.catalogue if name != home[row[item]])

    def add(name, spoil):
        """Put a spoilt copy of a share of the rows beside the intact ones."""
        number = round(getattr(dirt, name) * clean)
        added.extend(spoil(list(rows[position])) for position in rng.integers(clean, size=number))
        written[name] = number

    def put(column, value):
        return lambda row: [*row[:column], value(row) if callable(value) else value, *row[column + 1 :]]

    add("duplicates", list)
    add("no_user", put(user, ""))
    add("unknown_items", put(item, "X0000"))
    add("wrong_domains", put(domain, others))
    add("impossible_times", put(time, "2025-13-45 99:99"))
    add("unknown_events", put(event, "scroll"))
    add("wrong_fields", lambda row: row[: rng.integers(1, len(row))] if rng.random() < 0.5 else [*row, "?", "?"])
    for bot in range(dirt.bots):
        name = rng.choice(list(world.catalogue))
        start, catalogue = rng.integers(MINUTES), world.catalogue[name].ids
        burst = [_row(start + n // 40, f"crawler{bot}", rng.choice(catalogue), name, "click") for n in range(200)]
        added.extend(burst)
        written["bots"] += len(burst)
    for position, row in zip(rng.integers(clean, size=len(added)), added, strict=True):
        rows.insert(position, row)
    return rows, written

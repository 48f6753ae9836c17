"""Write small synthetic files in the formats of the public data sets, for tests and examples without the real data.

Users and clicks are sampled from a synthetic world: the overlap of the domains helps, and no row is a real person's.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.synthetic.world import WorldConfig, make_world, sample_population
from rec_transfer.types import Key

SMALL_WORLD = {"items": 200, "latent": 4, "activity": 2.6, "fewest_clicks": 5, "most_clicks": 60}


def write_cdrib_pair(
    folder: str | Path,
    source: str,
    target: str,
    *,
    key: Key,
    shared: int = 400,
    private: int = 600,
    leaks: int = 0,
    **world: Any,
) -> Path:
    """Write a pair of domains that ``data.read_cdrib_pair(folder, source, target, shared=shared)`` reads.

    As in the published files, the last tenth of the shared ids is new in the target, and the tenth before it in the
    source. Their rows are split at random into valid and test. Private ids start at ``shared`` in both domains, so they
    collide. Users come in the order of an older numbering; items are numbered in the order of their first row.

    Args:
        folder: gets ``<target>_<source>/`` and ``<source>_<target>/``.
        source, target: names of the domains.
        key: samples everything; the same key writes the same bytes.
        shared: people in both domains.
        private: people of each domain alone.
        leaks: how many items of the source are also listed in the target, with the same shared buyers.
        world: other settings of ``WorldConfig``.

    Returns:
        The folder.

    Raises:
        ValueError: there are too few shared people for a cold tenth, or more leaks than items that three people share.
    """
    if shared < 10:
        raise ValueError(f"shared: got {shared}, expected at least 10, of whom a tenth is cold in each domain")
    keys = named_keys(key, "population", "order", "split", "leaks")
    population = _population((source, target), keys["population"], private, shared, world)
    order = numpy_generator(keys["order"]).permutation(len(population.users))
    position = np.empty(len(order), int)
    position[order] = np.arange(len(order))
    position_of = dict(zip(population.users, position, strict=True))
    both = population.users[population.roles == "overlapping"]
    both = both[np.argsort([position_of[user] for user in both])]
    counts = {}
    for domain in (source, target):
        here = population.interactions[domain]
        others = here.users[~np.isin(here.users, both)]
        others = others[np.argsort([position_of[user] for user in others])]
        users = np.concatenate([both, others])
        counts[domain] = (users, here.select(users).counts.toarray() > 0)
    _leak(counts[source][1], counts[target][1], shared, leaks, numpy_generator(keys["leaks"]))
    tenth, split_keys = shared // 10, named_keys(keys["split"], source, target)
    cold = {target: (9 * tenth, shared), source: (8 * tenth, 9 * tenth)}
    for domain, other in ((source, target), (target, source)):
        users, has = counts[domain]
        rng = numpy_generator(split_keys[domain])
        lines, numbers = {"train": [], "valid": [], "test": []}, {}
        for user in np.argsort([position_of[name] for name in users]):
            for item in np.flatnonzero(has[user]):
                number = numbers.setdefault(int(item), len(numbers))
                new = cold[domain][0] <= user < cold[domain][1]
                lines[("valid", "test")[rng.integers(2)] if new else "train"].append(f"{user}\t{number}\n")
        path = Path(folder) / f"{domain}_{other}"
        path.mkdir(parents=True, exist_ok=True)
        for part, rows in lines.items():
            (path / f"{part}.txt").write_text("".join(rows), encoding="ascii", newline="\n")
    return Path(folder)


def write_ratings(
    folder: str | Path,
    domains: tuple[str, str] = ("book", "music"),
    *,
    key: Key,
    shared: int = 300,
    private: int = 60,
    **world: Any,
) -> Path:
    """Write ``douban_<domain>/ratings.dat`` for each domain, which ``data.read_ratings`` reads.

    The rows are ``user item rating``, grouped by user, in random order of the users. Ids start at 1; equal user ids are
    one person. As in the published files, some users have only one row.

    Args:
        folder, key, world: as for ``write_cdrib_pair``.
        domains: their names.
        shared, private: people in both domains, and in each alone.

    Returns:
        The folder.
    """
    keys = named_keys(key, "population", "order", "rows")
    population = _population(tuple(domains), keys["population"], private, shared, world)
    number = dict(
        zip(population.users, 1 + numpy_generator(keys["order"]).permutation(len(population.users)), strict=True)
    )
    rows_keys = named_keys(keys["rows"], *domains)
    for domain in domains:
        here = population.interactions[domain]
        rng = numpy_generator(rows_keys[domain])
        lines = []
        for row in np.argsort([number[user] for user in here.users]):
            items = rng.permutation(np.unique(here.counts[[row]].indices))
            if row % 20 == 0:
                items = items[:1]
            ratings = np.clip(np.round(rng.normal(4, 1, len(items))), 1, 5).astype(int)
            lines += [
                f"{number[here.users[row]]}\t{item + 1}\t{rating}\n"
                for item, rating in zip(items, ratings, strict=True)
            ]
        path = Path(folder) / f"douban_{domain}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "ratings.dat").write_text("".join(lines), encoding="ascii", newline="\n")
    return Path(folder)


def _population(domains, key, private, shared, world):
    keys = named_keys(key, "world", "users")
    config = WorldConfig(
        domains=domains, users_per_domain=private, overlapping_users=shared, test_users=0, **(SMALL_WORLD | world)
    )
    return sample_population(make_world(config, key=keys["world"]), key=keys["users"])


def _leak(source, target, shared, leaks, rng):
    """Give target items the shared buyers of source items, in place; each source item is used once."""
    audiences = source[:shared].sum(axis=0)
    possible = np.flatnonzero((audiences >= 3) & (audiences <= max(3, shared // 10)))
    if leaks > min(len(possible), target.shape[1]):
        raise ValueError(f"leaks: got {leaks}, expected at most {min(len(possible), target.shape[1])}")
    chosen = rng.permutation(possible)[:leaks]
    rare = np.argsort(target[:shared].sum(axis=0), kind="stable")[:leaks]  # rare items: few rows change
    target[:shared, rare] = source[:shared, chosen]

"""The formats of public data sets, read strictly: a file that is not what it should be is refused, with its line.

A file cut off between two lines, or within the last number of one, looks whole to a reader: ``datasets.fetch`` checks
sums. A user's own CSV log is read by ``event_log.read_log``.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from rec_transfer.data.counts import counts_of
from rec_transfer.data.tables import ENOUGH, films_1m, films_100k, read_numbers
from rec_transfer.types import History, Interactions, Split, TrainingData

RATINGS = (1, 5)
STRAYS = 0.01  # share of shared ids that may lack rows in one domain: rows were taken out of some published files


class Ratings(NamedTuple):
    """The ratings of one domain, rows in the order of the file: ``user`` and ``item`` are positions in the ids."""

    domain: str
    users: np.ndarray
    items: np.ndarray
    user: Int[np.ndarray, " rows"]
    item: Int[np.ndarray, " rows"]
    rating: Int[np.ndarray, " rows"]

    @property
    def interactions(self) -> Interactions:
        """Who rated what, 1 for each row whatever the rating."""
        return Interactions(
            self.domain, counts_of(self.user, self.item, (len(self.users), len(self.items))), *self[1:3]
        )


class Pair(NamedTuple):
    """Two domains in the CDRIB format: the training rows, and two experiments with users new in the target.

    ``whole`` are source and target with the hidden rows of either: for audits, and never to learn from.
    """

    train: TrainingData
    valid: Split
    test: Split
    whole: tuple[Interactions, Interactions]


def read_ratings(path: str | Path, domain: str) -> Ratings:
    """Read ``user item rating`` (tab-separated whole numbers, no header), as Douban's ratings are published.

    A user's repeated rating of one item is merged: the last row stands. Merged rows are warned of.

    Args:
        path: the file; ids of users are taken to mean the same person in every file read.
        domain: its name.

    Raises:
        ValueError: a file that is empty, has other columns, swapped columns (its rows stand together by item), text
            for a number, or a rating outside 1 to 5; with the line.
        FileNotFoundError: a file that is not there.
    """
    rows, lines = read_numbers(path, ("user", "item", "rating"))
    return _ratings(path, domain, rows, lines)


def read_movielens(folder: str | Path, genres: tuple[str, ...]) -> dict[str, Ratings]:
    """MovieLens-100K or 1M (unzipped) as pseudo domains, one per genre: ratings in the order of time.

    A film of several genres goes to the first of ``genres`` it has, so that no film is in two domains.

    Args:
        folder: holds ``u.data`` and ``u.item``, or ``ratings.dat`` and ``movies.dat``, perhaps in a folder of its own.
        genres: as the data set spells them, e.g. ``("Drama", "Comedy")``.

    Raises:
        ValueError: damaged files, a genre that no film has, or a rated film that the list of films lacks.
        FileNotFoundError: neither set of files is there.
    """
    places = [Path(folder), *sorted(path for path in Path(folder).glob("ml-*") if path.is_dir())]
    for place in places:
        if (place / "u.data").exists():
            data, films = place / "u.data", films_100k(place / "u.item")
            break
        if (place / "ratings.dat").exists():
            data, films = place / "ratings.dat", films_1m(place / "movies.dat")
            break
    else:
        raise FileNotFoundError(
            f"folder: got {folder}, expected u.data and u.item, or ratings.dat and movies.dat, in it"
        )
    rows, lines = read_numbers(
        data, ("user", "item", "rating", "time"), "\t" if data.name == "u.data" else "::", swapped=False
    )
    known = set().union(*films.values())
    if unknown := [genre for genre in genres if genre not in known]:
        raise ValueError(f"genres: got {unknown}, expected some of {sorted(known)}")
    if missing := sorted(set(rows[:, 1].tolist()) - films.keys()):
        raise ValueError(f"{data.name}: got films {missing[:5]}, expected none that the list of films lacks")
    home = {film: next((genre for genre in genres if genre in its), "") for film, its in films.items()}
    domains = np.array([home[film] for film in rows[:, 1].tolist()])
    order = np.argsort(rows[:, 3], kind="stable")
    order = {genre: order[domains[order] == genre] for genre in genres}
    if empty := [genre for genre in genres if not len(order[genre])]:
        raise ValueError(f"genres: got {empty}, expected genres in which a film was rated")
    return {genre: _ratings(data, genre, rows[order[genre], :3], lines[order[genre]]) for genre in genres}


def read_cdrib_pair(folder: str | Path, source: str, target: str, *, shared: int) -> Pair:
    """Read two domains in the format of CDRIB (Cao et al., ICDE 2022): ``user item``, tab-separated, no header.

    The target's rows are in ``<target>_<source>/{train,valid,test}.txt``, the source's in ``<source>_<target>/``. An
    id below ``shared`` is one person in both domains and stays as it is (``"12"``); from there on the same number is
    another person in the other domain, and gets its domain's name (``"cloth:12345"``). Every item of any of the three
    files has a column. Rows of the cold users of valid and test rank against the items that somebody has in train;
    the positives of valid are ``known`` in test, not the other way round. Repeated rows of a file count once, and
    are warned of.

    A wrong ``shared`` is refused on this evidence: a user of valid or test must be below it, have rows in the other
    domain's train and none in this one's; ids below it all occur, in both domains (but for 1 %); and where users
    come in train in the order of an older numbering, as in the published files, both the ids below ``shared`` and
    those from it on come in rising order, which fits one number alone. It cannot be told from files in another order
    if numbers just above the true one are used in both domains.

    Args:
        folder: holds the two folders.
        source: name of the domain in which the cold users are known.
        target: name of the domain in which they are new.
        shared: how many ids are shared (``n_common``); the number belongs to the pair.

    Raises:
        ValueError: a damaged file, with its line; or files that contradict ``shared`` or each other.
        FileNotFoundError: a file that is not there.
    """
    if source == target:
        raise ValueError(f"source and target: got {source!r} twice, expected two domains")
    names, parts = (f"{source}_{target}", f"{target}_{source}"), ("train", "valid", "test")
    files = [{part: _pairs(Path(folder) / name / f"{part}.txt") for part in parts} for name in names]
    _check_shared(files, names, shared)
    first, second = files
    items = [np.unique(np.concatenate([rows[:, 1] for rows in side.values()])) for side in files]
    known, new = first["train"], second["train"]

    def matrix(rows, users, columns):
        chosen = rows[np.isin(rows[:, 0], users)]
        position = np.searchsorted(users, chosen[:, 0]), np.searchsorted(columns, chosen[:, 1])
        return counts_of(*position, (len(users), len(columns)))

    def side(domain, rows, columns):
        users = np.unique(rows[:, 0])
        ids = np.where(users < shared, users.astype(str), np.char.add(f"{domain}:", users.astype(str)))
        return Interactions(domain, matrix(rows, users, columns), ids, columns.astype(str))

    train = TrainingData(side(source, known, items[0]), side(target, new, items[1]))

    def split(hidden, besides):
        users = np.unique(hidden[:, 0])
        return Split(
            train=train,
            users=users.astype(str),
            history=History(matrix(known, users, items[0])),
            hidden=matrix(hidden, users, items[1]),
            known=matrix(besides, users, items[1]),
            candidates=np.isin(items[1], new[:, 1]),
        )

    valid, test = second["valid"], second["test"]
    whole = tuple(
        side(domain, np.concatenate(list(rows.values())), columns)
        for domain, rows, columns in zip((source, target), files, items, strict=True)
    )
    return Pair(train, split(valid, valid[:0]), split(test, _without(valid, test)), whole)


def _without(rows, others):
    """The rows that do not stand among the others."""
    width = 1 + max(rows[:, 1].max(initial=0), others[:, 1].max(initial=0))
    return rows[~np.isin(rows[:, 0] * width + rows[:, 1], others[:, 0] * width + others[:, 1])]


def _check_shared(files, names, shared):
    """Raise where the files contradict the number of shared ids, or each other."""
    if shared < 1:
        raise ValueError(f"shared: got {shared}, expected at least 1")
    trains = [np.unique(side["train"][:, 0]) for side in files]
    every, last = [], -1
    for side, name, own, other in zip(files, names, trains, trains[::-1], strict=True):
        for part in ("valid", "test"):
            users = np.unique(side[part][:, 0])
            where = f"{name}/{part}.txt"
            if len(wrong := users[users >= shared]):
                raise ValueError(
                    f"shared: got {shared}, expected at least {wrong[-1] + 1}: user {wrong[-1]} of {where} has to be "
                    "known in the other domain"
                )
            if len(wrong := np.intersect1d(users, own)):
                raise ValueError(f"{where}: got users {wrong[:5]} with rows in train too, expected cold users")
            if len(wrong := np.setdiff1d(users, other)):
                raise ValueError(f"{where}: got users {wrong[:5]} without rows in the other domain's train")
            last = max(last, users[-1])
        every.append(np.unique(np.concatenate([rows[:, 0] for rows in side.values()])))
    both = np.intersect1d(*(users[users < shared] for users in every))
    first = min(users[0] for users in every)  # some number people from 1
    if shared - first - len(both) > STRAYS * shared:
        lone = first + np.argmax(np.append(both, -1) != first + np.arange(len(both) + 1))
        raise ValueError(
            f"shared: got {shared}, but {shared - first - len(both)} ids below it have rows in one domain only or in "
            f"none ({lone}, say), expected everybody below it in both"
        )
    if not len(np.intersect1d(*(users[users < shared] for users in trains))):
        raise ValueError(f"shared: got {shared}, expected users below it with rows in both train files, got none")
    low, high, steps = 1, np.inf, 0
    for side in files:  # a threshold parts the users into two rising runs where it parts every two in falling order
        users = side["train"][np.sort(np.unique(side["train"][:, 0], return_index=True)[1]), 0]
        after = users < np.maximum.accumulate(users)
        before = users > np.minimum.accumulate(users[::-1])[::-1]
        low, high = max([low, *(users[after] + 1)]), min([high, *users[before]])
        steps += int(np.sum(np.diff(users) < 0))
    if steps >= ENOUGH and low <= high and not low <= shared <= high:
        raise ValueError(
            f"shared: got {shared}, expected {low if low == high else f'{low} to {high}'}: the order of users in the "
            "train files parts shared from private ids there"
        )


def _pairs(path):
    rows, _ = read_numbers(path, ("user", "item"))
    return rows[_keep(path, rows)]


def _ratings(path, domain, rows, lines):
    outside = (rows[:, 2] < RATINGS[0]) | (rows[:, 2] > RATINGS[1])
    if outside.any():
        bad = np.argmax(outside)
        raise ValueError(
            f"{Path(path).name}, line {lines[bad]}: got rating {rows[bad, 2]}, expected {RATINGS[0]} to {RATINGS[1]} "
            "in the third column"
        )
    rows = rows[_keep(path, rows)]
    (users, user), (items, item) = (np.unique(rows[:, column], return_inverse=True) for column in (0, 1))
    return Ratings(domain, users.astype(str), items.astype(str), user, item, rows[:, 2])


def _keep(path, rows):
    """Positions of the rows that stand, in order: the last of those with one user and item."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))  # stable: the rows of a user and item stay in the file's order
    last = np.append(np.any(np.diff(rows[order, :2], axis=0), axis=1), True)
    if not last.all():
        warnings.warn(
            f"{Path(path).name}: {np.sum(~last)} repeated rows (same user and item) merged, the last one stands",
            stacklevel=4,
        )
    return np.sort(order[last])

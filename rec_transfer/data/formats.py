"""Read the formats of public data sets strictly: a malformed file is refused, with the line number.

A file that is cut off between two lines, or within the last number of one, looks complete. ``data.fetch`` therefore
compares checksums. Read your own CSV log with ``data.read_log``.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from rec_transfer.data.counts import counts_of
from rec_transfer.data.tables import MIN_PATTERN, films_1m, films_100k, read_numbers
from rec_transfer.types import History, Interactions, Split, TrainingData

RATINGS = (1, 5)
MAX_STRAY_SHARE = 0.01  # of the shared ids: some published files lack a few of their rows


class Ratings(NamedTuple):
    """The ratings of one domain, rows in the order of the file; ``user`` and ``item`` are positions in the ids."""

    domain: str
    users: np.ndarray
    items: np.ndarray
    user: Int[np.ndarray, " rows"]
    item: Int[np.ndarray, " rows"]
    rating: Int[np.ndarray, " rows"]

    @property
    def interactions(self) -> Interactions:
        """Return who rated what: a count of 1 for each row, whatever the rating."""
        counts = counts_of(self.user, self.item, (len(self.users), len(self.items)))
        return Interactions(self.domain, counts, self.users, self.items)


class DomainPair(NamedTuple):
    """Two domains in the CDRIB format: the training rows, and two experiments with users new in the target.

    ``whole`` are source and target with the hidden rows of either: for audits, and never to learn from.
    """

    train: TrainingData
    valid: Split
    test: Split
    whole: tuple[Interactions, Interactions]


def read_ratings(path: str | Path, domain: str) -> Ratings:
    """Return the ratings in a file of ``user item rating``, the format of Douban's published ratings.

    The fields are whole numbers, separated by tabulators, without a header. If a user rates an item repeatedly, the
    last row is kept and a warning counts the others.

    Args:
        path: the file; equal user ids are one person in every file read.
        domain: name of the domain.

    Raises:
        ValueError: the file is empty, has other columns, swapped columns (its rows are grouped by item), text instead
            of a number, or a rating outside 1 to 5; the message names the line.
        FileNotFoundError: the file does not exist.
    """
    rows, lines = read_numbers(path, ("user", "item", "rating"))
    return _ratings(path, domain, rows, lines)


def read_movielens(folder: str | Path, genres: tuple[str, ...]) -> dict[str, Ratings]:
    """Return MovieLens-100K or 1M as one pseudo domain per genre, ratings in the order of time.

    A film of several genres belongs to the first of ``genres`` that it has. No film is therefore in two domains.

    Args:
        folder: the unzipped ``u.data`` and ``u.item``, or ``ratings.dat`` and ``movies.dat``; perhaps in a subfolder.
        genres: as the data set spells them, e.g. ``("Drama", "Comedy")``.

    Raises:
        ValueError: a file is damaged, no film has one of the genres, or a rated film is not in the list of films.
        FileNotFoundError: neither pair of files exists.
    """
    folders = [Path(folder), *sorted(path for path in Path(folder).glob("ml-*") if path.is_dir())]
    for path in folders:
        if (path / "u.data").exists():
            data, films = path / "u.data", films_100k(path / "u.item")
            break
        if (path / "ratings.dat").exists():
            data, films = path / "ratings.dat", films_1m(path / "movies.dat")
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


def read_cdrib_pair(folder: str | Path, source: str, target: str, *, shared: int) -> DomainPair:
    """Return two domains that are stored in the format of CDRIB (Cao et al., ICDE 2022).

    The rows are ``user item``, tab-separated, without a header. The target's are in
    ``<target>_<source>/{train,valid,test}.txt``, the source's in ``<source>_<target>/``. An id below ``shared`` is one
    person in both domains and is kept (``"12"``). From ``shared`` on, an equal number is another person in each domain,
    so the id gets its domain's name (``"cloth:12345"``). Every item of any of the three files has a column.

    The hidden rows of valid and test rank against the items that have a row in train. Positives of valid are known in
    test, but not the other way round. Repeated rows of a file count once, with a warning.

    A wrong ``shared`` is refused on this evidence. Users of valid and test must be below it, with rows in the other
    domain's train and none in this one's. All ids below it must occur in both domains (but for 1 %). In the published
    files, users come in train in the order of an older numbering: the ids below ``shared`` rise, and so do those from
    it on, which fits one number alone. If the files are sorted differently and both domains use ids just above
    ``shared``, a slightly wrong value cannot be detected.

    Args:
        folder: holds the two folders.
        source: name of the domain in which the cold users are known.
        target: name of the domain in which they are new.
        shared: how many ids are shared (``n_common``); the number belongs to the pair.

    Raises:
        ValueError: a file is damaged (with its line), or the files contradict ``shared`` or each other.
        FileNotFoundError: a file does not exist.
    """
    if source == target:
        raise ValueError(f"source and target: got {source!r} twice, expected two domains")
    names, parts = (f"{source}_{target}", f"{target}_{source}"), ("train", "valid", "test")
    files = [{part: _read_rows_once(Path(folder) / name / f"{part}.txt") for part in parts} for name in names]
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
    return DomainPair(train, split(valid, valid[:0]), split(test, _without(valid, test)), whole)


def _without(rows, others):
    """The rows that do not stand among the others."""
    width = 1 + max(rows[:, 1].max(initial=0), others[:, 1].max(initial=0))
    return rows[~np.isin(rows[:, 0] * width + rows[:, 1], others[:, 0] * width + others[:, 1])]


def _check_shared(files, names, shared):
    """Raise if the files contradict the number of shared ids, or each other."""
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
    if shared - first - len(both) > MAX_STRAY_SHARE * shared:
        lone = first + np.argmax(np.append(both, -1) != first + np.arange(len(both) + 1))
        raise ValueError(
            f"shared: got {shared}, but {shared - first - len(both)} ids below it have rows in one domain only or in "
            f"none ({lone}, say), expected everybody below it in both"
        )
    if not len(np.intersect1d(*(users[users < shared] for users in trains))):
        raise ValueError(f"shared: got {shared}, expected users below it with rows in both train files, got none")
    # A threshold splits the users into two rising runs if it separates every two users in falling order.
    low, high, steps = 1, np.inf, 0
    for side in files:
        users = side["train"][np.sort(np.unique(side["train"][:, 0], return_index=True)[1]), 0]
        after = users < np.maximum.accumulate(users)
        before = users > np.minimum.accumulate(users[::-1])[::-1]
        low, high = max([low, *(users[after] + 1)]), min([high, *users[before]])
        steps += int(np.sum(np.diff(users) < 0))
    if steps >= MIN_PATTERN and low <= high and not low <= shared <= high:
        raise ValueError(
            f"shared: got {shared}, expected {low if low == high else f'{low} to {high}'}: the order of users in the "
            "train files parts shared from private ids there"
        )


def _read_rows_once(path):
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
    """Return the positions of the rows that are kept, in order: the last one of each user and item."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))  # stable: the rows of a user and item stay in the file's order
    last = np.append(np.any(np.diff(rows[order, :2], axis=0), axis=1), True)
    if not last.all():
        warnings.warn(
            f"{Path(path).name}: {np.sum(~last)} repeated rows (same user and item) merged, the last one stands",
            stacklevel=4,
        )
    return np.sort(order[last])

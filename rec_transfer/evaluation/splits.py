"""What is hidden from training, and what a method sees of the users asked about: one function per protocol."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from rec_transfer.data.formats import Ratings
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.types import HeldOut, History, Interactions, Key, Split, TrainingData


class ColdStart(NamedTuple):
    """A platform split by user: ``train`` without the test users, ``test`` with nobody else (rows aligned)."""

    train: dict[str, Interactions]
    test: dict[str, Interactions]
    scored: dict[str, sparse.csr_array]
    reference: dict[str, sparse.csr_array]

    def direction(self, source: str, target: str) -> Split:
        """The experiment "users known in ``source``, new in ``target``".

        Raises:
            ValueError: a domain that is not there, or twice the same.
        """
        for name, domain in (("source", source), ("target", target)):
            if domain not in self.train:
                raise ValueError(f"{name}: got {domain!r}, expected one of {sorted(self.train)}")
        if source == target:
            raise ValueError(f"source and target: got {source!r} twice, expected two domains")
        return Split(
            TrainingData(self.train[source], self.train[target]),
            History(self.test[source].counts),
            self.scored[target],
            self.reference[target],
            self.test[source].users,
        )


def cold_start(interactions: dict[str, Interactions], *, test_users, key: Key) -> ColdStart:
    """Hide users from training and halve their clicks into a scored and a reference part.

    Test users leave the training rows of *every* domain, so that one VAE per domain serves all directions and none has
    seen them.

    Args:
        interactions: one entry per domain.
        test_users: ids to hide, or how many to draw from the users active in every domain.
        key: draws the users and the halves.

    Raises:
        ValueError: more test users asked for than are active in every domain, or ids not active in all.
    """
    keys = named_keys(key, "users", "halves")
    shared = sorted(set.intersection(*(set(domain.users) for domain in interactions.values())))
    if isinstance(test_users, int):
        if not 0 < test_users < len(shared):
            raise ValueError(
                f"test_users: got {test_users}, expected 1 to {len(shared) - 1} "
                f"({len(shared)} users are active in every domain)"
            )
        test_users = numpy_generator(keys["users"]).permutation(shared)[:test_users]
    test_users = np.sort(np.asarray(test_users))
    if missing := sorted(set(test_users) - set(shared)):
        raise ValueError(f"test_users: got {missing[:5]} not active in every domain ({len(missing)} in all)")
    test = {name: domain.select(test_users) for name, domain in interactions.items()}
    rng = numpy_generator(keys["halves"])
    halves = {name: halve(domain.counts, rng) for name, domain in test.items()}
    return ColdStart(
        train={name: domain.without(test_users) for name, domain in interactions.items()},
        test=test,
        scored={name: half[0] for name, half in halves.items()},
        reference={name: half[1] for name, half in halves.items()},
    )


def halve(counts: sparse.csr_array, rng: np.random.Generator) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Deal each user's clicks at random into two halves (the first gets the odd one); they add up to ``counts``."""
    entries = counts.tocoo()
    rows, columns = (np.repeat(where, entries.data.astype(int)) for where in entries.coords)
    order = np.lexsort((rng.random(len(rows)), rows))
    rows, columns = rows[order], columns[order]
    position = np.arange(len(rows)) - np.searchsorted(rows, rows)
    first = position % 2 == 0

    def matrix(chosen):
        ones = (np.ones(chosen.sum(), counts.dtype), (rows[chosen], columns[chosen]))
        return sparse.csr_array(sparse.coo_array(ones, shape=counts.shape))

    return matrix(first), matrix(~first)


def leave_last_out(
    source: Ratings, target: Ratings, *, tuning_users: int = 0, key: Key | None = None
) -> tuple[TrainingData, HeldOut]:
    """Hold out the last row, in the order of the file, of every target user: what may be learned from, and the rows.

    Warm: a scorer is given the users' remaining target rows, and their source rows but the last, which is the test of
    the other direction. Users with one row are held out too, with an empty target history, and are not trained on.

    Args:
        source, target: ratings of two domains; equal ids are one person.
        tuning_users: 0 for the test rows. Else so many random users with two training rows or more, whose last
            *training* row is held out instead: for choosing settings. No test row is then seen by anything.
        key: draws the tuning users.

    Returns:
        The training rows, and the held-out rows: ``known`` are all of a user's target rows up to the one held out.

    Raises:
        ValueError: more tuning users than there are, or no key to draw them with.
    """
    left = {"source": _from_end(source), "target": _from_end(target)}
    test = left["target"] == 1
    trained, held = ~test, test
    if tuning_users:
        possible = np.unique(target.user[left["target"] == 3])  # a third row from the end is a second one to train on
        if key is None or not 0 < tuning_users <= len(possible):
            raise ValueError(
                f"tuning_users: got {tuning_users} {'without' if key is None else 'with'} a key, expected 1 to "
                f"{len(possible)} users, and a key to draw them with"
            )
        chosen = numpy_generator(key).permutation(possible)[:tuning_users]
        held = (left["target"] == 2) & np.isin(target.user, chosen)
        trained = trained & ~held
    train = TrainingData(_interactions(source, left["source"] > 1), _interactions(target, trained))
    users = np.unique(target.user[held])
    ids = target.users[users]

    def history(matrix, names):
        position = {name: row for row, name in enumerate(names)}
        where = np.array([position.get(name, -1) for name in ids])
        picks = sparse.csr_array(
            (np.ones((where >= 0).sum(), np.int32), (np.flatnonzero(where >= 0), where[where >= 0])),
            shape=(len(ids), len(names)),
        )
        return sparse.csr_array(picks @ matrix)

    seen = _interactions(target, trained | held)
    return train, HeldOut(
        ids,
        history(train.source.counts, train.source.users),
        history(train.target.counts, train.target.users),
        np.searchsorted(users, target.user[held]),
        target.item[held],
        history(seen.counts, seen.users),
        np.ones(len(target.items), bool),
    )


def hide_users(train: TrainingData, number: int, *, key: Key) -> tuple[TrainingData, HeldOut]:
    """Make cold users of training users: the target rows of some overlapping ones, held out to choose settings by.

    Returns:
        The training data without those rows, and the rows: every user's items, all of them known.

    Raises:
        ValueError: fewer overlapping users than that, and one to learn the map from.
    """
    shared = train.overlapping_users
    if not 0 < number < len(shared):
        raise ValueError(f"number: got {number}, expected 1 to {len(shared) - 1} of {len(shared)} overlapping users")
    users = np.sort(numpy_generator(key).permutation(shared)[:number])
    seen = TrainingData(train.source, train.target.without(users))
    positives = train.target.select(users).counts
    user, item = positives.nonzero()
    candidates = np.asarray(train.target.counts.sum(axis=0)).ravel() > 0
    return seen, HeldOut(users, train.source.select(users).counts, None, user, item, positives, candidates)


def some_users(held: HeldOut, number: int, *, key: Key) -> HeldOut:
    """The rows of so many random users of ``held``, or all: for choosing settings in bounded memory.

    Raises:
        ValueError: no user asked for.
    """
    if number < 1:
        raise ValueError(f"number: got {number}, expected at least 1 user")
    users = np.sort(numpy_generator(key).permutation(len(held.users))[:number])
    rows = np.isin(held.user, users)
    target = None if held.target is None else held.target[users]
    return held._replace(
        users=held.users[users], source=held.source[users], target=target, known=held.known[users],
        user=np.searchsorted(users, held.user[rows]), item=held.item[rows],
    )  # fmt: skip


def _from_end(ratings):
    """How far each row is from its user's last in the order of the file: 1 is the last."""
    order = np.argsort(ratings.user[::-1], kind="stable")
    sorted_users = ratings.user[::-1][order]
    place = np.empty(len(order), int)
    place[order] = 1 + np.arange(len(order)) - np.searchsorted(sorted_users, sorted_users)
    return place[::-1]


def _interactions(ratings, chosen):
    """The chosen rows as counts: users with one at least, every item."""
    users, user = np.unique(ratings.user[chosen], return_inverse=True)
    ones = (np.ones(len(user), np.int32), (user, ratings.item[chosen]))
    counts = sparse.csr_array(sparse.coo_array(ones, shape=(len(users), len(ratings.items))))
    return Interactions(ratings.domain, counts, ratings.users[users], ratings.items)

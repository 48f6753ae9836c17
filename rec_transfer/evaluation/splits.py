"""What is hidden from training, and what a method sees of the users asked about: one function per protocol."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from rec_transfer.data.counts import counts_of
from rec_transfer.data.formats import Ratings
from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.types import History, Interactions, Key, Split, TrainingData


class ColdStart(NamedTuple):
    """A platform split by user: ``train`` without the test users, ``test`` with nobody else (rows aligned).

    ``hidden`` and ``reference`` are two halves of the test users' items in each domain, with all clicks on them.
    """

    train: dict[str, Interactions]
    test: dict[str, Interactions]
    hidden: dict[str, sparse.csr_array]
    reference: dict[str, sparse.csr_array]

    def direction(self, source: str, target: str) -> Split:
        """Return the experiment "users known in ``source``, new in ``target``".

        Their lists are judged by one half of their target items, all of them together; ceilings are shown the clicks on
        the other half, whose items then stand in no list of theirs.

        Raises:
            ValueError: a domain that is not there, or twice the same.
        """
        for name, domain in (("source", source), ("target", target)):
            if domain not in self.train:
                raise ValueError(f"{name}: got {domain!r}, expected one of {sorted(self.train)}")
        if source == target:
            raise ValueError(f"source and target: got {source!r} twice, expected two domains")
        return Split(
            train=TrainingData(self.train[source], self.train[target]),
            users=self.test[source].users,
            history=History(self.test[source].counts),
            hidden=self.hidden[target],
            known=sparse.csr_array(self.hidden[target].shape, dtype=np.int32),
            candidates=np.ones(self.hidden[target].shape[1], bool),
            reference=self.reference[target],
        )


def cold_start(
    interactions: dict[str, Interactions], *, test_users: int | np.integer | Sequence[str] | np.ndarray, key: Key
) -> ColdStart:
    """Split a platform by user: hide users from training, and split their items into a hidden and a reference half.

    An item goes whole to one half. Were clicks dealt one by one, much of what a list is judged by would have been shown
    to whoever reads the reference. Test users leave the training rows of *every* domain, so that one VAE per domain
    serves all directions and none has seen them.

    Args:
        interactions: one entry per domain.
        test_users: ids to hide, or how many to draw from the users active in every domain.
        key: draws the users and the halves.

    Raises:
        ValueError: more test users asked for than are active in every domain, or ids not active in all.
    """
    keys = named_keys(key, "users", "halves")
    shared = sorted(set.intersection(*(set(domain.users) for domain in interactions.values())))
    if isinstance(test_users, int | np.integer):
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
    halves = {name: split_items(domain.counts, rng) for name, domain in test.items()}
    return ColdStart(
        train={name: domain.without(test_users) for name, domain in interactions.items()},
        test=test,
        hidden={name: half[0] for name, half in halves.items()},
        reference={name: half[1] for name, half in halves.items()},
    )


def split_items(counts: sparse.csr_array, rng: np.random.Generator) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Split each user's items at random into two halves, each with all clicks on it; the first gets the odd item."""
    entries = counts.tocsr(copy=True)
    entries.eliminate_zeros()
    rows, columns = entries.nonzero()
    order = np.lexsort((rng.random(len(rows)), rows))
    first = np.empty(len(rows), bool)
    first[order] = (np.arange(len(rows)) - np.searchsorted(rows, rows)) % 2 == 0
    halves = (sparse.csr_array((entries.data[h], (rows[h], columns[h])), shape=counts.shape) for h in (first, ~first))
    return tuple(halves)


def leave_last_out(source: Ratings, target: Ratings, *, tuning_users: int = 0, key: Key | None = None) -> Split:
    """Hide the last row, in the order of the file, of every target user.

    The users are warm: a scorer is given their remaining target rows, and their source rows but the last, which is the
    test of the other direction. Users with one row are asked about too, with an empty target history, and are not
    trained on. What a user has after the hidden row is neither known nor hidden.

    Args:
        source, target: ratings of two domains; equal ids are one person.
        tuning_users: 0 for the test rows. Else so many random users with two training rows or more, whose last
            *training* row is hidden instead: for choosing settings. No test row is then seen by anything.
        key: draws the tuning users.

    Raises:
        ValueError: more tuning users than there are, or no key to draw them with.
    """
    left = {"source": _from_end(source), "target": _from_end(target)}
    test = left["target"] == 1
    trained, hidden = ~test, test
    if tuning_users:
        possible = np.unique(target.user[left["target"] == 3])  # a third row from the end is a second one to train on
        if key is None or not 0 < tuning_users <= len(possible):
            raise ValueError(
                f"tuning_users: got {tuning_users} {'without' if key is None else 'with'} a key, expected 1 to "
                f"{len(possible)} users, and a key to draw them with"
            )
        chosen = numpy_generator(key).permutation(possible)[:tuning_users]
        hidden = (left["target"] == 2) & np.isin(target.user, chosen)
        trained = trained & ~hidden
    train = TrainingData(_interactions(source, left["source"] > 1), _interactions(target, trained))
    users = target.users[np.unique(target.user[hidden])]
    history = History(train.source.rows_of(users), train.target.rows_of(users))
    return Split(
        train=train,
        users=users,
        history=history,
        hidden=_interactions(target, hidden).rows_of(users),
        known=history.target,
        candidates=np.ones(len(target.items), bool),
    )


def hide_users(train: TrainingData, number: int, *, key: Key) -> Split:
    """Make cold users of training users: hide the target rows of some overlapping ones, to choose settings by.

    Raises:
        ValueError: fewer overlapping users than that, and one to learn the map from.
    """
    shared = train.overlapping_users
    if not 0 < number < len(shared):
        raise ValueError(f"number: got {number}, expected 1 to {len(shared) - 1} of {len(shared)} overlapping users")
    return _without_target_rows(train, np.sort(numpy_generator(key).permutation(shared)[:number]))


def folds(train: TrainingData, number: int = 5, *, key: Key) -> list[Split]:
    """Split the overlapping users into folds: each is asked about once, by what is learned without its target rows.

    Raises:
        ValueError: fewer than two folds, or fewer overlapping users than folds.
    """
    shared = train.overlapping_users
    if not 2 <= number <= len(shared):
        raise ValueError(f"folds: got {number}, expected 2 to {len(shared)}, the number of overlapping users")
    parts = np.array_split(numpy_generator(key).permutation(shared), number)
    return [_without_target_rows(train, users, candidates=np.ones(len(train.target.items), bool)) for users in parts]


def some_users(split: Split, number: int, *, key: Key) -> Split:
    """Return the split with so many random users asked about, or all: for choosing settings in bounded memory.

    Raises:
        ValueError: no user asked for.
    """
    if number < 1:
        raise ValueError(f"number: got {number}, expected at least 1 user")
    rows = np.sort(numpy_generator(key).permutation(len(split.users))[:number])
    source, target = split.history
    return split._replace(
        users=split.users[rows],
        history=History(source[rows], None if target is None else target[rows]),
        hidden=split.hidden[rows],
        known=split.known[rows],
        reference=None if split.reference is None else split.reference[rows],
    )


def _without_target_rows(train, users, candidates=None):
    """Cold users: their source rows stay in training, their target rows are hidden."""
    hidden = train.target.select(users).counts
    return Split(
        train=TrainingData(train.source, train.target.without(users)),
        users=users,
        history=History(train.source.select(users).counts),
        hidden=hidden,
        known=sparse.csr_array(hidden.shape, dtype=np.int32),
        candidates=np.asarray(train.target.counts.sum(axis=0)).ravel() > 0 if candidates is None else candidates,
    )


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
    counts = counts_of(user, ratings.item[chosen], (len(users), len(ratings.items)))
    return Interactions(ratings.domain, counts, ratings.users[users], ratings.items)

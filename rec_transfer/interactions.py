"""From events to matrices and features, and the splits that keep test users' target rows out of sight."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.types import Events, History, Interactions, Key, TrainingData


class Split(NamedTuple):
    """One direction of a cold-start experiment.

    ``train`` is all a method may learn from; ``history`` what it sees of the test users; ``scored`` and ``reference``
    are two halves of their hidden target clicks: the first is what every list is scored on, the second is for rows
    named ceiling alone. ``users`` are the ids of the rows of the last three.
    """

    train: TrainingData
    history: History
    scored: sparse.csr_array
    reference: sparse.csr_array
    users: np.ndarray


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


def from_events(events: dict[str, Events], *, kind: str = "click") -> dict[str, Interactions]:
    """Counts of one kind of event per domain: users with at least one, every item of the catalogue.

    Raises:
        ValueError: a domain in which no such event happened.
    """
    result = {}
    for domain, log in events.items():
        chosen = log.kind == kind
        if not chosen.any():
            raise ValueError(f"kind: got {kind!r}, expected one that happened in {domain!r}: {sorted(set(log.kind))}")
        rows, columns = log.user[chosen], log.item[chosen]
        counts = sparse.coo_array(
            (np.ones(len(rows), np.int32), (rows, columns)), shape=(len(log.users), len(log.items))
        ).tocsr()
        active = np.flatnonzero(counts.sum(axis=1))
        result[domain] = Interactions(domain, counts[active], log.users[active], log.items)
    return result


FEATURES = ("views", "clicks", "purchases", "comments", "recency", "genre_entropy")


def user_features(events: Events, *, today: float) -> Float[np.ndarray, "users features"]:
    r"""What is known of each user's behaviour in one domain, in the order of ``FEATURES``.

    Counts by kind of event; recency, days from the last event to ``today``; the entropy, in nats, of the genres
    clicked, $-\sum_g p_g \log p_g$ (0 for one genre or none).

    Raises:
        ValueError: an event after ``today``, or a user without any event, who has no recency.
    """
    if events.day.max() > today:
        raise ValueError(f"today: got {today}, expected no event after it (the last is on day {events.day.max():.2f})")
    users = len(events.users)
    kinds = [np.bincount(events.user[events.kind == name[:-1]], minlength=users) for name in FEATURES[:4]]
    last = np.full(users, -np.inf)
    np.maximum.at(last, events.user, events.day)
    if not np.isfinite(last).all():
        raise ValueError(f"users: got {np.isinf(last).sum()} without an event, expected at least one for each")
    _, genre = np.unique(events.genres, return_inverse=True)
    clicked = events.kind == "click"
    by_genre = np.zeros((users, genre.max() + 1))
    np.add.at(by_genre, (events.user[clicked], genre[events.item[clicked]]), 1)
    share = by_genre / np.maximum(by_genre.sum(axis=1, keepdims=True), 1)
    entropy = np.sum(share * -np.log(np.where(share > 0, share, 1)), axis=1)
    return np.column_stack([*kinds, today - last, entropy]).astype(float)


def standardise(train: Float[np.ndarray, "train features"], *others: Float[np.ndarray, "_ features"]):
    """Mean 0 and variance 1 per feature, as measured on ``train`` alone; the others are scaled by the same numbers.

    A feature that is the same for all of ``train`` is centred and left unscaled.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    return tuple(scaler.transform(part) for part in (train, *others))

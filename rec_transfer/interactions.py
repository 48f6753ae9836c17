"""From events to matrices and features, and the splits that keep test users' target rows out of sight."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from rec_transfer.keys import named_keys, numpy_generator
from rec_transfer.types import History, Interactions, Key, TrainingData


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
    rows, columns = counts.nonzero()
    repeats = np.asarray(counts[rows, columns]).astype(int)
    rows, columns = np.repeat(rows, repeats), np.repeat(columns, repeats)
    order = np.lexsort((rng.random(len(rows)), rows))
    rows, columns = rows[order], columns[order]
    position = np.arange(len(rows)) - np.searchsorted(rows, rows)
    first = position % 2 == 0

    def matrix(chosen):
        entries = (np.ones(chosen.sum(), counts.dtype), (rows[chosen], columns[chosen]))
        return sparse.csr_array(sparse.coo_array(entries, shape=counts.shape))

    return matrix(first), matrix(~first)

"""What travels between modules: counts of a domain, posteriors, histories, and the shapes of the plug-in points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import sparse

Key = jax.Array
Logits = Float[Array, "*users items"]
Counts = Float[Array, "*users items"]
PerUser = Float[Array, "*users"]


@dataclass(frozen=True, eq=False)
class Interactions:
    """Counts of one domain: a sparse matrix [users, items] and the ids of its rows and columns.

    Args:
        domain: name of the domain, e.g. ``"films"``.
        counts: non-negative counts of events (clicks), one row per user.
        users: user ids, unique, one per row.
        items: item ids, unique, one per column.

    Raises:
        ValueError: ids are repeated, or their number differs from the matrix's shape.
    """

    domain: str
    counts: sparse.csr_array
    users: np.ndarray
    items: np.ndarray

    def __post_init__(self) -> None:
        if self.counts.shape != (len(self.users), len(self.items)):
            raise ValueError(
                f"counts of {self.domain!r}: got shape {self.counts.shape}, expected one row per user and one "
                f"column per item, {(len(self.users), len(self.items))}"
            )
        for name, ids in (("users", self.users), ("items", self.items)):
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f"{name} of {self.domain!r}: got repeated ids, expected each id once")

    def select(self, users: Sequence[str] | np.ndarray) -> "Interactions":
        """The rows of these users, in the order given.

        Raises:
            KeyError: a user is not in this domain.
        """
        row_of = {user: row for row, user in enumerate(self.users)}
        unknown = [user for user in users if user not in row_of]
        if unknown:
            raise KeyError(f"users not in {self.domain!r}: {unknown[:5]} ({len(unknown)} in all)")
        rows = np.array([row_of[user] for user in users], dtype=int)
        return Interactions(self.domain, self.counts[rows], self.users[rows], self.items)

    def without(self, users: Sequence[str] | np.ndarray) -> "Interactions":
        """Every row but those of these users."""
        rows = np.flatnonzero(~np.isin(self.users, users))
        return Interactions(self.domain, self.counts[rows], self.users[rows], self.items)


class Events(NamedTuple):
    """The clean events of one domain, coded: ``user`` and ``item`` are positions in ``users`` and ``items``.

    ``genres`` runs along ``items``; ``user``, ``item``, ``kind`` (view, click, purchase, comment) and ``day`` (days
    since 1970-01-01, with a fraction) have one entry per event.
    """

    domain: str
    users: np.ndarray
    items: np.ndarray
    genres: np.ndarray
    user: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    day: np.ndarray


class Gaussian(NamedTuple):
    """A Gaussian per user with a full covariance: what an encoder believes of the user's interest."""

    mean: Float[Array, "*users latent"]
    covariance: Float[Array, "*users latent latent"]


class History(NamedTuple):
    """What a recommender may see of a chunk of users; ``target`` is given in warm protocols only."""

    source: sparse.csr_array
    target: sparse.csr_array | None = None


class Pairs(NamedTuple):
    """Overlapping users, row-aligned: their posterior in both domains and their target counts."""

    source: Gaussian
    target: Gaussian
    counts: Float[Array, "pairs items"]


class Unpaired(NamedTuple):
    """Posteriors of users seen in one domain only (rows do not correspond)."""

    source: Gaussian
    target: Gaussian


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All a method may learn from in one direction: every training user of either domain.

    Raises:
        ValueError: no user is active in both domains.
    """

    source: Interactions
    target: Interactions

    def __post_init__(self) -> None:
        if len(self.overlapping_users) == 0:
            raise ValueError(
                f"users of {self.source.domain!r} and {self.target.domain!r}: got no user active in both, "
                "expected overlapping users to learn the map from"
            )

    @property
    def overlapping_users(self) -> np.ndarray:
        """Ids of the users active in both domains, sorted."""
        return np.intersect1d(self.source.users, self.target.users)

    @property
    def pairs(self) -> tuple[Interactions, Interactions]:
        """Source and target rows of the overlapping users, aligned."""
        return self.source.select(self.overlapping_users), self.target.select(self.overlapping_users)


Aligner = Callable[[Gaussian], Gaussian]
FitAligner = Callable[..., Aligner]
Scorer = Callable[[History], np.ndarray]
FitMethod = Callable[..., Scorer]


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


class HeldOut(NamedTuple):
    """Held-out target rows, one positive each, and what a scorer may see of their users.

    ``user`` and ``item`` are positions in ``users`` and in the target's items, in the order of the file. ``known``
    [users, target items] are all of a user's items that must not count as wrong answers (the positives themselves
    among them); ``candidates`` [target items] are the items that a positive is ranked against.
    """

    users: np.ndarray
    source: sparse.csr_array
    target: sparse.csr_array | None
    user: Int[np.ndarray, " rows"]
    item: Int[np.ndarray, " rows"]
    known: sparse.csr_array
    candidates: Bool[np.ndarray, " items"]

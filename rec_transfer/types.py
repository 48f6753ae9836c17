"""What travels between modules: counts of a domain, posteriors, histories, and the shapes of the plug-in points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import sparse

Key: TypeAlias = jax.Array
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
        if not self.counts.has_canonical_format:  # what is stored twice would count twice here and once there
            counts = self.counts.copy()
            counts.sum_duplicates()
            object.__setattr__(self, "counts", counts)
        for name, ids in (("users", self.users), ("items", self.items)):
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f"{name} of {self.domain!r}: got repeated ids, expected each id once")

    def select(self, users: Sequence[str] | np.ndarray) -> "Interactions":
        """Return the rows of these users, in the order given.

        Raises:
            KeyError: a user is not in this domain.
        """
        rows = self._places(users)
        if (rows < 0).any():
            unknown = [user for user, row in zip(users, rows, strict=True) if row < 0]
            raise KeyError(f"users not in {self.domain!r}: {unknown[:5]} ({len(unknown)} in all)")
        return Interactions(self.domain, self.counts[rows], self.users[rows], self.items)

    def rows_of(self, users: Sequence[str] | np.ndarray) -> sparse.csr_array:
        """Return the counts of these users, [users, items], in the order given; zeros for one who is not here."""
        rows = self._places(users)
        here = np.flatnonzero(rows >= 0)
        ones = np.ones(len(here), self.counts.dtype)
        chosen = sparse.csr_array((ones, (here, rows[here])), shape=(len(rows), len(self.users)))
        return sparse.csr_array(chosen @ self.counts)

    def _places(self, users):
        row_of = {user: row for row, user in enumerate(self.users)}
        return np.array([row_of.get(user, -1) for user in users], dtype=int)

    def without(self, users: Sequence[str] | np.ndarray) -> "Interactions":
        """Return every row but those of these users."""
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
    """Overlapping users, row-aligned: their posterior in both domains and their target counts, as compressed rows.

    A map that reads the counts makes them dense itself (``maps.dense_counts``); most do not read them.
    """

    source: Gaussian
    target: Gaussian
    counts: sparse.csr_array | Float[Array, "pairs items"] | Float[np.ndarray, "pairs items"]


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

    @cached_property
    def overlapping_users(self) -> np.ndarray:
        """Ids of the users active in both domains, sorted."""
        return np.intersect1d(self.source.users, self.target.users)

    @cached_property
    def pairs(self) -> tuple[Interactions, Interactions]:
        """Source and target rows of the overlapping users, aligned."""
        return self.source.select(self.overlapping_users), self.target.select(self.overlapping_users)


class Split(NamedTuple):
    """One experiment: what may be learned, what a method sees of the users asked about, and what was hidden.

    Args:
        train: all that a method may learn from.
        users: ids of the rows below.
        history: all that a method sees of these users when it scores.
        hidden: [users, target items], what their lists are judged by; everything above zero counts.
        known: [users, target items], items they are known to have besides: never in a list.
        candidates: [target items], which items a list is made of; a hidden item always stands in its own list.
        reference: [users, target items], other hidden clicks, which ceilings alone are shown; None if there are none.
    """

    train: TrainingData
    users: np.ndarray
    history: History
    hidden: sparse.csr_array
    known: sparse.csr_array
    candidates: Bool[np.ndarray, " items"]
    reference: sparse.csr_array | None = None


@runtime_checkable
class Scorer(Protocol):
    """What a fitted method is: it scores every target item for a chunk of users."""

    def __call__(self, history: History, /) -> np.ndarray:
        """Return scores [users, items]: the higher, the earlier in the list."""


@runtime_checkable
class FitMethod(Protocol):
    """What a method is: it learns from training data and returns a scorer."""

    def __call__(self, train: TrainingData, *, key: Key) -> Scorer:
        """Fit on ``train``; the same key gives the same scorer."""


@runtime_checkable
class DomainMap(Protocol):
    """What a fitted map is: it carries what is known of users from the source's latent space to the target's."""

    def __call__(self, source: Gaussian, /) -> Gaussian:
        """Return the users' interest in the target domain."""


@runtime_checkable
class FitMap(Protocol):
    """What a map is: it learns from overlapping users, row-aligned, and perhaps from users of one domain."""

    def __call__(self, pairs: Pairs, *, unpaired: Unpaired, decode: Callable, key: Key) -> DomainMap:
        """Fit on ``pairs``; ``decode`` gives the target's logits of interests."""

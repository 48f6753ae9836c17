"""Count events per user and item."""

import numpy as np
from jaxtyping import Int
from scipy import sparse

from rec_transfer.types import Events, Interactions


def counts_of(
    user: Int[np.ndarray, " events"], item: Int[np.ndarray, " events"], shape: tuple[int, int]
) -> sparse.csr_array:
    """Return how often each pair of a user and an item occurs, [users, items], from the coordinates of events."""
    return sparse.csr_array(sparse.coo_array((np.ones(len(user), np.int32), (user, item)), shape=shape))


def from_events(events: dict[str, Events], *, kind: str = "click") -> dict[str, Interactions]:
    """Return one matrix of counts per domain, for one kind of event.

    Rows are the users with at least one such event in the domain. Columns are all items of the catalogue.

    Args:
        events: the coded events of each domain.
        kind: the kind of event that is counted.

    Raises:
        ValueError: a domain has no event of this kind.
    """
    result = {}
    for domain, log in events.items():
        chosen = log.kind == kind
        if not chosen.any():
            raise ValueError(f"kind: got {kind!r}, expected one that happened in {domain!r}: {sorted(set(log.kind))}")
        counts = counts_of(log.user[chosen], log.item[chosen], (len(log.users), len(log.items)))
        active = np.flatnonzero(counts.sum(axis=1))
        result[domain] = Interactions(domain, counts[active], log.users[active], log.items)
    return result

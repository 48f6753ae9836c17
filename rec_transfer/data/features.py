"""Describe users by features of their events, and standardise features."""

import numpy as np
from jaxtyping import Float

from rec_transfer.types import Events

COUNTED = {"views": "view", "clicks": "click", "purchases": "purchase", "comments": "comment"}  # feature: kind of event
FEATURES = (*COUNTED, "recency", "genre_entropy")


def user_features(events: Events, *, today: float) -> Float[np.ndarray, "users features"]:
    r"""Return one row of features per user of one domain; the columns are in the order of ``FEATURES``.

    The first four features count a user's events by kind. Recency is the number of days from the last event to
    ``today``. Genre entropy, $-\sum_g p_g \log p_g$ in nats, is taken over the genres of the clicks; it is 0 for one
    genre or none.

    Args:
        events: the events of one domain.
        today: the day to measure recency from, in days since 1970-01-01.

    Raises:
        ValueError: an event happened after ``today``, or a user has no event and therefore no recency.
    """
    if events.day.max() > today:
        raise ValueError(f"today: got {today}, expected no event after it (the last is on day {events.day.max():.2f})")
    users = len(events.users)
    kinds = [np.bincount(events.user[events.kind == kind], minlength=users) for kind in COUNTED.values()]
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


def standardise(
    train: Float[np.ndarray, "train features"], *others: Float[np.ndarray, "_ features"]
) -> tuple[Float[np.ndarray, "_ features"], ...]:
    """Return features with mean 0 and variance 1 on ``train``; the others are scaled by the same numbers.

    A feature that is constant on ``train`` is centred and not scaled.

    Args:
        train: the features that the means and standard deviations are measured on.
        others: further rows of the same features.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    return tuple(scaler.transform(part) for part in (train, *others))

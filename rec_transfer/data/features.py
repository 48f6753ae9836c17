"""What a user's events say besides the counts: features, standardised."""

import numpy as np
from jaxtyping import Float

from rec_transfer.types import Events

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

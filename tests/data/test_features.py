"""Counts, features and their scaling, against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rec_transfer.data.counts import from_events
from rec_transfer.data.features import FEATURES, standardise, user_features
from rec_transfer.types import Events

GENRES = ("Crime", "Crime", "Horror", "Comedy")


def events(*rows, users=("u1", "u2", "u3"), domain="films"):
    """Events from rows of (user, item, kind, day)."""
    user, item, kind, day = (np.array(column) for column in zip(*rows, strict=True))
    items = np.array([f"F{number}" for number in range(len(GENRES))])
    return Events(domain, np.array(users), items, np.array(GENRES), user, item, kind, day.astype(float))


def features(log, **arguments):
    return dict(zip(FEATURES, user_features(log, **arguments).T, strict=True))


LOG = events(
    (0, 1, "click", 1.0), (0, 1, "click", 4.5), (0, 3, "click", 2.0), (0, 1, "purchase", 4.5), (0, 2, "view", 3.0),
    (1, 0, "view", 9.0), (1, 0, "view", 8.0), (1, 0, "comment", 2.0),
    (2, 0, "click", 5.0), (2, 1, "click", 6.0), (2, 2, "click", 7.0), (2, 3, "click", 7.25),
)  # fmt: skip


# ---- from_events


def test_clicks_are_counted_per_user_and_item():
    films = from_events({"films": LOG})["films"]
    assert films.domain == "films"
    assert films.users.tolist() == ["u1", "u3"]  # u2 never clicked
    assert films.items.tolist() == ["F0", "F1", "F2", "F3"]
    assert films.counts.toarray().tolist() == [[0, 2, 0, 1], [1, 1, 1, 1]]


def test_any_kind_of_event_can_be_counted():
    views = from_events({"films": LOG}, kind="view")["films"]
    assert views.users.tolist() == ["u1", "u2"]
    assert views.counts.toarray().tolist() == [[0, 0, 1, 0], [2, 0, 0, 0]]


def test_an_item_that_nobody_clicked_keeps_its_column():
    films = from_events({"films": events((0, 0, "click", 1.0))})["films"]
    assert films.counts.toarray().tolist() == [[1, 0, 0, 0]]


def test_every_domain_is_counted_on_its_own():
    books = events((1, 3, "click", 1.0), domain="books")
    both = from_events({"films": LOG, "books": books})
    assert list(both) == ["films", "books"]
    assert both["books"].users.tolist() == ["u2"]
    assert both["books"].counts.toarray().tolist() == [[0, 0, 0, 1]]


def test_a_kind_that_never_happened_is_refused():
    with pytest.raises(ValueError, match=r"got 'skip', expected one that happened in 'films': .*'click'.*'view'"):
        from_events({"films": LOG}, kind="skip")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(["click", "view"])), min_size=1))
def test_no_click_is_lost_or_invented(rows):
    log = events(*((*row, 0.0) for row in rows), (0, 0, "click", 0.0))
    films = from_events({"films": log})["films"]
    assert films.counts.sum() == np.sum(log.kind == "click")
    assert films.counts.sum(axis=1).min() >= 1
    for user, item, _ in rows:
        row = np.flatnonzero(films.users == log.users[user])
        expected = sum(other == (user, item, "click") for other in [*rows, (0, 0, "click")])
        assert films.counts.toarray()[row, item].sum() == expected


# ---- user_features


def test_features_by_hand():
    got = features(LOG, today=10.0)
    assert got["views"].tolist() == [1, 2, 0]
    assert got["clicks"].tolist() == [3, 0, 4]
    assert got["purchases"].tolist() == [1, 0, 0]
    assert got["comments"].tolist() == [0, 1, 0]
    assert got["recency"].tolist() == [5.5, 1.0, 2.75]  # to the last event of any kind
    third, two_thirds = 1 / 3, 2 / 3  # u1: two clicks on Crime, one on Comedy; u3: half Crime, a quarter each
    expected = [-third * np.log(third) - two_thirds * np.log(two_thirds), 0.0, 1.5 * np.log(2)]
    np.testing.assert_allclose(got["genre_entropy"], expected, rtol=1e-12)


def test_entropy_is_zero_for_one_genre_and_the_logarithm_of_their_number_at_most():
    one = events((0, 0, "click", 0.0), (0, 1, "click", 0.0), (0, 2, "view", 0.0), users=("u1",))
    assert features(one, today=0.0)["genre_entropy"].tolist() == [0.0]
    even = events((0, 0, "click", 0.0), (0, 2, "click", 0.0), (0, 3, "click", 0.0), users=("u1",))
    np.testing.assert_allclose(features(even, today=0.0)["genre_entropy"], np.log(3), rtol=1e-12)


def test_features_do_not_depend_on_the_order_of_events():
    shuffled = np.random.default_rng(0).permutation(len(LOG.user))
    columns = {name: getattr(LOG, name)[shuffled] for name in ("user", "item", "kind", "day")}
    np.testing.assert_allclose(user_features(LOG._replace(**columns), today=10.0), user_features(LOG, today=10.0))


def test_recency_moves_with_today_and_nothing_else_does():
    early, late = user_features(LOG, today=10.0), user_features(LOG, today=12.5)
    np.testing.assert_allclose(late - early, np.where(np.array(FEATURES) == "recency", 2.5, 0) * np.ones((3, 1)))


def test_an_event_after_today_is_refused():
    with pytest.raises(ValueError, match=r"today: got 8.5, expected no event after it \(the last is on day 9.00\)"):
        user_features(LOG, today=8.5)
    assert features(LOG, today=9.0)["recency"].min() == 0


def test_a_user_without_an_event_is_refused():
    with pytest.raises(ValueError, match="users: got 2 without an event, expected at least one for each"):
        user_features(events((1, 0, "click", 1.0)), today=2.0)


# ---- standardise


def rng_table(rows, seed, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 3.0, (rows, 4)) + np.array([0.0, 10.0, -5.0, 100.0])


def test_training_features_get_mean_0_and_variance_1():
    (scaled,) = standardise(rng_table(200, 1))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.var(axis=0), 1, rtol=1e-12)


def test_other_parts_are_scaled_by_the_numbers_of_the_training_part():
    train, test = rng_table(50, 1), rng_table(20, 2, shift=6.0)
    _, scaled, again = standardise(train, test, train)
    np.testing.assert_allclose(scaled, (test - train.mean(axis=0)) / train.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(again, standardise(train)[0])
    assert scaled.mean(axis=0).min() > 1  # the shift of the test part is still there


@given(arrays.arrays(float, (7, 4), elements=st.floats(-1e6, 1e6)))
def test_no_test_row_can_change_what_is_trained_on(test):
    train = rng_table(30, 3)
    np.testing.assert_array_equal(standardise(train, test)[0], standardise(train)[0])


def test_each_test_row_is_scaled_alone():
    train, test = rng_table(30, 3), rng_table(9, 4)
    together = standardise(train, test)[1]
    one_by_one = np.vstack([standardise(train, row[None])[1] for row in test])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)


def test_a_feature_without_spread_becomes_zero_and_not_nan():
    train, test = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 7.0]])
    scaled, other = standardise(train, test)
    assert scaled.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert other.tolist() == [[0.0, 2.0]]

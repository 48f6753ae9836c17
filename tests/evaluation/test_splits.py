"""The cold-start split: nothing of a test user reaches training, and their clicks are halved fairly."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from rec_transfer.data.formats import Ratings
from rec_transfer.evaluation.splits import (
    cold_start,
    folds,
    hide_users,
    leave_last_out,
    some_users,
    split_items,
)
from rec_transfer.types import Interactions, TrainingData

KEY = jax.random.key(0)


def domain(name, users, items=5, seed=0):
    counts = np.random.default_rng(seed).poisson(1.5, (len(users), items))
    return Interactions(name, sparse.csr_array(counts), np.array(users), np.array([f"{name}{i}" for i in range(items)]))


def small_platform():
    """u0..u5 are active everywhere, in another order in each domain; the others in one domain alone."""
    return {
        "films": domain("films", ["u0", "f1", "u1", "u2", "u3", "u4", "u5"], seed=1),
        "books": domain("books", ["u5", "u4", "b1", "u3", "u2", "u1", "u0", "b2"], items=4, seed=2),
        "music": domain("music", ["u3", "u0", "u5", "m1", "u1", "u4", "u2"], items=6, seed=3),
    }


def row(interactions, user):
    return interactions.counts.toarray()[interactions.users.tolist().index(user)].tolist()


# --- halves


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 7)))
@settings(max_examples=60, deadline=None)
def test_halves_add_up_and_an_item_goes_whole_to_one_of_them_the_odd_one_to_the_first(counts):
    first, second = split_items(sparse.csr_array(counts), np.random.default_rng(0))
    np.testing.assert_array_equal(first.toarray() + second.toarray(), counts)
    assert not (first.toarray() * second.toarray()).any()
    items = [(half.toarray() > 0).sum(axis=1) for half in (first, second)]
    np.testing.assert_array_equal(items[0] - items[1], (counts > 0).sum(axis=1) % 2)


def test_halving_takes_no_notice_of_the_place_in_the_catalogue_nor_of_the_number_of_clicks():
    # Every item must land in the first half half of the time, however often it was clicked.
    rng, repeats = np.random.default_rng(0), 2000
    counts = sparse.csr_array(np.tile([1, 9, 1, 1, 3, 1], (repeats, 1)))
    shares = (split_items(counts, rng)[0].toarray() > 0).mean(axis=0)
    assert np.abs(shares - 0.5).max() < 4 * 0.5 / np.sqrt(repeats)


def test_a_stored_zero_is_no_item_to_deal():
    counts = sparse.csr_array(np.array([[2, 1, 3]]))
    counts.data[1] = 0
    first, second = split_items(counts, np.random.default_rng(0))
    assert sorted([first.toarray().tolist(), second.toarray().tolist()]) == [[[0, 0, 3]], [[2, 0, 0]]]
    assert counts.nnz == 3


# --- the split


def test_no_test_user_is_left_in_any_training_domain():
    split = cold_start(small_platform(), test_users=["u4", "u1"], key=KEY)
    for name, original in small_platform().items():
        assert not {"u1", "u4"} & set(split.train[name].users)
        assert set(split.train[name].users) | {"u1", "u4"} == set(original.users)
        for user in split.train[name].users:
            assert row(split.train[name], user) == row(original, user)


def test_the_rows_of_test_users_are_aligned_in_every_domain():
    original = small_platform()
    split = cold_start(original, test_users=["u4", "u1"], key=KEY)
    for name, test in split.test.items():
        assert test.users.tolist() == ["u1", "u4"]
        assert test.counts.toarray().tolist() == [row(original[name], "u1"), row(original[name], "u4")]
        total = split.hidden[name].toarray() + split.reference[name].toarray()
        assert total.tolist() == test.counts.toarray().tolist()


def test_a_direction_shows_source_clicks_and_hides_target_clicks():
    split = cold_start(small_platform(), test_users=["u4", "u1"], key=KEY)
    one = split.direction("books", "music")
    assert (one.train.source.domain, one.train.target.domain) == ("books", "music")
    assert one.users.tolist() == ["u1", "u4"]
    assert one.history.target is None
    assert one.history.source.toarray().tolist() == split.test["books"].counts.toarray().tolist()
    assert one.hidden is split.hidden["music"]
    assert one.reference is split.reference["music"]
    assert one.known.nnz == 0
    assert one.candidates.all()
    assert not {"u1", "u4"} & {*one.train.source.users, *one.train.target.users}


def test_all_directions_share_one_training_set_per_domain():
    # One VAE per domain then serves every direction: the models are remembered by this very object.
    split = cold_start(small_platform(), test_users=2, key=KEY)
    assert split.direction("films", "books").train.target is split.direction("books", "music").train.source


@given(number=st.integers(1, 5), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_a_number_of_test_users_is_drawn_from_those_active_everywhere(number, seed):
    split = cold_start(small_platform(), test_users=number, key=jax.random.key(seed))
    users = split.test["films"].users.tolist()
    assert len(set(users)) == number
    assert set(users) <= {"u0", "u1", "u2", "u3", "u4", "u5"}
    for name, train in split.train.items():
        assert len(train.users) + number == len(small_platform()[name].users)


def test_everybody_active_everywhere_may_be_drawn():
    drawn = {
        user
        for seed in range(30)
        for user in cold_start(small_platform(), test_users=1, key=jax.random.key(seed)).test["films"].users
    }
    assert drawn == {"u0", "u1", "u2", "u3", "u4", "u5"}


def test_the_split_is_pure_in_its_key():
    first, again, other = (
        cold_start(small_platform(), test_users=["u0", "u1", "u2", "u3"], key=jax.random.key(seed))
        for seed in (1, 1, 2)
    )
    assert first.hidden["music"].toarray().tolist() == again.hidden["music"].toarray().tolist()
    assert first.hidden["music"].toarray().tolist() != other.hidden["music"].toarray().tolist()


@pytest.mark.parametrize("number", [0, -1, 6, 7])
def test_a_number_that_leaves_no_pair_or_no_test_user_is_refused(number):
    with pytest.raises(
        ValueError, match=rf"test_users: got {number}, expected 1 to 5 \(6 users are active in every domain\)"
    ):
        cold_start(small_platform(), test_users=number, key=KEY)


def test_test_users_that_are_not_active_everywhere_are_named():
    with pytest.raises(ValueError, match=r"test_users: got \[.*'b1'.*'nobody'.*\] not active in .* \(2 in all\)"):
        cold_start(small_platform(), test_users=["u1", "b1", "nobody"], key=KEY)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("games", "books", r"source: got 'games', expected one of \['books', 'films', 'music'\]"),
        ("films", "games", r"target: got 'games', expected one of \['books', 'films', 'music'\]"),
        ("films", "films", "source and target: got 'films' twice, expected two domains"),
    ],
)
def test_a_direction_between_unknown_or_equal_domains_is_refused(source, target, message):
    split = cold_start(small_platform(), test_users=2, key=KEY)
    with pytest.raises(ValueError, match=message):
        split.direction(source, target)


# --- the last row of every user


def ratings(domain, *rows, items=6):
    user, item = np.array(rows).T
    users, user = np.unique(user, return_inverse=True)
    return Ratings(domain, users.astype(str), np.arange(items).astype(str), user, item, np.full(len(rows), 3))


# User 3 rates no music, user 4 one book alone, user 5 music alone. Rows of a user need not stand together.
BOOKS = ratings("book", (1, 5), (1, 0), (2, 3), (1, 2), (2, 1), (3, 0), (3, 1), (3, 2), (4, 4))
MUSIC = ratings("music", (1, 0), (1, 1), (2, 2), (2, 0), (4, 3), (4, 1), (5, 1), (5, 0), items=4)


def seen(counts):
    return [sorted(counts[[row]].indices.tolist()) for row in range(counts.shape[0])]


def test_the_last_row_of_the_file_is_hidden_for_each_user():
    split = leave_last_out(MUSIC, BOOKS)
    assert split.users.tolist() == ["1", "2", "3", "4"]
    assert seen(split.hidden) == [[2], [1], [2], [4]]
    assert seen(split.history.target) == seen(split.known) == [[0, 5], [3], [0, 1], []]
    assert split.train.target.users.tolist() == ["1", "2", "3"]  # 4 has nothing left to learn from
    expected = [[1, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0]]
    assert split.train.target.counts.toarray().tolist() == expected


def test_the_source_side_lacks_its_last_rows_which_are_the_other_directions_test():
    split = leave_last_out(MUSIC, BOOKS)
    assert seen(split.history.source) == [[0], [2], [], [3]]
    assert split.train.source.users.tolist() == ["1", "2", "4", "5"]
    assert split.train.source.counts.sum() == 4


def test_tuning_rows_are_the_last_training_rows_of_chosen_users():
    split = leave_last_out(MUSIC, BOOKS, tuning_users=2, key=KEY)
    assert split.users.tolist() == ["1", "3"]  # nobody else has a row left to learn from
    assert seen(split.hidden) == [[0], [1]]
    assert seen(split.history.target) == seen(split.known) == [[5], [0]]  # of the test row nothing is known
    assert split.train.target.users.tolist() == ["1", "2", "3"]
    expected = [[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert split.train.target.counts.toarray().tolist() == expected
    for arguments in ({"tuning_users": 3, "key": KEY}, {"tuning_users": 1}):
        with pytest.raises(ValueError, match=r"tuning_users: got .*, expected 1 to 2 users, and a key"):
            leave_last_out(MUSIC, BOOKS, **arguments)


# --- training users made cold


def training():
    platform = small_platform()
    return TrainingData(platform["films"], platform["books"])


@pytest.mark.parametrize("number", [2, 3, 6])
def test_folds_ask_about_every_overlapping_user_once_without_the_target_row(number):
    train = training()
    found = folds(train, number, key=KEY)
    assert sorted(user for fold in found for user in fold.users) == train.overlapping_users.tolist()
    for fold in found:
        assert not set(fold.users) & set(fold.train.target.users)
        assert fold.train.source is train.source
        assert len(fold.train.target.users) + len(fold.users) == len(train.target.users)
        for place, user in enumerate(fold.users):
            assert fold.hidden.toarray()[place].tolist() == row(train.target, user)
            assert fold.history.source.toarray()[place].tolist() == row(train.source, user)
        assert fold.history.target is None


@pytest.mark.parametrize("number", [1, 7])
def test_folds_that_cannot_be_are_refused(number):
    with pytest.raises(ValueError, match=f"folds: got {number}, expected 2 to 6, the number of overlapping users"):
        folds(training(), number, key=KEY)


def test_hidden_users_are_cold_and_rank_the_items_somebody_has():
    split = hide_users(training(), 2, key=KEY)
    assert len(split.users) == 2
    assert not set(split.users) & set(split.train.target.users)
    assert set(split.users) <= set(split.train.source.users)
    np.testing.assert_array_equal(split.candidates, training().target.counts.toarray().sum(axis=0) > 0)
    for number in (0, 6):
        with pytest.raises(ValueError, match=f"number: got {number}, expected 1 to 5 of 6 overlapping users"):
            hide_users(training(), number, key=KEY)


def test_some_users_keep_all_that_is_known_of_them():
    split = cold_start(small_platform(), test_users=4, key=KEY).direction("films", "music")
    some = some_users(split, 3, key=KEY)
    at = [split.users.tolist().index(user) for user in some.users]
    assert len(set(at)) == 3
    for name in ("hidden", "known", "reference"):
        np.testing.assert_array_equal(getattr(some, name).toarray(), getattr(split, name).toarray()[at])
    np.testing.assert_array_equal(some.history.source.toarray(), split.history.source.toarray()[at])
    assert len(some_users(split, 99, key=KEY).users) == 4
    with pytest.raises(ValueError, match="number: got 0"):
        some_users(split, 0, key=KEY)

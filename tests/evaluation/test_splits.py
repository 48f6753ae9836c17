"""The cold-start split: nothing of a test user reaches training, and their clicks are halved fairly."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from rec_transfer.evaluation.splits import cold_start, halve
from rec_transfer.types import Interactions

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
def test_halves_add_up_and_the_first_gets_the_odd_click(counts):
    first, second = halve(sparse.csr_array(counts), np.random.default_rng(0))
    np.testing.assert_array_equal(first.toarray() + second.toarray(), counts)
    assert min(first.toarray().min(), second.toarray().min()) >= 0
    surplus = first.toarray().sum(axis=1) - second.toarray().sum(axis=1)
    np.testing.assert_array_equal(surplus, counts.sum(axis=1) % 2)


def test_halving_takes_no_notice_of_the_place_in_the_catalogue():
    # One click on each of six items: every item must land in the first half half of the time.
    rng, repeats = np.random.default_rng(0), 2000
    counts = sparse.csr_array(np.ones((repeats, 6), int))
    shares = halve(counts, rng)[0].toarray().mean(axis=0)
    assert np.abs(shares - 0.5).max() < 4 * 0.5 / np.sqrt(repeats)


def test_repeated_clicks_on_one_item_are_dealt_one_by_one():
    first, second = halve(sparse.csr_array(np.array([[7, 0], [0, 4]])), np.random.default_rng(0))
    assert first.toarray().tolist() == [[4, 0], [0, 2]]
    assert second.toarray().tolist() == [[3, 0], [0, 2]]


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
        total = split.scored[name].toarray() + split.reference[name].toarray()
        assert total.tolist() == test.counts.toarray().tolist()


def test_a_direction_shows_source_clicks_and_hides_target_clicks():
    split = cold_start(small_platform(), test_users=["u4", "u1"], key=KEY)
    one = split.direction("books", "music")
    assert (one.train.source.domain, one.train.target.domain) == ("books", "music")
    assert one.users.tolist() == ["u1", "u4"]
    assert one.history.target is None
    assert one.history.source.toarray().tolist() == split.test["books"].counts.toarray().tolist()
    assert one.scored is split.scored["music"]
    assert one.reference is split.reference["music"]
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
    assert first.scored["music"].toarray().tolist() == again.scored["music"].toarray().tolist()
    assert first.scored["music"].toarray().tolist() != other.scored["music"].toarray().tolist()


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

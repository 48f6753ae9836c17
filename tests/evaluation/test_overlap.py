"""The overlap check: the lift by hand, true pairs against shuffled ones, and what fewer pairs would have given."""

import jax
import numpy as np
import pytest

from rec_transfer.evaluation.floors import fit_popularity
from rec_transfer.evaluation.overlap import MIN_USERS, Lift, lift_by_overlap, overlap_lift, with_overlap
from rec_transfer.evaluation.tuning import cross_validate
from rec_transfer.keys import named_keys
from rec_transfer.methods.linear import emcdr
from rec_transfer.types import Interactions, TrainingData

KEY = jax.random.key(3)
FIT = emcdr(2)


@pytest.fixture(scope="module")
def train(population):
    return TrainingData(population.interactions["films"], population.interactions["books"])


def shuffled(train, seed):
    """The overlapping users' target rows dealt to one another: nobody's films tell of their own books."""
    users = np.array(train.target.users, dtype=train.target.users.dtype)
    shared = np.flatnonzero(np.isin(users, train.overlapping_users))
    users[shared] = users[np.random.default_rng(seed).permutation(shared)]
    return TrainingData(train.source, Interactions("books", train.target.counts, users, train.target.items))


def test_the_lift_is_the_mean_difference_of_hidden_users(train):
    found = overlap_lift(train, FIT, key=KEY)
    folds = named_keys(KEY, "folds", "interval")["folds"]
    values = cross_validate({"popularity": fit_popularity, "method": FIT}, train, key=folds)
    difference = values["method"] - values["popularity"]
    assert found.users == len(train.overlapping_users) == len(difference)
    np.testing.assert_allclose(found.lift, difference.mean())
    error = difference.std() / np.sqrt(len(difference))
    np.testing.assert_allclose([found.low, found.high], found.lift + 1.96 * error * np.array([-1, 1]), atol=0.3 * error)
    # at n* users of this lift and spread the normal interval touches zero
    np.testing.assert_allclose(1.96 * difference.std() / np.sqrt(found.needed), found.lift)


def test_true_pairs_pay_and_shuffled_ones_do_not(train):
    assert overlap_lift(train, FIT, key=KEY).enough
    alarms = [overlap_lift(shuffled(train, seed), FIT, key=KEY).enough for seed in range(8)]
    assert sum(alarms) <= 1, f"{sum(alarms)} of 8 shuffled overlaps were said to pay"


def test_popularity_has_no_lift_over_itself(train):
    found = overlap_lift(train, fit_popularity, key=KEY)
    assert found[1:] == (0.0, 0.0, 0.0, np.inf)
    assert not found.enough
    assert "no lift to see" in str(found)


def test_a_handful_of_users_is_never_enough():
    assert not Lift(MIN_USERS - 1, 0.5, 0.4, 0.6, 3.0).enough
    assert Lift(MIN_USERS, 0.5, 0.4, 0.6, 3.0).enough
    assert str(Lift(19, 0.1, -0.05, 0.2, 33.4)) == (
        "19 overlapping users: lift over popularity +0.100 [-0.050, +0.200]: not shown to pay, recommend popularity "
        "(about 33 users would show such a lift)"
    )


def test_users_left_out_of_the_overlap_keep_their_rows(train):
    users = train.overlapping_users[:7]
    fewer = with_overlap(train, users)
    assert fewer.overlapping_users.tolist() == users.tolist()
    assert fewer.source is train.source
    assert (fewer.target.counts != train.target.counts).nnz == 0
    for wrong in ([], ["nobody"]):
        with pytest.raises(ValueError, match=r"users: got \d, \d of them not overlapping, expected overlapping users"):
            with_overlap(train, wrong)


def test_a_small_overlap_shows_less(train):
    curve = lift_by_overlap(train, FIT, [10, 80], key=KEY, repeats=4)
    assert curve.groupby("users").size().to_dict() == {10: 4, 80: 4}
    width = (curve.high - curve.low).groupby(curve.users).mean()
    assert 1.7 < width[10] / width[80] < 5.5  # the root of 8 and some
    assert curve[curve.users == 80].enough.all()
    assert not curve[curve.users == 10].enough.any()
    with pytest.raises(ValueError, match=r"sizes: got \[4\], expected 5 to \d+, the number of overlapping users"):
        lift_by_overlap(train, FIT, [4], key=KEY)


def test_dropping_takes_both_rows_of_the_others_and_of_nobody_else(split):
    chosen = split.train.overlapping_users[:5]
    few = with_overlap(split.train, chosen, drop=True)
    assert few.overlapping_users.tolist() == chosen.tolist()
    gone = len(split.train.overlapping_users) - 5
    assert len(few.source.users) == len(split.train.source.users) - gone
    assert len(few.target.users) == len(split.train.target.users) - gone

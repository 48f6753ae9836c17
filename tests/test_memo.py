"""What was fitted is not fitted again, never mistaken for what was fitted on other data, and forgotten with them."""

import gc

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.keys import once_per_key
from rec_transfer.types import Interactions

KEY, OTHER = jax.random.split(jax.random.key(0))


def domain(number):
    return Interactions("films", sparse.csr_array([[number]]), np.array(["u"]), np.array(["f"]))


def test_the_same_data_and_key_are_fitted_once_and_others_anew():
    calls = []

    @once_per_key
    def fit(data, *, key):
        calls.append((data.counts.sum(), jax.random.key_data(key).tolist()))
        return object()

    ones, twos = domain(1), domain(2)
    first = fit(ones, key=KEY)
    assert fit(ones, key=KEY) is first
    assert fit(ones, key=OTHER) is not first
    assert fit(twos, key=KEY) is not first
    assert [total for total, _ in calls] == [1, 1, 2]


def test_data_that_died_do_not_lend_their_place_to_others():
    fit = once_per_key(lambda data, *, key: float(data.counts.sum()))
    assert [fit(domain(number), key=KEY) for number in range(1, 50)] == list(range(1, 50))


class Result:
    """Something that was fitted, and can be watched."""

    alive = 0

    def __init__(self):
        Result.alive += 1

    def __del__(self):
        Result.alive -= 1


@pytest.mark.parametrize("dies", ["data", "function"])
def test_a_result_is_forgotten_with_its_data_and_with_the_function(dies):
    kept = {"data": domain(1), "function": once_per_key(lambda data, *, key: Result())}
    kept["function"](kept["data"], key=KEY)
    assert Result.alive == 1
    del kept[dies]
    gc.collect()
    assert Result.alive == 0

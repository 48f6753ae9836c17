"""What was fitted is not fitted again, and never mistaken for what was fitted on other data."""

import jax
import numpy as np

from rec_transfer.keys import once_per_key

KEY, OTHER = jax.random.split(jax.random.key(0))


def test_the_same_data_and_key_are_fitted_once_and_others_anew():
    calls = []

    @once_per_key
    def fit(data, *, key):
        calls.append((data.sum(), jax.random.key_data(key).tolist()))
        return object()

    ones, twos = np.ones(3), np.full(3, 2.0)
    first = fit(ones, key=KEY)
    assert fit(ones, key=KEY) is first
    assert fit(ones, key=OTHER) is not first
    assert fit(twos, key=KEY) is not first
    assert [total for total, _ in calls] == [3, 3, 6]


def test_data_that_died_do_not_lend_their_place_to_others():
    fit = once_per_key(lambda data, *, key: float(data[0]))
    assert [fit(np.full(1, number), key=KEY) for number in range(50)] == list(range(50))

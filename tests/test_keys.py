"""Named keys are pure and independent."""

import jax
import numpy as np
import pytest

from rec_transfer.keys import key_for, named_keys, numpy_generator


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_named_keys_are_one_different_key_per_name():
    keys = named_keys(jax.random.key(3), "one", "two", "three")
    assert list(keys) == ["one", "two", "three"]
    assert len({bits(key) for key in keys.values()} | {bits(jax.random.key(3))}) == 4


def test_named_keys_depend_on_the_parent_alone():
    first, again, other = (named_keys(jax.random.key(seed), "one", "two") for seed in (3, 3, 4))
    assert bits(first["two"]) == bits(again["two"])
    assert bits(first["two"]) != bits(other["two"])


def test_draws_under_two_names_are_uncorrelated():
    n = 10_000
    keys = named_keys(jax.random.key(5), "one", "two")
    one, two = (np.asarray(jax.random.normal(key, (n,))) for key in keys.values())
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(n)


def test_every_number_has_a_numpy_generator_of_its_own():
    key = jax.random.key(7)
    firsts = {numpy_generator(key, *numbers).random() for numbers in ((), (0,), (1,), (0, 0))}
    assert len(firsts) == 4
    assert numpy_generator(key, 1).random() in firsts


def test_numpy_generator_is_a_pure_function_of_the_key():
    draw = numpy_generator(jax.random.key(7)).random(5)
    np.testing.assert_array_equal(draw, numpy_generator(jax.random.key(7)).random(5))
    assert not np.array_equal(draw, numpy_generator(jax.random.key(8)).random(5))


def test_numpy_generator_reads_both_words_of_a_key():
    # Keys that differ in one 32-bit word only must still give different streams.
    words = np.array([[1, 2], [1, 3], [4, 2]], np.uint32)
    draws = {numpy_generator(jax.random.wrap_key_data(word)).random() for word in words}
    assert len(draws) == 3


# "films" and "a" have checksums beyond 2^31, which a signed fold would not take.
@pytest.mark.parametrize("name", ["films", "books", "a", "NDCG@10", ""])
def test_key_for_is_the_same_wherever_it_is_asked_for(name):
    assert bits(key_for(jax.random.key(1), name)) == bits(key_for(jax.random.key(1), name))
    assert bits(key_for(jax.random.key(1), name)) != bits(key_for(jax.random.key(2), name))


def test_key_for_tells_names_apart():
    names = [f"method {number}" for number in range(50)]
    assert len({bits(key_for(jax.random.key(1), name)) for name in names}) == 50

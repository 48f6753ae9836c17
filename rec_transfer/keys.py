"""Randomness by name: one key in, one key per purpose out."""

import zlib

import jax
import numpy as np

from rec_transfer.types import Key


def named_keys(key: Key, *names: str) -> dict[str, Key]:
    """One independent key per name, so that adding a purpose is visible where it is added."""
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def numpy_generator(key: Key, *numbers: int) -> np.random.Generator:
    """A NumPy generator that is a pure function of a JAX key and numbers >= 0 (for scipy, samplers and sparse data).

    Another one for every number, and for none.
    """
    words = np.asarray(jax.random.key_data(key), dtype=np.uint32)
    return np.random.default_rng([*words, *(1 + number for number in numbers)])  # a 0 at the end would be none


def key_for(key: Key, name: str) -> Key:
    """The key of one named thing out of any number of them (a domain, a method), the same wherever it is asked for."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))

"""Randomness by name: one key in, one key per purpose out."""

import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np

from rec_transfer.types import Key


def named_keys(key: Key, *names: str) -> dict[str, Key]:
    """Return one independent key per name, so that adding a purpose is visible where it is added."""
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def numpy_generator(key: Key, *numbers: int) -> np.random.Generator:
    """Return a NumPy generator that is a pure function of a JAX key and numbers >= 0.

    Every number gives another one, and so does none. It is for scipy, samplers and sparse data.
    """
    words = np.asarray(jax.random.key_data(key), dtype=np.uint32)
    return np.random.default_rng([*words, *(1 + number for number in numbers)])  # a 0 at the end would be none


def key_for(key: Key, name: str) -> Key:
    """Return the key of one named thing (a domain, a method): the same wherever it is asked for."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def once_per_key(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fit(data, *, key)`` computed when first asked for, once per data object and key, then remembered.

    Data are told apart by identity and are not changed in place here. A result is forgotten when its data are, unless
    the result itself holds them; everything is forgotten with the function returned.

    Args:
        fit: a function of one data object (``Interactions``, ``TrainingData``) and a key.
    """
    remembered: WeakKeyDictionary[Any, dict[bytes, Any]] = WeakKeyDictionary()

    @wraps(fit)
    def remembering(data, *, key):
        of_data = remembered.setdefault(data, {})
        name = jax.random.key_data(key).tobytes()
        if name not in of_data:
            of_data[name] = fit(data, key=key)
        return of_data[name]

    return remembering

"""Fit once, use often: what depends on the data and the key alone need not be computed again for every method."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax


def once_per_key(fit: Callable[..., Any]) -> Callable[..., Any]:
    """``fit(data, *, key)`` computed when first asked for, once per data object and key, then remembered.

    Data are told apart by identity: they are not changed in place here.
    """
    remembered: dict[tuple, tuple[Any, Any]] = {}

    @wraps(fit)
    def remembering(data, *, key):
        name = (id(data), jax.random.key_data(key).tobytes())
        if name not in remembered:  # the data are kept beside the result, so that their id is not given to another
            remembered[name] = data, fit(data, key=key)
        return remembered[name][1]

    return remembering

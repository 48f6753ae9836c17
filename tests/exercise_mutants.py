"""Wrong answers made from right ones: what the self-check of an exercise must refuse.

A mutant is a solution's function whose answers are spoilt on their way out. It counts only where an answer differs from
the right one on the inputs of the check itself: the sum of a scalar, or one row repeated of one row, is no mutant.
"""

import functools
import inspect
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

FEW = 3  # numbers: an answer of so few, the same at every call, can be pasted


def numeric(leaf) -> bool:
    """Whether an answer's leaf holds numbers; booleans are none, and neither are keys of random numbers."""
    if isinstance(leaf, jax.Array):
        return jnp.issubdtype(leaf.dtype, jnp.number)
    if isinstance(leaf, np.ndarray | np.generic):
        return np.issubdtype(leaf.dtype, np.number)
    return isinstance(leaf, numbers.Number) and not isinstance(leaf, bool)


def library(leaf):
    return jnp if isinstance(leaf, jax.Array) else np


def one_per_cent_more(leaf):
    """One per cent more; of whole numbers, which have no hundredths, one more."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        whole = np.issubdtype(leaf.dtype, np.integer)
    else:
        whole = isinstance(leaf, int)
    return leaf + 1 if whole else leaf * 1.01


def summed(leaf):
    return leaf.sum() if np.ndim(leaf) else leaf


def first_row(leaf):
    return library(leaf).broadcast_to(leaf[:1], leaf.shape) if np.ndim(leaf) and len(leaf) else leaf


def one_value(leaf):
    """The mean in place of every entry."""
    return library(leaf).full_like(leaf, leaf.mean()) if np.ndim(leaf) and leaf.size else leaf


SPOILT: dict[str, Callable] = {
    "1 % more": one_per_cent_more,
    "summed over all axes": summed,
    "first row repeated": first_row,
    "the mean in every entry": one_value,
}
ALWAYS = "the first answer, always"
MUTANTS = (*SPOILT, ALWAYS)


def same(left, right) -> bool:
    """Whether two answers agree; of what is traced, only whether it is the same thing."""
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if isinstance(one, jax.core.Tracer) or isinstance(other, jax.core.Tracer):
            if one is not other:
                return False
        elif numeric(one) and numeric(other):
            if np.shape(one) != np.shape(other) or not np.array_equal(one, other, equal_nan=True):
                return False
        elif one is not other and not (isinstance(one, str | bool) and one == other):
            return False
    return True


def comparable(leaf):
    """A leaf that tells a wrong answer from a right one: numbers and text; functions tell by what they return."""
    return leaf if numeric(leaf) or isinstance(leaf, str) else 0


class Spoilt:
    """A function with its answers spoilt, and whether one of them differed from the right answer so far."""

    def __init__(self, function: Callable, mutant: str):
        self.function, self.mutant = function, mutant
        self.differs = False
        self.first = None  # answer, in a list; for ``ALWAYS``
        functools.update_wrapper(self, function)

    def __call__(self, *arguments, **keywords):
        right = self.function(*arguments, **keywords)
        if self.mutant == ALWAYS:
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(right))
            if self.first is None and not traced:  # a traced value must not leave its trace
                self.first = [right]
            if self.first is None:
                return right
            self.differs |= not same(self.first[0], right) or self.pasteable(right)
            return self.first[0]
        return self.spoil(right)

    def pasteable(self, answer) -> bool:
        """Few numbers: where all calls return them, whoever pastes them has not solved the exercise."""
        leaves = jax.tree.leaves(answer)
        return bool(leaves) and all(map(numeric, leaves)) and sum(np.size(leaf) for leaf in leaves) <= FEW

    def spoil(self, right):
        change = SPOILT[self.mutant]
        if self.mutant == "first row repeated" and type(right) is list and len(right) > 1:
            wrong = right[:1] * len(right)
        else:
            wrong = jax.tree.map(lambda leaf: self.leaf(leaf, change), right)
        self.differs |= not same(*(jax.tree.map(comparable, each) for each in (wrong, right)))
        return wrong

    def leaf(self, leaf, change):
        if numeric(leaf):
            return change(leaf)
        if inspect.isroutine(leaf) or isinstance(leaf, functools.partial):  # an answer that is a function
            return self.of_inner(leaf)
        return leaf

    def of_inner(self, function):
        @functools.wraps(function)
        def spoilt(*arguments, **keywords):
            return self.spoil(function(*arguments, **keywords))

        return spoilt

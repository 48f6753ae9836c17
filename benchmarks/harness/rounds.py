"""What rounds of timings say: which of them count, ratios of medians, growth with size, and whether a gate holds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OTHERS = 0.12  # of a core: what other processes may take while a round lasts
ENOUGH = 3  # rounds that count, for a verdict


class Round(NamedTuple):
    """Seconds of every implementation's turn in one round, and the cores that other processes took, at their worst."""

    seconds: dict[str, float]
    others: float


class Ratio(NamedTuple):
    """How many times quicker: the ratio of medians, and the lowest and highest of the rounds' own ratios."""

    of_medians: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.of_medians:.2f} ({self.low:.2f}-{self.high:.2f})"


class Gate(NamedTuple):
    """A bound, what was found, and its direction; ``found`` is None where it could not be measured."""

    what: str
    found: float | None
    bound: float
    at_least: bool = True


def quiet(rounds: Iterable[Round], limit: float = OTHERS) -> list[Round]:
    """The rounds whose neighbours were quiet."""
    return [one for one in rounds if one.others < limit]


def median(rounds: Sequence[Round], name: str) -> float:
    """Median seconds of an implementation."""
    return statistics.median(one.seconds[name] for one in rounds)


def ratio(rounds: Sequence[Round], slow: str, quick: str) -> Ratio:
    """How many times quicker ``quick`` is than ``slow``, paired by round."""
    each = [one.seconds[slow] / one.seconds[quick] for one in rounds]
    return Ratio(median(rounds, slow) / median(rounds, quick), min(each), max(each))


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent a of seconds ~ size^a: slope of the least-squares line through the logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    return statistics.linear_regression(x, y).slope


def held(gate: Gate) -> bool:
    """Whether it holds; what could not be measured does not (nor does a value that is no number)."""
    if gate.found is None or not math.isfinite(gate.found):
        return False
    return gate.found >= gate.bound if gate.at_least else gate.found <= gate.bound


def verdict(gates: Sequence[Gate]) -> tuple[list[str], int]:
    """A line for each gate, and the exit status: 1 where one falls short, 0 where all hold."""
    lines = []
    for gate in gates:
        found = "not measured" if gate.found is None else f"{gate.found:.4g}"
        said = f"{'at least' if gate.at_least else 'at most'} {gate.bound:.4g}"
        lines.append(f"{'holds  ' if held(gate) else 'SHORT  '} {gate.what}: {found} ({said})")
    return lines, int(not all(map(held, gates)))

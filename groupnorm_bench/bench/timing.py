"""Timing things beside each other, and the spread of what came out."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the tenth and the ninetieth percentile; of seconds, or of a rate."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Take the three from at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        return cls(statistics.median(values), tenths[0], tenths[-1])


@dataclass(frozen=True, slots=True)
class Case:
    """Something to be timed."""

    run: Callable[[], None]
    context: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """What it runs in; entered before the clock starts, as a training enters it once an epoch."""
    calls: int = 1
    """How often it runs in a row, each time it is entered: then a call's mean is taken."""


OnRound = Callable[[int, int], None]
"""Called before each round with how many are done and how many there are."""


def no_word(done: int, of: int) -> None:
    """Tell nobody of a round."""


def interleaved(cases: list[Case], repeats: int, on_round: OnRound = no_word) -> list[list[float]]:
    """Return the seconds of a call: each case once a round, so that noise hits all alike."""
    seconds: list[list[float]] = [[] for _ in cases]
    for round_ in range(_WARM_UP + repeats):
        on_round(round_, _WARM_UP + repeats)
        for case, times in zip(cases, seconds, strict=True):
            with case.context():
                started = time.perf_counter()
                for _ in range(case.calls):
                    case.run()
                elapsed = (time.perf_counter() - started) / case.calls
            if round_ >= _WARM_UP:
                times.append(elapsed)
    return seconds

"""What an engine is: the protocol between the scheduler and whatever trains the runs.

The scheduler hands over an iterator of runs and reads back events; it never learns whether a
process, a W&B agent or a cluster did the work. A new engine is a class and a line in `EXECUTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.plan.sources import Source

RunStream = Iterator[TrainConfig | None]
"""Runs to be trained. None means: none now, ask again after the next event, or soon."""
StopAsked = Callable[[], bool]
Judge = Callable[[TrainConfig, EpochRow], bool]
"""Told a run and an epoch's history row; returns whether the run should be pruned there."""


@dataclass(frozen=True, slots=True)
class Started:
    """A slot took up a run."""

    run: TrainConfig
    slot: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A run came further. Sent a few times a second at most, and after every epoch."""

    run: TrainConfig
    slot: int
    step: int
    accuracy: float | None
    """On the epoch's training images so far; after an epoch, `val/accuracy`; None where a training
    function of the user's own tells none."""
    row: EpochRow | None = None
    """The epoch's history row, after an epoch."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run has its result, whatever its status; its folder is written."""

    run: TrainConfig
    slot: int
    result: RunResult
    seconds: float
    trained: bool = True
    """False where the result was found: another sweep finished the run a moment before."""


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt came to nothing: it raised, its process died, or it hung."""

    run: TrainConfig
    slot: int
    reason: str
    """One line."""
    traceback: str = ""
    final: bool = False
    """Whether another attempt is out of place: the run has failed."""


@dataclass(frozen=True, slots=True)
class Held:
    """The run was not begun: another process holds its folder."""

    run: TrainConfig
    slot: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run was stopped half-way, as asked; what it had is on disk."""

    run: TrainConfig
    slot: int


@dataclass(frozen=True, slots=True)
class Said:
    """A line for the user that came up while a run was at work."""

    run: TrainConfig
    slot: int
    text: str


Event = Started | Progress | Said | Ended | Lost | Held | Stopped


class Executor(Protocol):
    """An engine: what a new one must offer, and the tests over `EXECUTORS` ask of it."""

    slots: int
    """Runs that it trains at a time."""
    source: Source | None
    """What chooses its runs where the engine has them chosen; None where the plan does."""

    def submit(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """Train runs and yield what happens, until `runs` ends and all of them have ended.

        Args:
            runs: drawn from whenever a slot is free. An engine that wants the whole plan first
                reads to the first None.
            judge: asked after every epoch but the last of a run; its answer prunes the run.
            should_stop: polled twice a second or more. Once true, no more runs are drawn, and
                those in flight checkpoint and stop.

        Every run drawn is answered by exactly one `Ended`, `Lost`, `Held` or `Stopped`. An
        exception raised into the iterator, or its `close()`, ends everything at once.
        """
        ...

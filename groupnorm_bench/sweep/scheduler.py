"""Works off a source of runs with an executor, and loses none.

It knows run folders and retries, and nothing of processes, agents or clusters: those are the
executor's. What is in the folders is the truth; what is in memory is only this call's account.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import SETTLED, RunFolder, RunResult, write_atomic
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Executor,
    Held,
    Lost,
    Progress,
    Said,
    Started,
    Stopped,
)
from groupnorm_bench.sweep.plan.sources import Later, Source

ATTEMPTS = 2
"""A run that fails this often is recorded as `failed`."""
_SAY_AFTER = 2.0
"""Seconds that a run is held by another process before that is said."""
_LOOK_EVERY = 0.5
"""Seconds between looks at a folder that another process holds."""


@dataclass(frozen=True, slots=True)
class Reused:
    """A run's result was in its folder already, from an earlier or a concurrent sweep."""

    run: TrainConfig
    result: RunResult


@dataclass(frozen=True, slots=True)
class Retried:
    """An attempt was lost, and the run will be tried again."""

    run: TrainConfig
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A run was lost as often as it may be, or for good; its folder says so."""

    run: TrainConfig
    reason: str
    traceback: str
    attempts: int = ATTEMPTS


SweepEvent = Started | Progress | Said | Ended | Reused | Retried | Failed | Held | Stopped


@dataclass(slots=True)
class ScheduleOutcome:
    """What one call of a sweep did."""

    results: dict[str, RunResult] = field(default_factory=dict)
    """By run name: what was trained now, whatever its status."""
    reused: dict[str, RunResult] = field(default_factory=dict)
    failures: list[Failed] = field(default_factory=list)
    gave_up: bool = False
    """Too many failures in a row."""
    stopped: bool = False
    """Asked to stop before the source was dry."""

    def count(self, status: str) -> int:
        """Return how many of the runs trained now ended with `status`."""
        return sum(result.status == status for result in self.results.values())


class Scheduler:
    """Draws runs from a source, has an executor train them, and answers for each one.

    Args:
        source: a plan or a search.
        executor: where runs are trained.
        runs_dir: where the run folders are.
        should_stop: once true, nothing more is begun and runs in flight checkpoint and stop.
        max_failures: this many failed runs in a row end the sweep.
        watch: told of everything as it happens.
    """

    def __init__(
        self,
        source: Source,
        executor: Executor,
        runs_dir: Path,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        max_failures: int = 5,
        watch: Callable[[SweepEvent], None] = lambda event: None,
    ) -> None:
        self._source, self._executor, self._runs_dir = source, executor, runs_dir
        self._should_stop, self._max_failures, self._watch = should_stop, max_failures, watch
        self._outcome = ScheduleOutcome()
        self._in_flight: set[str] = set()
        self._lost: dict[str, int] = {}
        self._again: deque[TrainConfig] = deque()
        self._held: dict[str, tuple[float, TrainConfig]] = {}
        self._held_since: dict[str, float] = {}
        self._failed_in_a_row = 0
        self._dry = False

    def run(self) -> ScheduleOutcome:
        """Work until the source is dry and every run is answered for, or until stopped."""
        with contextlib.closing(self._events()) as events:
            for event in events:
                self._handle(event)
        left = self._again or self._held or not self._dry
        self._outcome.stopped = bool(left) and not self._outcome.gave_up
        return self._outcome

    def _events(self) -> Generator[Event, None, None]:
        yield from self._executor.submit(
            self._runs(),
            self._source.report,
            lambda: self._outcome.gave_up or self._should_stop(),
        )

    def _runs(self) -> Iterator[TrainConfig | None]:
        """Yield the next run, or None while only an event or another process can bring one."""
        while True:
            run = self._next()
            if run is not None:
                self._in_flight.add(run.name)
                yield run
            elif self._dry and not (self._in_flight or self._again or self._held):
                return
            else:
                yield None

    def _next(self) -> TrainConfig | None:
        """Return a run to begin: one to try again, a new one, or one that was let go of."""
        while self._again:
            if self._is_open(run := self._again.popleft()):
                return run
        while not self._dry:
            fresh = self._source.next()
            if isinstance(fresh, Later):
                break
            if fresh is None:
                self._dry = True
            elif self._is_open(fresh):
                return fresh
        now = time.monotonic()
        for due, run in list(self._held.values()):
            if now >= due:
                del self._held[run.name]
                if self._is_open(run):
                    return run
        return None

    def _is_open(self, run: TrainConfig) -> bool:
        """Return whether a run is to be begun now; take its result where there is one."""
        folder = RunFolder.of(self._runs_dir, run)
        if folder.is_claimed():
            self._hold(run)
            return False
        result = folder.read_settled()
        if result is None:
            return True
        folder.tidy_if_left()
        self._take(Ended(run, 0, result, 0.0, trained=False))
        return False

    def _hold(self, run: TrainConfig) -> None:
        """Look again later; say once for whom the run waits, where that takes its time."""
        now = time.monotonic()
        self._held[run.name] = (now + _LOOK_EVERY, run)
        if now - self._held_since.setdefault(run.name, now) >= _SAY_AFTER:
            self._held_since[run.name] = math.inf
            folder = self._folder(run)
            holder = folder.holder() or "another process"
            self._watch(Said(run, 0, f"waiting for {folder.path}, in use by {holder}"))

    def _handle(self, event: Event) -> None:
        if isinstance(event, Started | Progress | Said):
            self._watch(event)
            return
        self._in_flight.discard(event.run.name)
        if isinstance(event, Lost):
            self._count_loss(event)
        elif isinstance(event, Ended) and event.result.status == "failed":
            reason = str(event.result.summary.get("error", "failed"))
            traceback = _read_traceback(self._folder(event.run))
            self._count_loss(Lost(event.run, event.slot, reason, traceback))
        elif isinstance(event, Ended):
            self._take(event)
        else:
            if isinstance(event, Held):
                self._hold(event.run)
            else:
                self._again.append(event.run)
            self._watch(event)

    def _folder(self, run: TrainConfig) -> RunFolder:
        return RunFolder.of(self._runs_dir, run)

    def _take(self, event: Ended) -> None:
        run, result = event.run, event.result
        self._source.done(run, result)
        # A lost run that has a result was killed after that was safe, before it could say so.
        if event.trained or run.name in self._lost:
            self._failed_in_a_row = 0
            self._outcome.results[run.name] = result
            self._watch(event)
        else:
            self._outcome.reused[run.name] = result
            self._watch(Reused(run, result))

    def _count_loss(self, event: Lost) -> None:
        run = event.run
        attempts = self._lost[run.name] = self._lost.get(run.name, 0) + 1
        if attempts < ATTEMPTS and not event.final:
            self._again.append(run)
            self._watch(Retried(run, event.reason))
            return
        result = record_failure(self._folder(run), run, event.reason, event.traceback)
        if result.status in SETTLED:
            self._take(Ended(run, 0, result, 0.0))
            return
        failure = Failed(run, event.reason, event.traceback, attempts)
        self._outcome.results[run.name] = result
        self._outcome.failures.append(failure)
        self._source.done(run, None)
        self._watch(failure)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._max_failures:
            self._outcome.gave_up = True


def record_failure(folder: RunFolder, run: TrainConfig, reason: str, traceback: str) -> RunResult:
    """Write `failed` and the traceback into a run's folder; keep the epochs it had.

    Returns:
        what the folder now tells: an earlier result stays, where the run was lost after it.
        Where the folder cannot be written (a full disk), only the return value tells.
    """
    try:
        with folder.claim():
            before = folder.read_if_whole()
            if before is not None and before.status in SETTLED:
                return before
            result = _failed(before or RunResult(config=run, status="failed"), reason)
            write_atomic(folder.traceback_path, (traceback or reason).encode())
            folder.write(result)
            return result
    except RunFolderError:
        return _failed(RunResult(config=run, status="failed"), reason)


def _failed(result: RunResult, reason: str) -> RunResult:
    summary = result.summary | {"status": "failed", "error": reason}
    return result.replace(status="failed", summary=summary)


def _read_traceback(folder: RunFolder) -> str:
    try:
        return folder.traceback_path.read_text(errors="replace")
    except OSError:  # a full disk: the reason stands in the result
        return ""

"""The local executor: long-lived worker processes on this machine, one pipe each.

Why no library: `docs/design.md`, section Libraries. In short, Pebble and loky share locks or one
fate between workers, and a SIGKILL at the wrong moment ends their whole pool.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from groupnorm_bench.files import scratch_folder
from groupnorm_bench.leash import Leash
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.signals import STOP_SIGNALS
from groupnorm_bench.sweep.executors import EngineOptions
from groupnorm_bench.sweep.executors.local.worker import (
    DUMP_SIGNAL,
    STOP,
    Asked,
    WorkerSetup,
    work,
)
from groupnorm_bench.sweep.executors.protocol import (
    Event,
    Judge,
    Lost,
    Progress,
    RunStream,
    Said,
    Started,
    StopAsked,
    Stopped,
)
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.tracking.options import Say

_TICK = 0.2
"""Seconds between looks at limits, at a request to stop, and for new runs, when all is quiet."""
_ASLEEP = 2.0
"""Seconds between two looks beyond which this process itself was stopped."""
_GRACE = 30.0
"""Seconds a run has to checkpoint when asked to stop."""
_LOG_LINES = 40


@dataclass(slots=True)
class _Worker:
    slot: int
    process: SpawnProcess
    pipe: Connection[Any, Any]
    log_path: Path
    run: TrainConfig | None = None
    begun: bool = False
    """Whether it has taken up its run."""
    seconds: float = 0.0
    """How long it has been at its run, less the time in which this process slept (Ctrl-Z)."""
    log_offset: int = 0
    verdict: str | None = None
    """Why we killed it, where we did."""


class LocalExecutor:
    """Trains runs in `slots` processes that import torch once each.

    Args:
        plan, say: not needed; runs come by `submit`, lines by their events.
        options: how.
    """

    def __init__(self, plan: Plan | None, options: EngineOptions, say: Say) -> None:
        self.slots, self.source = options.slots, None
        self._options = options
        self._workers: dict[int, _Worker] = {}
        self._stop_deadline: float | None = None
        self._looked = time.monotonic()

    def submit(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """See `Executor.submit`."""
        # No processes on the leash: workers see their pipe close, and end by themselves.
        with (
            scratch_folder("gnbench-sweep-") as scratch,
            Leash(scratch, []),
            self.at_work(scratch),
        ):
            yield from self.work_off(runs, judge, should_stop)

    @contextlib.contextmanager
    def at_work(self, scratch: Path) -> Iterator[None]:
        """While entered, workers live on from one `work_off` to the next.

        Args:
            scratch: where workers share what they do not keep, and write their logs.
        """
        self._scratch = scratch
        try:
            yield
        finally:
            self._close()

    def work_off(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """Train runs as `submit` does, within `at_work`."""
        more = True
        self._looked = time.monotonic()
        while True:
            if should_stop():
                more = False
                yield from self._wind_down()
            elif more:
                more = self._feed(runs)
            if not (more or self._busy()):
                return
            yield from self._collect(judge)
            yield from self._kill_the_hung()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.run is not None]

    def _feed(self, runs: RunStream) -> bool:
        """Give a run to every free slot; return False once there are no more."""
        for slot in range(self.slots):
            worker = self._workers.get(slot)
            if worker is not None and worker.run is not None:
                continue
            try:
                run = next(runs)
            except StopIteration:
                return False
            if run is None:
                return True
            if worker is None:
                worker = self._start(slot)
            worker.run, worker.begun, worker.seconds = run, False, 0.0
            worker.log_offset = _size(worker.log_path)
            self._tell(worker, run)
        return True

    def _start(self, slot: int) -> _Worker:
        options, threads = self._options, str(self._options.threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if options.devices:
            environment["CUDA_VISIBLE_DEVICES"] = options.devices[slot % len(options.devices)]
        ours, theirs = multiprocessing.Pipe()
        setup = WorkerSetup(
            slot=slot,
            options=options,
            shared_dir=self._scratch,
            environment=environment,
            log_path=self._scratch / f"worker-{slot}.log",
        )
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(theirs, setup), name=f"gnbench-worker-{slot}", daemon=True
        )
        with _safe_path(), _program_left_out():
            resource_tracker.ensure_running()  # its own start would undo the mask below
            # Until it has its handlers a signal to the group waits, or Ctrl-C prints a traceback.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        worker = _Worker(slot, process, ours, setup.log_path)
        self._workers[slot] = worker
        return worker

    def _collect(self, judge: Judge) -> Iterator[Event]:
        """Yield what the workers have said, waiting a tick at most."""
        pipes = {worker.pipe: worker for worker in self._workers.values()}
        if not pipes:
            time.sleep(_TICK)
        for pipe in connection.wait(list(pipes), timeout=_TICK):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                message: Event | Asked = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            if isinstance(message, Asked):
                asked = time.monotonic()
                self._tell(worker, judge(message.run, message.row))
                self._looked += time.monotonic() - asked  # no run was at work for longer by that
            else:
                yield self._heard(worker, message)
        for worker in list(self._workers.values()):  # what a run has forked may hold its pipe open
            if worker.process.exitcode is not None and not worker.pipe.poll():
                yield from self._bury(worker)

    def _heard(self, worker: _Worker, event: Event) -> Event:
        """Keep account of what a worker does; return what the scheduler is to hear."""
        if isinstance(event, Started):
            worker.begun, worker.seconds = True, 0.0
        elif not isinstance(event, Progress | Said):
            worker.run, worker.begun = None, False
            if isinstance(event, Stopped) and not self._stopping():
                event = Lost(event.run, event.slot, "its worker was terminated by SIGTERM")
            if isinstance(event, Lost):  # the next run gets a fresh process
                self._end(worker)
        return event

    def _tell(self, worker: _Worker, message: object) -> None:
        # A worker that died meanwhile cannot be told: its pipe will say so when read.
        with contextlib.suppress(OSError):
            worker.pipe.send(message)

    def _bury(self, worker: _Worker) -> Iterator[Event]:
        """Answer for the run of a process that has died, and forget the process."""
        run, slot = worker.run, worker.slot
        self._end(worker)
        if run is None:
            return
        if self._stopping():
            yield Stopped(run, slot)
            return
        reason = worker.verdict or _how_it_died(worker.process.exitcode)
        yield Lost(run, slot, reason, _tail(worker.log_path, worker.log_offset))

    def _end(self, worker: _Worker) -> None:
        """Forget a worker. One that still lives has said its last word, and may be killed."""
        del self._workers[worker.slot]
        worker.pipe.close()
        worker.process.join(timeout=_TICK)
        worker.process.kill()
        worker.process.join()

    def _kill_the_hung(self) -> Iterator[Event]:
        now = time.monotonic()  # clocks on the wall are set back
        passed = min(now - self._looked, _ASLEEP)  # more: stopped by Ctrl-Z, as its workers were
        self._looked = now
        for worker in self._busy():
            worker.seconds += passed if worker.begun else 0.0
            limit = self._options.trial_timeout
            if limit is not None and worker.seconds > limit:
                worker.verdict = f"no result within --trial-timeout {limit:g} s"
                _dump_threads(worker)
                worker.process.kill()
                yield from self._bury(worker)

    def _stopping(self) -> bool:
        return self._stop_deadline is not None

    def _wind_down(self) -> Iterator[Event]:
        """Ask busy workers to stop; kill those that never began, and those that do not answer."""
        now = time.monotonic()
        if self._stop_deadline is None:
            self._stop_deadline = now + _GRACE
            for worker in self._busy():
                self._tell(worker, STOP)
        for worker in self._busy():
            if now > self._stop_deadline or not worker.begun:
                worker.process.kill()
                yield from self._bury(worker)

    def _close(self) -> None:
        """End every process: idle ones see their pipe close, the rest are killed."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.pipe.close()
            if worker.run is not None:
                worker.process.kill()
        deadline = time.monotonic() + 5
        for worker in workers:
            worker.process.join(timeout=max(deadline - time.monotonic(), 0))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Keep a random.py of the working directory out of the processes started meanwhile."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]


@contextlib.contextmanager
def _program_left_out() -> Iterator[None]:
    """Have a process started meanwhile not import the program again that calls us.

    A worker needs nothing of it, and a script that sweeps on its top level would sweep once more.
    """
    program = sys.modules["__main__"]
    spec, file = program.__spec__, vars(program).pop("__file__", None)
    program.__spec__ = None
    try:
        yield
    finally:
        program.__spec__ = spec
        if file is not None:
            program.__file__ = file


def _dump_threads(worker: _Worker) -> None:
    """Have a hung process write to its log where it is, for the traceback of its run."""
    if worker.process.pid is not None:
        os.kill(worker.process.pid, DUMP_SIGNAL)
        time.sleep(_TICK)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        named = signal.Signals.__members__.values()
        name = next((one.name for one in named if one == -exitcode), f"signal {-exitcode}")
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its worker was killed by {name}{hint}"
    return f"its worker exited with code {exitcode}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail(path: Path, offset: int) -> str:
    """Return the last lines that a worker wrote since `offset`."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
    except OSError:  # it died before it could write
        return ""
    return "\n".join(text.splitlines()[-_LOG_LINES:])

"""The worker's side of the local executor: one process that trains run after run.

It owns its pipe to the parent alone. Nothing is shared with other workers, so none of them can
be left waiting for a lock that a killed one held.
"""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from groupnorm_bench.errors import RunFolderError, TrainingStopped, one_line, printable
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.runs import RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.signals import STOP_SIGNALS
from groupnorm_bench.sweep.executors import EngineOptions
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Held,
    Lost,
    Progress,
    Said,
    Started,
    Stopped,
)
from groupnorm_bench.tracking.variables import OF_ONE_RUN
from groupnorm_bench.training.hooks import Hooks

STOP = "stop"
"""The message that asks a worker to checkpoint its run and end."""
DUMP_SIGNAL = signal.SIGUSR1
"""Makes a worker write where each of its threads is to its log."""
_ORPHAN_GRACE = 30.0
_REPORT_EVERY = 0.2

Trial = Callable[..., RunResult]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSetup:
    """All that a worker must know before its first run. Crosses the process border by pickle."""

    slot: int
    options: EngineOptions
    shared_dir: Path
    """Where workers share the data; ends with the sweep."""
    environment: dict[str, str]
    """Set before anything else is imported: threads, visible device."""
    log_path: Path
    """Under `shared_dir`: stdout and stderr go there, and not through the live table."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A worker asks whether to prune; the parent answers with a bool."""

    run: TrainConfig
    row: EpochRow


class _Link:
    """The worker's end of its pipe: a thread listens, the main thread speaks."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self.stopping = False
        self.runs: queue.SimpleQueue[TrainConfig | None] = queue.SimpleQueue()
        self.verdicts: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._connection = connection
        threading.Thread(target=self._listen, name="gnbench-link", daemon=True).start()

    def say(self, message: Event | Asked) -> None:
        try:
            self._connection.send(message)
        except OSError:  # the parent is gone: there is nobody to tell, and no reason to go on
            self.stop()

    def stop(self, *_: object) -> None:
        """Ask the main thread to end; safe in a signal handler (`SimpleQueue` is re-entrant)."""
        self.stopping = True
        self.runs.put(None)
        self.verdicts.put(False)

    def _listen(self) -> None:
        try:
            while True:
                message = self._connection.recv()
                if message == STOP:
                    self.stop()
                elif isinstance(message, bool):
                    self.verdicts.put(message)
                else:
                    self.runs.put(message)
        except (EOFError, OSError):  # dismissed, or the parent was killed: do not outlive it long
            self.stop()
            time.sleep(_ORPHAN_GRACE)
            os._exit(1)


def work(connection: Connection[Any, Any], setup: WorkerSetup) -> None:
    """Train the runs that come through `connection` until told to stop.

    After a run that raised, the process ends: what broke it (a full heap, a poisoned CUDA
    context) must not reach the next run.
    """
    multiprocessing.current_process().daemon = False  # or a trial's DataLoader may have no workers
    link = _Link(connection)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts
    signal.signal(signal.SIGTERM, link.stop)
    signal.signal(signal.SIGHUP, link.stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _write_to_log(setup.log_path)
    for name in OF_ONE_RUN:
        os.environ.pop(name, None)
    os.environ.update(setup.environment)
    trial = _load(setup.options.trial)
    while (run := link.runs.get()) is not None and not link.stopping:
        link.say(Started(run, setup.slot))
        event = _attempt(link, setup, trial, run)
        link.say(event)
        if isinstance(event, Lost):
            break


def _load(dotted: str) -> Trial:
    module, _, function = dotted.partition(":")
    return getattr(importlib.import_module(module), function)


def _write_to_log(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True)


def _attempt(link: _Link, setup: WorkerSetup, trial: Trial, run: TrainConfig) -> Event:
    """Train one run and return how it went. Nothing but the end of the process escapes."""
    options = setup.options
    folder = RunFolder.of(options.runs_dir, run)
    if folder.is_claimed():
        return Held(run, setup.slot)
    messages = _Messages(link, setup, run)
    started = time.monotonic()
    try:
        result = trial(
            run,
            runs_dir=options.runs_dir,
            data_dir=options.data_dir,
            shared_dir=setup.shared_dir,
            tracking=options.tracking,
            hooks=messages.hooks,
        )
    except TrainingStopped:
        return Stopped(run, setup.slot)
    except RunFolderError as error:
        if folder.is_claimed():
            return Held(run, setup.slot)
        return _lost(setup, run, error)
    except BaseException as error:  # SystemExit too: it ends a run, not the sweep
        return _lost(setup, run, error)
    return Ended(run, setup.slot, result, time.monotonic() - started, messages.stepped)


def _lost(setup: WorkerSetup, run: TrainConfig, error: BaseException) -> Lost:
    return Lost(run, setup.slot, one_line(error), printable(traceback.format_exc()))


class _Messages:
    """What a trial says through its hooks, as messages, a few a second."""

    def __init__(self, link: _Link, setup: WorkerSetup, run: TrainConfig) -> None:
        self._link, self._setup, self._run = link, setup, run
        self._next_report = 0.0
        self.stepped = False

    @property
    def hooks(self) -> Hooks:
        return Hooks(
            say=self.say,
            on_start=self.on_start,
            on_step=self.on_step,
            on_epoch=self.on_epoch,
            should_stop=lambda: self._link.stopping,
            should_prune=self.should_prune,
        )

    def say(self, text: str) -> None:
        self._link.say(Said(self._run, self._setup.slot, text))

    def on_start(self, total_steps: int) -> None:
        self.stepped = True

    def on_step(self, step: int, loss: float, accuracy: float) -> None:
        self.stepped = True
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + _REPORT_EVERY
            self._link.say(Progress(self._run, self._setup.slot, step, accuracy))

    def on_epoch(self, row: EpochRow) -> None:
        step = int(row["step"] if "step" in row else row["epoch"])
        self._link.say(Progress(self._run, self._setup.slot, step, row.get("val/accuracy"), row))

    def should_prune(self, row: EpochRow) -> bool:
        """Ask the parent, which knows how the other runs fare."""
        self._link.say(Asked(self._run, row))
        return self._link.verdicts.get()

"""The actor: one slot on some node. It trains run after run and tells of it as it happens.

The trial itself runs in a process of the actor's, the local engine's worker: it keeps torch, data
and compiled code from run to run, and one that hangs or dies costs its run and not the actor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.files import scratch_folder, write_atomic
from groupnorm_bench.leash import Leash
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EngineOptions
from groupnorm_bench.sweep.executors.local.executor import LocalExecutor
from groupnorm_bench.sweep.executors.local.worker import STOP, Asked
from groupnorm_bench.sweep.executors.protocol import Event, Progress, Said, Started
from groupnorm_bench.sweep.executors.ray.travel import FolderNews, FolderWatcher, apply_news

SCRATCH = "gnbench-ray-"
"""What the names of scratch folders begin with."""
_FILES_EVERY = 2.0
"""Seconds between two looks at a run's files: a lost node costs so much and an epoch at most."""

Message = Event | Asked | FolderNews


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerSetup:
    """All that an actor must know before its first run."""

    options: EngineOptions
    report_every: float
    """Seconds between two batches of messages, where none is urgent."""
    environment: dict[str, str]
    argv: tuple[str, ...]
    """The command that was typed: results tell of it."""
    folder: str | None
    """The working directory of a Ray of our own; of another, that of the user's modules."""
    own_modules: str = ""
    """The package that holds the user's modules, where they came along."""


class Trainer:
    """One slot of a sweep, as a Ray actor.

    Args:
        setup: see there.
    """

    def __init__(self, setup: TrainerSetup) -> None:
        self._setup = setup
        os.environ.update(setup.environment)
        sys.argv = list(setup.argv)
        # A worker would import Ray's own main script anew, and Ray with it.
        vars(sys.modules["__main__"]).pop("__file__", None)
        if setup.folder is not None:
            os.chdir(setup.folder)
        elif setup.own_modules:
            spec = importlib.util.find_spec(setup.own_modules)
            assert spec is not None
            assert spec.submodule_search_locations is not None
            os.chdir(next(iter(spec.submodule_search_locations)))
        self._open = contextlib.ExitStack()
        self._scratch = self._open.enter_context(scratch_folder(SCRATCH))
        self._open.enter_context(Leash(self._scratch, [], apart=True))  # Ray ends our children
        self._runs_dir = self._scratch / "runs"
        options = dataclasses.replace(setup.options, runs_dir=self._runs_dir)
        self._engine = LocalExecutor(None, options, print)
        self._open.enter_context(self._engine.at_work(self._scratch))
        self._verdicts: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._stopping = False

    def ready(self) -> str:
        """Return, once the actor is there, the id of the node that it is on."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def tell(self, word: bool | str) -> None:
        """Take the judge's answer, or the word that the run is to checkpoint and stop."""
        if word == STOP:
            self._stopping = True
        else:
            self._verdicts.put(bool(word))

    def train(
        self, run: TrainConfig, files: FolderNews, data_file: str, data: Any
    ) -> Iterator[list[Message]]:
        """Train a run, and yield what happens, in batches.

        Args:
            run: what to train.
            files: what its folder holds; it goes on from there.
            data_file: what the file of its data set is called; "" where that is here already.
            data: that file's content, a numpy array of bytes in Ray's shared memory.
        """
        if data_file and data is not None:
            write_atomic(self._scratch / data_file, data)
        folder = RunFolder.of(self._runs_dir, run)
        folder.path.mkdir(parents=True)
        watcher = FolderWatcher(folder.path)
        apply_news(folder, files)
        watcher.news()
        messages: queue.SimpleQueue[Event | Asked | BaseException | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, args=(run, messages), daemon=True)
        thread.start()
        yield from self._batches(messages, watcher)
        thread.join()

    def close(self) -> None:
        """End the worker and remove the scratch folder."""
        self._open.close()

    def _work(
        self, run: TrainConfig, messages: queue.SimpleQueue[Event | Asked | BaseException | None]
    ) -> None:
        def judge(run: TrainConfig, row: EpochRow) -> bool:
            messages.put(Asked(run, row))
            return self._verdicts.get()

        try:
            for event in self._engine.work_off(iter([run]), judge, lambda: self._stopping):
                messages.put(event)
            messages.put(None)
        except BaseException as error:  # raised where Ray hears of it
            messages.put(error)

    def _batches(
        self,
        messages: queue.SimpleQueue[Event | Asked | BaseException | None],
        watcher: FolderWatcher,
    ) -> Iterator[list[Message]]:
        """Yield what the worker says: at once what is urgent, the rest in turn, files with it."""
        batch: list[Message] = []
        last: Event | None = None
        files_due = time.monotonic()
        due = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                message = messages.get(timeout=max(due - time.monotonic(), 0.0))
                if isinstance(message, BaseException):
                    raise message
                if message is None:
                    break
                if not isinstance(message, Started | Progress | Said | Asked):
                    last = message  # after its files
                    continue
                if isinstance(message, Progress) and message.row is None:
                    batch = [m for m in batch if not isinstance(m, Progress) or m.row is not None]
                batch.append(message)
                if not isinstance(message, Started | Asked) and time.monotonic() < due:
                    continue
            now = time.monotonic()
            if now >= files_due:
                files_due = now + _FILES_EVERY
                batch.append(watcher.news())
            batch = [message for message in batch if message != FolderNews()]
            if batch:
                yield batch
            batch, due = [], now + self._setup.report_every
        batch.append(watcher.news(wandb=True))
        shutil.rmtree(self._runs_dir, ignore_errors=True)
        if last is not None:
            batch.append(last)
        yield batch

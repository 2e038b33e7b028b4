"""One task of an array: trains its slice of the runs by workers of its own, and tells of it.

`python -m groupnorm_bench.sweep.executors.slurm.task BATCH NUMBER`, started by the batch's script.
SIGTERM, from `scancel` or before the time limit, has its runs checkpoint and stop.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
from pathlib import Path

from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.signals import StopSignal
from groupnorm_bench.sweep.executors.local.executor import LocalExecutor
from groupnorm_bench.sweep.executors.protocol import Lost, Said, StopAsked, Stopped
from groupnorm_bench.sweep.executors.slurm.batch import Batch
from groupnorm_bench.sweep.executors.slurm.journal import Journal, Tail
from groupnorm_bench.training.ahead import compile_ahead

_PATIENCE = 30.0
"""Seconds without a sign of the command after which nobody is taken to answer."""
_TICK = 0.1
_SAMPLE = 50
"""Runs that are looked at to see what is to be compiled."""


class Answers:
    """Asks the waiting command whether a run is to be pruned; closed, it prunes none."""

    def __init__(self, batch: Batch, number: int, journal: Journal, stop: StopAsked) -> None:
        self._tail, self._journal, self._stop = Tail(batch.told(number)), journal, stop
        self._heard = True
        """Whether the last question was answered."""

    def __call__(self, run: TrainConfig, row: EpochRow) -> bool:
        """Return whether the run is to stop after this epoch."""
        self._journal.ask(run, row)
        deadline = time.monotonic() + (_PATIENCE if self._heard else 0.0)
        while not self._stop():
            for line in self._tail.lines():
                self._heard = True
                if (line.get("run"), line.get("epoch")) == (run.name, row["epoch"]):
                    return bool(line.get("prune"))
            if time.monotonic() >= deadline:
                self._heard = False
                return False
            time.sleep(_TICK)
        return False


def train(batch: Batch, number: int) -> None:
    """Train the runs of one task.

    Raises:
        RunFolderError: the batch cannot be read.
    """
    order, runs = batch.read(), batch.runs_of(number)
    journal = Journal(batch.said(number))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    options = dataclasses.replace(
        order.options,
        slots=max(min(order.options.slots, len(runs)), 1),
        devices=tuple(device for device in devices.split(",") if device),
    )
    with StopSignal() as stop:
        compile_ahead(
            itertools.islice(runs, _SAMPLE), lambda text: journal.write(Said(runs[0], 0, text))
        )
        answers = Answers(batch, number, journal, stop)
        executor = LocalExecutor(None, options, print)
        judge = answers if order.asks else lambda run, row: False
        for event in executor.submit(iter(runs), judge, stop):
            # SIGTERM may reach a worker before us, to whom it would look like a fault.
            is_ended = isinstance(event, Lost) and stop()
            journal.write(Stopped(event.run, event.slot) if is_ended else event)
        if not stop():
            journal.done()


if __name__ == "__main__":
    train(Batch(Path(sys.argv[1])), int(sys.argv[2]))

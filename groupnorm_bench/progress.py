"""What a person sees while waiting: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

Row = dict[str, float]


def say(line: str) -> None:
    """Write a line for the user to stderr."""
    print(line, file=sys.stderr, flush=True)


class TrainProgress:
    """The progress of one training, on stderr.

    On a terminal a bar with loss, accuracy, images/s and the time left; elsewhere one plain line
    after each epoch; with `quiet`, nothing.
    """

    def __init__(self, total_steps: int, batch_size: int, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._batch_size = batch_size
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  train/accuracy {task.fields[accuracy]:.4f}"),
            TextColumn("val/accuracy {task.fields[val]}"),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task(
            "train", total=total_steps, epoch=1, loss=0.0, accuracy=0.0, val="-", speed=0.0
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def on_step(self, step: int, loss: float, accuracy: float) -> None:
        """Move the bar; `loss` and `accuracy` are the epoch's running means."""
        if self._live:
            speed = (self._progress.tasks[0].speed or 0.0) * self._batch_size
            self._progress.update(
                self._task, completed=step, loss=loss, accuracy=accuracy, speed=speed
            )

    def on_epoch(self, row: Row) -> None:
        """Show an epoch's validation accuracy."""
        if self._live:
            self._progress.update(
                self._task, epoch=int(row["epoch"]) + 1, val=f"{row['val/accuracy']:.4f}"
            )
        elif not self._quiet:
            say(
                f"epoch {row['epoch']:>3.0f}  train/loss {row['train/loss']:.4f}  "
                f"val/loss {row['val/loss']:.4f}  val/accuracy {row['val/accuracy']:.4f}  "
                f"{row['perf/images_per_second']:,.0f} images/s"
            )

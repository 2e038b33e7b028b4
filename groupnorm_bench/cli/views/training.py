"""What a person sees while waiting: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from groupnorm_bench.metrics import METRICS, EpochRow, metric_spec
from groupnorm_bench.wording import visible

_ACCURACY = METRICS["val/accuracy"]
_OWN_NUMBERS = 4
_BAR_ROOM = 24
"""Columns that the shortest bar and the time take."""


def say(line: str) -> None:
    """Write a line for the user to stderr; control characters of foreign names are spelled out."""
    print(visible(line), file=sys.stderr, flush=True)


class TrainProgress:
    """The progress of one training, on stderr.

    On a terminal a bar with loss, accuracy, images/s and the time left, there from the first
    moment; elsewhere one plain line after each epoch; with `quiet`, nothing. What is said before
    the training starts is held back until it does, so that an error stands alone.

    Args:
        title: what is trained, for the first line.
        batch_size: images per step; 0 for a function of the user's own, whose steps nobody knows.
    """

    def __init__(self, title: str, batch_size: int, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._batch_size = batch_size
        self._started = False
        self._held: list[str] = [] if quiet else [title]
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(min(40, max(6, self._console.width - 74))),  # a line of 80 columns holds all
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task(f"{title}: loading", total=None, numbers="")
        self._epoch = 1
        self._loss = self._accuracy = 0.0
        self._validated = "-"

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.live.transient = not self._started  # nothing was trained: leave no bar
        self._progress.stop()

    def say(self, line: str) -> None:
        """Write a line for the user, once the training has started; until then the bar has it."""
        if self._started:
            say(line)
            return
        self._held.append(line)
        if self._live:
            room = self._console.width - _BAR_ROOM
            shown = line if len(line) <= room else f"{line[: room - 3]}..."
            self._progress.update(self._task, description=shown)
            self._progress.refresh()

    def note(self, line: str) -> None:
        """Say a line that `quiet` leaves out."""
        if not self._quiet:
            self.say(line)

    def start(self, total_steps: int) -> None:
        """The settings and the data are sound: say what was held back, and show the bar."""
        self._started = True
        for line in self._held:
            say(line)
        self._progress.update(self._task, description="epoch 1", total=total_steps or None)

    def on_step(self, step: int, loss: float, accuracy: float) -> None:
        """Move the bar; `loss` and `accuracy` are the epoch's running means."""
        self._loss, self._accuracy = loss, accuracy
        if self._live:
            self._show(step)

    def on_epoch(self, row: EpochRow) -> None:
        """Show an epoch's validation accuracy."""
        if not self._batch_size:
            self._on_own_epoch(row)
            return
        self._validated = _ACCURACY.shown(row["val/accuracy"])
        if self._live:
            self._show(int(row["step"]))
            self._epoch = int(row["epoch"]) + 1
        elif not self._quiet:
            say(
                f"epoch {row['epoch']:>3.0f}  train/loss {row['train/loss']:.4f}  "
                f"val/loss {row['val/loss']:.4f}  val/accuracy {self._validated}  "
                f"{row['perf/images_per_second']:,.0f} images/s"
            )

    def _on_own_epoch(self, row: EpochRow) -> None:
        """Show what a function of the user's own logged: its first few numbers."""
        told = [(name, value) for name, value in row.items() if name != "epoch"][:_OWN_NUMBERS]
        numbers = "  ".join(f"{name} {metric_spec(name).shown(value)}" for name, value in told)
        if self._live:
            description = f"epoch {row['epoch']:.0f}"
            self._progress.update(self._task, description=description, numbers=visible(numbers))
        elif not self._quiet:
            say(f"epoch {row['epoch']:>3.0f}  {numbers}")

    def _show(self, step: int) -> None:
        speed = (self._progress.tasks[0].speed or 0.0) * self._batch_size
        numbers = (
            f"loss {self._loss:.3f}  train {_ACCURACY.shown(self._accuracy)}  "
            f"val {self._validated}  "
            f"{speed:,.0f} images/s"
        )
        description = f"epoch {self._epoch}"
        self._progress.update(self._task, completed=step, description=description, numbers=numbers)

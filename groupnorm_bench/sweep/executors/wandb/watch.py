"""What the run folders tell of runs that other processes train."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groupnorm_bench.runs import SETTLED, RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.protocol import Ended, Event, Progress, Started

_ENDED = (*SETTLED, "failed")


def _stamp(folder: RunFolder) -> int:
    try:
        return folder.result_path.stat().st_mtime_ns
    except OSError:  # not written yet
        return 0


@dataclass(slots=True)
class FolderWatch:
    """Sees in the run folders how far each run of a list has come."""

    runs_dir: Path
    runs: Sequence[TrainConfig]
    _began: dict[str, float] = field(default_factory=dict)
    _stamps: dict[str, int] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for run in self.runs:  # what was there before is no news
            self._stamps[run.name] = _stamp(RunFolder.of(self.runs_dir, run))

    @property
    def open(self) -> list[TrainConfig]:
        """The runs without a result so far."""
        return [run for run in self.runs if run.name not in self._ended]

    def news(self) -> Iterator[Event]:
        """Yield what happened since the last call."""
        for run in self.open:
            folder = RunFolder.of(self.runs_dir, run)
            stamp = _stamp(folder)
            if stamp == self._stamps[run.name]:
                continue
            self._stamps[run.name] = stamp
            result = folder.read_if_whole()
            if result is not None:
                yield from self._events(run, result)

    def _events(self, run: TrainConfig, result: RunResult) -> Iterator[Event]:
        if run.name not in self._began:
            self._began[run.name] = time.monotonic()
            yield Started(run, len(self._began) - 1)
        for row in result.history[self._rows.get(run.name, 0) :]:
            step = int(row["step"] if "step" in row else row["epoch"])
            yield Progress(run, 0, step, row.get("val/accuracy"), row)
        self._rows[run.name] = len(result.history)
        if result.status in _ENDED:
            self._ended.add(run.name)
            yield Ended(run, 0, result, time.monotonic() - self._began[run.name])


class SweepWatch:
    """Sees in a folder of runs which of them a W&B sweep has finished.

    Args:
        runs_dir: the folder; it need not exist yet.
        sweep_id: W&B's id of the sweep.
    """

    def __init__(self, runs_dir: Path, sweep_id: str) -> None:
        self._runs_dir, self._sweep_id = runs_dir, sweep_id
        self._stamps = {folder.path: _stamp(folder) for folder in self._folders()}

    def _folders(self) -> list[RunFolder]:
        if not self._runs_dir.is_dir():
            return []
        return [RunFolder(Path(entry.path)) for entry in os.scandir(self._runs_dir)]

    def news(self) -> Iterator[RunResult]:
        """Yield results, whatever their status, that came to an end since the last call."""
        for folder in self._folders():
            stamp = _stamp(folder)
            if not stamp or stamp == self._stamps.get(folder.path):
                continue
            self._stamps[folder.path] = stamp
            result = folder.read_if_whole()
            if result is None or result.status not in _ENDED:
                continue
            if result.wandb.get("sweep_id") == self._sweep_id:
                yield result

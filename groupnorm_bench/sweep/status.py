"""What run folders tell of a sweep, from outside and at any time, also while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groupnorm_bench.runs import (
    SETTLED,
    RunFolder,
    RunResult,
    find_runs,
    is_pack,
    list_folders,
)
from groupnorm_bench.tracking.sweeps import find_records

ORDER = ("finished", "running", "interrupted", "pruned", "diverged", "failed")


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as its folder shows it."""

    name: str
    state: str
    """Its status, or `running` while some process holds its folder."""
    result: RunResult | None
    """None for a run whose first result is not written yet."""

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return len(self.result.history) if self.result is not None else 0

    @property
    def accuracy(self) -> float | None:
        """`val/accuracy` after the last whole epoch."""
        if self.result is None or not self.result.history:
            return None
        return self.result.history[-1].get("val/accuracy")

    def to_data(self) -> dict[str, Any]:
        """Return the state as `--json` prints it."""
        data: dict[str, Any] = {"run": self.name, "state": self.state, "epoch": self.epoch}
        if self.result is not None:
            data |= {"arm": self.result.arm, "cell": self.result.cell, "seed": self.result.seed}
            data["error"] = self.result.summary.get("error")
        return data | {"val/accuracy": self.accuracy}


@dataclass(frozen=True, slots=True)
class RunsStatus:
    """All runs under some folders, and what could not be read."""

    runs: list[RunState]
    problems: list[str]
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By sweep: what it is to answer, as its record has it."""

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state, those that occur, most wanted first."""
        counted = Counter(run.state for run in self.runs)
        return {state: counted[state] for state in ORDER if state in counted}

    def in_state(self, *states: str) -> list[RunState]:
        """Return the runs in any of these states."""
        return [run for run in self.runs if run.state in states]


def read_status(paths: Iterable[Path]) -> RunsStatus:
    """Read the state of every run under `paths`. Changes nothing and waits for nobody.

    Raises:
        RunFolderError: a path does not exist.
    """
    paths = list(paths)
    found, problems = find_runs(paths)
    runs = []
    for run in found:
        status = run.result.status
        held = status not in SETTLED and run.folder.is_claimed()
        name = run.result.config.name
        runs.append(RunState(name, "running" if held else status, run.result))
    runs += [RunState(folder.path.name, "running", None) for folder in _just_begun(paths)]
    records, _ = find_records(path for path in paths if path.is_dir() or is_pack(path))
    questions = {record.name: record.question for _, record in records if record.question}
    return RunsStatus(runs, problems, questions)


def _just_begun(paths: Iterable[Path]) -> list[RunFolder]:
    """Return folders that a process holds and has not written a result to yet."""
    folders = []
    for path in paths:
        folders += [
            folder
            for folder in list_folders(path)
            if not is_pack(path) and not folder.result_path.exists() and folder.is_claimed()
        ]
    return folders

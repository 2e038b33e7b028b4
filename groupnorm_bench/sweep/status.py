"""What run folders tell of a sweep, from outside and at any time, also while it runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groupnorm_bench.runs import (
    SETTLED,
    PackedRuns,
    RunFolder,
    RunResult,
    find_runs,
    is_pack,
    list_folders,
    packed_facts,
    tell_of_packs,
)
from groupnorm_bench.tracking.sweeps import find_records
from groupnorm_bench.wording import count

ORDER = ("finished", "running", "interrupted", "pruned", "diverged", "failed")


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as its folder shows it."""

    name: str
    state: str
    """Its status, or `running` while some process holds its folder."""
    result: RunResult | None
    """None for a run whose first result is not written yet, or that lies in a pack."""
    epoch: int
    """Whole epochs done."""
    accuracy: float | None
    """`val/accuracy` after the last whole epoch."""
    pack: PackedRuns | None = None
    """Where the result of a run in a pack is read, if it is asked for."""

    def read(self) -> RunResult | None:
        """Return the result, read from a pack where it lies in one."""
        return self.result if self.pack is None else self.pack.named(self.name).read()

    def to_data(self) -> dict[str, Any]:
        """Return the state as `--json` prints it."""
        data: dict[str, Any] = {"run": self.name, "state": self.state, "epoch": self.epoch}
        if (result := self.read()) is not None:
            data |= {"arm": result.arm, "cell": result.cell, "seed": result.seed}
            data["error"] = result.summary.get("error")
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

    A run that lies in a pack as well as in a folder, or in two packs, counts once: as the folder
    has it, or the first pack.

    Raises:
        RunFolderError: a path does not exist.
    """
    paths = list(dict.fromkeys(paths))
    packs: dict[Path, list[RunState]] = {}
    folders: list[Path] = []
    for path in paths:
        packed = _packed(path) if is_pack(path) else None
        if packed is None:
            folders.append(path)
        else:
            packs[path] = packed
    found, problems = find_runs(folders)
    problems += tell_of_packs(folders, filter(is_pack, paths))
    runs: list[RunState] = []
    for run in found:
        status = run.result.status
        held = status not in SETTLED and run.folder.is_claimed()
        runs.append(_state_of(run.result, "running" if held else status))
    runs += [RunState(folder.path.name, "running", None, 0, None) for folder in _just_begun(paths)]
    names = {run.name for run in runs}
    for path, packed in packs.items():
        new = [run for run in packed if run.name not in names] if names else packed
        if len(new) < len(packed):
            twice = count(len(packed) - len(new), "run")
            problems.append(f"{twice} of {path} had been counted in the other places already")
        if len(packs) > 1:
            names.update(run.name for run in new)
        runs += new
    records, _ = find_records(path for path in paths if path.is_dir() or is_pack(path))
    questions = {record.name: record.question for _, record in records if record.question}
    return RunsStatus(runs, problems, questions)


def _state_of(result: RunResult, state: str) -> RunState:
    history = result.history
    accuracy = history[-1].get("val/accuracy") if history else None
    return RunState(result.config.name, state, result, len(history), accuracy)


def _packed(pack: Path) -> list[RunState] | None:
    """Return the runs of a pack by its facts alone; None of a pack that has none."""
    runs, columns = packed_facts(pack)
    if columns is None:
        return None
    epochs, accuracies = (columns.counts[name].tolist() for name in ("epochs", "last_accuracy"))
    return [
        RunState(
            name,
            columns.statuses[at],
            None,
            int(epochs[at]),
            None if math.isnan(accuracies[at]) else accuracies[at],
            runs,
        )
        for at, name in enumerate(runs.names)
    ]


def _just_begun(paths: Iterable[Path]) -> list[RunFolder]:
    """Return folders that a process holds and has not written a result to yet."""
    folders = []
    for path in (path for path in paths if not is_pack(path)):
        folders += [
            folder
            for folder in list_folders(path)
            if not folder.result_path.exists() and folder.is_claimed()
        ]
    return folders

"""Run folders among others: what is there, and what was skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs.folder import RunFolder
from groupnorm_bench.runs.result import RunResult


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run folder and what it tells."""

    folder: RunFolder
    result: RunResult


def find_runs(paths: Iterable[Path]) -> tuple[list[FoundRun], list[str]]:
    """Read run folders: each path is one, or a folder of them.

    Returns:
        the runs, by path then name, and a line for each folder that was skipped because it is
        half-written or foreign. Nothing is changed or deleted.

    Raises:
        RunFolderError: a path does not exist.
    """
    runs: list[FoundRun] = []
    problems: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise RunFolderError(f"{path} is not a folder of runs; train one: gnbench train")
        is_run = (path / "result.json").exists()
        names = [str(path)] if is_run else sorted(e.path for e in os.scandir(path) if _is_folder(e))
        for name in names:
            folder = RunFolder(Path(name))
            try:
                result = folder.read()
            except RunFolderError as error:
                problems.append(f"{error}; skipped")
                continue
            if result is not None:
                runs.append(FoundRun(folder, result))
            elif not (folder.path / "lock").exists():
                problems.append(f"{name} is not a run folder; skipped")
    return runs, problems


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False

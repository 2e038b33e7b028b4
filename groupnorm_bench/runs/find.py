"""Run folders among others, or in a pack: what is there, and what was skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs.folder import RunFolder
from groupnorm_bench.runs.pack import is_pack, packed_runs
from groupnorm_bench.runs.result import RunResult


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run folder and what it tells."""

    folder: RunFolder
    result: RunResult


def find_runs(paths: Iterable[Path]) -> tuple[list[FoundRun], list[str]]:
    """Read run folders: each path is one, a folder of them, or a pack of them.

    Returns:
        the runs, by path then name, and a line for each folder that was skipped because it is
        half-written or foreign. Nothing is changed or deleted.

    Raises:
        RunFolderError: a path does not exist, or is a damaged pack.
    """
    runs: list[FoundRun] = []
    problems: list[str] = []
    for path in paths:
        for folder in list_folders(path):
            try:
                result = folder.read()
            except RunFolderError as error:
                problems.append(f"{error}; skipped")
                continue
            if result is not None:
                runs.append(FoundRun(folder, result))
            elif not folder.lock_path.exists():
                problems.append(f"{folder.path} is not a run folder; skipped")
    return runs, problems


def list_folders(path: Path) -> Sequence[RunFolder]:
    """Return the run folders that a path stands for, by name, none of them read yet.

    Raises:
        RunFolderError: it does not exist, or is a damaged pack.
    """
    if is_pack(path):
        return packed_runs(path)
    if not path.is_dir():
        raise RunFolderError(f"{path} is not a folder of runs; train one: gnbench train")
    if (path / "result.json").exists():
        return [RunFolder(path)]
    names = sorted(entry.path for entry in os.scandir(path) if _is_folder(entry))
    return [RunFolder(Path(name)) for name in names]


def packs_in(place: Path) -> list[Path]:
    """Return the packs that lie in a folder, by name; a pack is one itself."""
    if is_pack(place):
        return [place]
    return list(filter(is_pack, sorted(place.glob("*.gnb"))))


def tell_of_packs(paths: Iterable[Path], named: Iterable[Path]) -> list[str]:
    """Return a line for each pack in folders that is not among those that were named."""
    known = {os.path.realpath(pack) for pack in named}
    packs = [pack for path in paths if path.is_dir() for pack in packs_in(path)]
    others = [pack for pack in packs if os.path.realpath(pack) not in known]
    return [f"{pack} is a pack: name it to have its runs" for pack in others]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether it may be a run's; hidden ones hold what sweeps need while they run."""
    try:
        return not entry.name.startswith(".") and entry.is_dir()
    except OSError:  # a link to itself
        return False

"""A run folder on its way between the machine that keeps it and the node that trains it.

What is sent is the files that changed since the last look. W&B's own files come at the end; the
lock stays where it is, and claims by exclusive files too: each side has its own. A link within the
folder travels as one; of one that leads out of it, as W&B makes where a trial saves a file, the
file travels.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import is_temporary, write_atomic
from groupnorm_bench.runs import RunFolder, is_claim

_RESULT = "result.json"
_LOCK = "lock"
_WANDB = "wandb"


@dataclass(frozen=True, slots=True)
class FolderNews:
    """What changed in a run folder: files by their path in it, and those that are gone."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Symbolic links, of W&B's, and where they lead: within the folder."""
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.links or self.gone)


class FolderWatcher:
    """Looks at a run folder, and tells what changed since the last look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, int, int]] = {}

    def news(self, *, wandb: bool = False) -> FolderNews:
        """Return what changed; with `wandb`, W&B's files too. One that changes now waits."""
        files: dict[str, bytes] = {}
        links: dict[str, str] = {}
        found = {}
        for name, path in _entries(self._folder, wandb=wandb):
            if os.path.islink(path):
                if _stays(self._folder, name, os.readlink(path)):
                    links[name] = os.readlink(path)
                    continue
                if not os.path.isfile(path):
                    continue
            try:
                before = _state(path)
                found[name] = before
                if self._seen.get(name) == before:
                    continue
                with open(path, "rb") as file:
                    content = file.read()
                if _state(path) == before:
                    files[name] = content
                else:
                    found.pop(name)
            except FileNotFoundError:  # replaced or removed meanwhile
                continue
        gone = tuple(name for name in self._seen if not os.path.lexists(self._folder / name))
        self._seen = {k: v for k, v in self._seen.items() if k not in gone} | found
        return FolderNews(files, links, gone)


def _state(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


def _entries(folder: Path, *, wandb: bool) -> list[tuple[str, str]]:
    """Return the files and links in a run folder as (path in it, whole path), in order."""
    entries = []
    for at, folders, names in os.walk(folder):
        inside = os.path.relpath(at, folder)
        is_top = inside == os.curdir
        if is_top and not wandb and _WANDB in folders:
            folders.remove(_WANDB)
        linked = [name for name in folders if os.path.islink(os.path.join(at, name))]
        for name in [*names, *linked]:
            path = os.path.join(at, name)
            mode = os.lstat(path).st_mode if os.path.lexists(path) else 0
            is_ours = not (is_top and (_is_of_a_claim(name) or is_temporary(name)))
            if is_ours and (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                entries.append((name if is_top else f"{inside}/{name}", path))
    return sorted(entries)


def _stays(folder: Path, name: str, target: str = "") -> bool:
    """Return whether a path of a folder, and where a link there would lead, lie in the folder."""
    home = folder.resolve()
    parent = (folder / name).parent.resolve()
    return parent.is_relative_to(home) and (parent / target).resolve().is_relative_to(home)


def _is_of_a_claim(name: str) -> bool:
    return name == _LOCK or is_claim(name)


def apply_news(folder: RunFolder, news: FolderNews) -> None:
    """Bring a run folder to where the other one is: `result.json` last, removals after it.

    The caller holds the folder, or is alone with it.

    Raises:
        RunFolderError: the folder cannot be written, or a path leads out of it.
    """
    for name in [*news.files, *news.links, *news.gone]:
        parts = PurePosixPath(name).parts
        is_claim_of_ours = len(parts) == 1 and _is_of_a_claim(parts[0])
        is_elsewhere = ".." in parts or name.startswith("/") or not _stays(folder.path, name)
        if not parts or is_claim_of_ours or is_elsewhere:
            raise RunFolderError(f"{folder.path}: a node sent {name!r}, which is no file of a run")
    for name in sorted(news.files, key=lambda name: (name == _RESULT, name)):
        path = folder.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.startswith(f"{_WANDB}/"):  # a thousand of W&B's files need no fsync each
                path.write_bytes(news.files[name])
                continue
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
        write_atomic(path, news.files[name])
    try:
        for name, target in news.links.items():
            path = folder.path / name
            if not _stays(folder.path, name, target):
                raise RunFolderError(
                    f"{folder.path}: a node sent the link {name!r} to {target!r}, out of the run"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        for name in news.gone:
            (folder.path / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder.path}: cannot be written: {error.strerror}") from error


def drop_stale_wandb(folder: RunFolder, news: FolderNews) -> None:
    """Remove the W&B files of earlier attempts at a run whose W&B files came home now."""
    came = {name.split("/")[1] for name in news.files if name.startswith(f"{_WANDB}/")}
    ids = {name.rpartition("-")[2] for name in came if name.startswith("offline-run-")}
    for path in folder.path.glob(f"{_WANDB}/offline-run-*"):
        if path.name not in came and path.name.rpartition("-")[2] in ids:
            shutil.rmtree(path, ignore_errors=True)

"""A run on disk: `result.json`, `test_hits.npy`, a checkpoint while unfinished, and a lock.

The folder is the only source of truth: sweeps resume from it, `compare` and `report` read it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import orjson

from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.settings.config import TrainConfig

Status = Literal["finished", "diverged", "failed", "pruned", "interrupted"]
SETTLED: frozenset[str] = frozenset({"finished", "diverged", "pruned"})
"""Statuses that are results: such a run is never trained again unless forced."""

_STATUSES = frozenset(get_args(Status))
_LOCK_SECONDS = 0.2
_KEYS = ("config", "arm", "cell", "seed", "status", "history", "summary", "environment", "wandb")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One run as its folder tells it. Accuracies are fractions, times are seconds."""

    config: TrainConfig
    status: Status
    history: list[dict[str, float]] = field(default_factory=list)
    """One row per epoch: design of the metric keys in `docs/design.md`."""
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    """Where it ran: versions, device, threads, host, command."""
    wandb: dict[str, Any] = field(default_factory=dict)
    """The W&B run: id, mode, project, entity, url; empty where tracking is disabled."""

    @property
    def arm(self) -> str:
        return self.config.arm

    @property
    def cell(self) -> str:
        return self.config.cell

    @property
    def seed(self) -> int:
        return self.config.seed

    def replace(self, **changes: Any) -> RunResult:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Return the text of `result.json`; numbers that are not finite become null."""
        document = {
            "config": self.config.to_dict(),
            "arm": self.arm,
            "cell": self.cell,
            "seed": self.seed,
            "status": self.status,
            "history": self.history,
            "summary": self.summary,
            "environment": self.environment,
            "wandb": self.wandb,
        }
        return json.dumps(finite(document), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunResult:
        """Read `result.json` back.

        Raises:
            RunFolderError: the text is not a run's result, or its parts contradict each other.
        """
        try:
            document = orjson.loads(text)
            if not isinstance(document, dict) or any(key not in document for key in _KEYS):
                raise RunFolderError("is not a gnbench result")
            config = TrainConfig.from_mapping(document["config"])
            if document["status"] not in _STATUSES:
                raise RunFolderError(f"has the unknown status {document['status']!r}")
            if document["cell"] != config.cell:
                raise RunFolderError(
                    f"says cell {document['cell']!r} but its config is {config.cell}"
                )
            parts = {key: document[key] for key in ("history", "summary", "environment", "wandb")}
            if (
                not isinstance(parts["history"], list)
                or not all(
                    isinstance(part, dict) for name, part in parts.items() if name != "history"
                )
                or not all(isinstance(row, dict) for row in parts["history"])
            ):
                raise RunFolderError("is not a gnbench result")
            return cls(config=config, status=document["status"], **parts)
        except (ValueError, RecursionError, TypeError, AttributeError) as error:
            raise RunFolderError(f"is not readable: {' '.join(str(error).split())}") from error
        except ConfigError as error:
            raise RunFolderError(f"has a config of another version: {error}") from error


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity in it replaced by None, as JSON needs."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary beside it, fsync, then `os.replace`.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise RunFolderError(
            f"{path}: cannot be written: {error.strerror}; free space or choose another --out, "
            "then type the command again"
        ) from error


def _lock(handle: int, path: Path) -> None:
    """Take a folder's lock; try for a moment, since `is_claimed` holds it for an instant.

    Raises:
        RunFolderError: another process holds it.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunFolderError(
                    f"{path} is in use by another process; wait for it or stop it"
                ) from error
            time.sleep(_LOCK_SECONDS / 20)


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, runs_dir: Path, config: TrainConfig) -> RunFolder:
        """Return the folder that `config`'s run has under `runs_dir`, made or not."""
        return cls(runs_dir / config.name)

    @property
    def result_path(self) -> Path:
        return self.path / "result.json"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def hits_path(self) -> Path:
        return self.path / "test_hits.npy"

    @property
    def traceback_path(self) -> Path:
        """Where a run that failed leaves its traceback."""
        return self.path / "traceback.txt"

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the folder: made if need be, locked by flock, so a killed process lets go.

        Raises:
            RunFolderError: another process holds it, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be made: {error.strerror}; choose another --out"
            ) from error
        try:
            _lock(handle, self.path)
            yield
        finally:
            os.close(handle)

    def is_claimed(self) -> bool:
        """Return whether some process holds the folder now."""
        try:
            handle = os.open(self.path / "lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def set_aside(self) -> Path | None:
        """Rename `result.json`, and drop the checkpoint, so that the run starts anew.

        Returns:
            what the old result is called now, or None where there was none.
        """
        self.checkpoint_path.unlink(missing_ok=True)
        number = 1
        while (kept := self.path / f"result.{number}.json").exists():
            number += 1
        try:
            os.replace(self.result_path, kept)
        except FileNotFoundError:
            return None
        return kept

    def remove_empty(self) -> None:
        """Remove the folder, and the folder of runs, where they hold nothing but the lock."""
        if [entry.name for entry in self.path.iterdir()] == ["lock"]:
            (self.path / "lock").unlink()
            self.path.rmdir()
            with contextlib.suppress(OSError):  # it holds other runs
                self.path.parent.rmdir()

    def write(self, result: RunResult) -> None:
        """Replace `result.json` whole."""
        write_atomic(self.result_path, result.to_json().encode())

    def write_hits(self, hits: np.ndarray[Any, Any]) -> None:
        """Save which test images were right: booleans in the test set's order, packed to bits."""
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.packbits(hits.astype(bool)), allow_pickle=False)
        write_atomic(self.hits_path, buffer.getvalue())

    def read_hits(self, num_images: int) -> np.ndarray[Any, Any]:
        """Return the booleans that `write_hits` saved, shape [num_images].

        Raises:
            RunFolderError: the file is missing, foreign or of another length.
        """
        try:
            packed = np.load(self.hits_path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunFolderError(f"{self.hits_path} is not readable: {error}") from error
        if packed.dtype != np.uint8 or packed.shape != (math.ceil(num_images / 8),):
            raise RunFolderError(f"{self.hits_path} does not hold {num_images} test images")
        return np.unpackbits(packed, count=num_images).astype(bool)

    def read(self) -> RunResult | None:
        """Return what the folder tells, or None where no result was written yet.

        Raises:
            RunFolderError: `result.json` is half-written, foreign or unreadable.
        """
        try:
            with open(os.path.join(self.path, "result.json"), encoding="utf-8") as file:
                text = file.read()  # half the time of Path.read_text, and there may be 10,000
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{self.result_path} is not readable: {error}") from error
        try:
            return RunResult.from_json(text)
        except RunFolderError as error:
            raise RunFolderError(f"{self.result_path} {error}") from error


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
        names = [str(path)] if is_run else sorted(e.path for e in os.scandir(path) if e.is_dir())
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

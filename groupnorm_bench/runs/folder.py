"""A run on disk: `result.json`, `test_hits.npy`, a checkpoint while unfinished, and a lock."""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import write_atomic
from groupnorm_bench.runs.result import RunResult
from groupnorm_bench.settings.config import TrainConfig

_LOCK_SECONDS = 0.2


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

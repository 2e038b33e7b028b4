"""A run on disk: `result.json`, `test_hits.npy`, a checkpoint while unfinished, and a lock."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import (
    is_temporary,
    read_bounded,
    remove_temporaries,
    sync_folder,
    write_atomic,
)
from groupnorm_bench.runs import exclusive, lock
from groupnorm_bench.runs.result import SETTLED, RunResult
from groupnorm_bench.settings.config import TrainConfig

MAX_RESULT_BYTES = 64 * 2**20
"""Of a result.json; 3,000 epochs with every metric take 2 MB."""
_MAX_HEADER = 4096
_CLASS_BYTES = 2
"""Of the class that an image was taken for."""
_NPY = b"\x93NUMPY"


class RunFolder:
    """The folder of one run."""

    is_packed = False
    """Whether it lies in a pack, where nothing can be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_ours: Callable[[], bool] = lambda: True

    @classmethod
    def of(cls, runs_dir: Path, config: TrainConfig) -> RunFolder:
        """Return the folder that `config`'s run has under `runs_dir`, made or not."""
        return cls(runs_dir / config.name)

    @property
    def name(self) -> str:
        return self.path.name or self.path.resolve().name  # of `.`, too

    @property
    def result_path(self) -> Path:
        return self.path / "result.json"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def own_checkpoint_dir(self) -> Path:
        """Where a training function of the user's own keeps what it goes on from."""
        return self.path / "checkpoint"

    @property
    def hits_path(self) -> Path:
        return self.path / "test_hits.npy"

    @property
    def traceback_path(self) -> Path:
        """Where a run that failed leaves its traceback."""
        return self.path / "traceback.txt"

    @property
    def lock_path(self) -> Path:
        return self.path / "lock"

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the folder: made if need be, locked by flock, so a killed process lets go.

        By an exclusive file, kept fresh, where flock is not to be had between machines.

        What killed writers left in it is removed.

        Raises:
            RunFolderError: another process holds it, or it cannot be made or locked.
        """
        with contextlib.ExitStack() as held:
            try:
                self._make()
                self._is_ours = held.enter_context(lock.hold(self.lock_path))
            except OSError as error:
                raise RunFolderError(f"{self.path}: {self._why_not(error)}") from error
            remove_temporaries(self.path)
            try:
                yield
            finally:
                self._is_ours = lambda: True

    def check_claim(self) -> None:
        """See that another process has not taken the folder over, before something is written.

        Raises:
            RunFolderError: it has, since this one gave no sign of life for minutes.
        """
        if not self._is_ours():
            raise RunFolderError(
                f"{self.path} was taken over by another process while this one was stopped, which "
                "writes nothing more there; wait for that one"
            )

    def _make(self) -> None:
        """Make the folder, and have the disk keep its name."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        for path in made:
            sync_folder(path.parent)

    def _why_not(self, error: OSError) -> str:
        if error.filename == str(self.lock_path) and not isinstance(error, PermissionError):
            return f"its lock cannot be used: {error.strerror}; remove {self.lock_path}"
        owner = _other_owner(self.path)
        if isinstance(error, PermissionError) and owner:
            return f"belongs to another user ({owner}); have it shared, or choose another --out"
        return f"cannot be made: {error.strerror}; choose another --out"

    @property
    def claim_kind(self) -> str:
        """How the folder is claimed now, by whoever claims it: `flock` or `exclusive files`."""
        names = os.listdir(self.path)
        return "exclusive files" if any(map(exclusive.is_claim, names)) else "flock"

    def is_claimed(self) -> bool:
        """Return whether some process holds the folder now."""
        return lock.is_held(self.lock_path)

    def holder(self) -> str:
        """Return who holds the folder, as `process 123 on laptop`; "" if that is not known."""
        return lock.holder(self.lock_path)

    def set_aside(self) -> Path | None:
        """Rename `result.json`, and drop the checkpoint, so that the run starts anew.

        Returns:
            what the old result is called now, or None where there was none.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        number = 1
        while os.path.lexists(kept := self.path / f"result.{number}.json"):
            number += 1
        try:
            self.checkpoint_path.unlink(missing_ok=True)
            shutil.rmtree(self.own_checkpoint_dir, ignore_errors=True)
            os.replace(self.result_path, kept)
            sync_folder(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be started again: {error.strerror}; choose another --out"
            ) from error
        return kept

    def remove_empty(self) -> None:
        """Remove the folder, and the folder of runs, where they hold nothing but the lock."""
        with contextlib.suppress(OSError):  # it holds something, or the disk refuses
            names = {entry.name for entry in self.path.iterdir()}
            if all(name == "lock" or exclusive.is_claim(name) for name in names):
                for name in names:
                    (self.path / name).unlink()
                self.path.rmdir()
                self.path.parent.rmdir()

    def tidy(self) -> list[str]:
        """Remove what a settled run needs no more: checkpoint, traceback.

        Returns:
            a line for each that could not be removed; the run is settled all the same.
        """
        problems = []
        for path in (self.checkpoint_path, self.traceback_path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                problems.append(f"{path} cannot be removed: {error.strerror}; it is not needed")
        shutil.rmtree(self.own_checkpoint_dir, ignore_errors=True)
        return problems

    def tidy_if_left(self) -> None:
        """Tidy a settled folder whose process was killed before it could; it may be in use."""
        paths = (self.checkpoint_path, self.own_checkpoint_dir, self.traceback_path)
        needless = {path.name for path in paths}
        with contextlib.suppress(OSError, RunFolderError):
            names = os.listdir(self.path)
            if needless.isdisjoint(names) and not any(map(is_temporary, names)):
                return
            with self.claim():
                if self.read_settled():
                    self.tidy()

    def write(self, result: RunResult) -> None:
        """Replace `result.json` whole.

        Raises:
            RunFolderError: it cannot be written, holds a settled result and this is none, or was
                taken over by another process.
        """
        self.check_claim()
        if result.status not in SETTLED and self.read_settled():
            raise RunFolderError(
                f"{self.path} holds a result already, and {result.status!r} is none; --force sets "
                "it aside"
            )
        write_atomic(self.result_path, result.to_json().encode())

    def read_if_whole(self) -> RunResult | None:
        """Return what the folder tells; None also where it is half-written, foreign, unreadable."""
        try:
            return self.read()
        except RunFolderError:
            return None

    def read_settled(self) -> RunResult | None:
        """Return the folder's result if it is one that is never trained again, else None."""
        found = self.read_if_whole()
        return found if found is not None and found.status in SETTLED else None

    def write_hits(
        self, hits: np.ndarray[Any, Any], read_as: np.ndarray[Any, Any] | None = None
    ) -> None:
        """Save which test images were right, and behind it what the others were taken for.

        Args:
            hits: booleans in the test set's order; packed to bits.
            read_as: the class that each image was taken for, shape [images]; only those that are
                wrong are kept, as a second array in the same file.
        """
        buffer = io.BytesIO()
        np.save(buffer, np.packbits(hits.astype(bool)), allow_pickle=False)
        if read_as is not None:
            np.save(buffer, read_as[~hits.astype(bool)].astype("<u2"), allow_pickle=False)
        self.check_claim()
        write_atomic(self.hits_path, buffer.getvalue())

    def read_hits(self, num_images: int) -> np.ndarray[Any, Any]:
        """Return the booleans that `write_hits` saved, shape [num_images].

        Raises:
            RunFolderError: the file is missing, foreign or of another length.
        """
        return self._read_hits(num_images)[0]

    def read_misreads(self, num_images: int) -> np.ndarray[Any, Any] | None:
        """Return the class that each misread test image was taken for, -1 for those read right.

        Of shape [num_images]; None of a run that did not keep it (before 0.2.0).

        Raises:
            RunFolderError: as `read_hits` does, or there are not as many as images misread.
        """
        hits, kept = self._read_hits(num_images)
        if kept is None:
            return None
        if kept.size != np.count_nonzero(~hits):
            raise RunFolderError(f"{self.hits_path} does not tell of every image that was misread")
        found = np.full(num_images, -1, dtype=np.int64)
        found[~hits] = kept
        return found

    def _read_hits(
        self, num_images: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
        expected = math.ceil(num_images / 8)
        packed, kept = self._read_hits_file(expected)
        if packed.size != expected:
            raise RunFolderError(f"{self.hits_path} does not hold {num_images} test images")
        return np.unpackbits(packed, count=num_images).astype(bool), kept

    def read_packed_hits(self) -> np.ndarray[Any, Any]:
        """Return the bytes that `write_hits` packed, for a run that does not say of how many.

        Raises:
            RunFolderError: the file is missing, foreign or of more than 1 MB of them.
        """
        return self._read_hits_file(2**20)[0]

    def _read_hits_file(
        self, at_most: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
        """Return the packed bytes, at most so many, and the classes behind them, if any."""
        try:
            limit = at_most * (1 + 8 * _CLASS_BYTES) + 2 * _MAX_HEADER
            return _arrays_of(self.file("test_hits.npy", limit))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise RunFolderError(f"{self.hits_path} is not readable: {reason}") from error

    def has_result(self) -> bool:
        """Return whether a `result.json` lies here, of whatever content."""
        return os.path.lexists(self.result_path)

    def file(self, name: str, limit: int) -> bytes:
        """Return the content of one of the run's files, of at most `limit` bytes.

        Raises:
            OSError: it is not there, larger, or no regular file.
        """
        return read_bounded(os.path.join(self.path, name), limit)

    def restore(self, result: bytes, hits: bytes | None) -> None:
        """Write what `file` gave of another folder of this run; the caller holds the claim.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        self.check_claim()
        if hits is not None:
            write_atomic(self.hits_path, hits)
        write_atomic(self.result_path, result)

    def read(self) -> RunResult | None:
        """Return what the folder tells, or None where no result was written yet.

        Raises:
            RunFolderError: `result.json` is half-written, foreign, unreadable or of another run.
        """
        try:
            content = self.file("result.json", MAX_RESULT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunFolderError(f"{self.result_path} is not readable: {error.strerror}") from error
        try:
            return RunResult.from_json(content, self.name)
        except RunFolderError as error:
            raise RunFolderError(f"{self.result_path} {error}") from error


def _arrays_of(content: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Return a row of bytes, and the row of classes behind it, if there is one; no more.

    Raises:
        ValueError: it is of another kind or shape, or cut short.
    """
    packed, rest = _row_of(content, "u1")
    if not rest:
        return packed, None
    classes, rest = _row_of(rest, "<u2")
    if rest:
        raise ValueError("it holds more than two rows")
    return packed, classes


def _row_of(content: bytes, kind: str) -> tuple[np.ndarray[Any, Any], bytes]:
    """Return the row that a .npy file begins with, and what is behind it."""
    if not content.startswith(_NPY):
        raise ValueError("it is no .npy file")
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, dtype = _told(content[:start])
    if dtype != np.dtype(kind) or len(shape) != 1:
        raise ValueError(f"it holds no row of {np.dtype(kind)}")
    size = shape[0] * dtype.itemsize
    if size > len(content) - start:
        raise ValueError("it is cut short")
    return np.frombuffer(content, dtype, shape[0], start), content[start + size :]


@functools.lru_cache(maxsize=64)  # a sweep's are all alike
def _told(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the type that the head of a .npy file tells.

    Raises:
        ValueError: it is none.
    """
    file = io.BytesIO(header)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_MAX_HEADER)
    except Exception as error:  # numpy parses it as Python, whose parser raises half a dozen kinds
        raise ValueError(f"its head is none: {error}") from error
    return shape, dtype


def _other_owner(path: Path) -> str:
    """Return the user that a path belongs to, or its nearest parent; "" if that is this one."""
    while not path.exists() and path != path.parent:
        path = path.parent
    with contextlib.suppress(OSError, KeyError):
        if path.stat().st_uid != os.geteuid():
            return path.owner()
    return ""

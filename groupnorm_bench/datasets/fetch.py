"""Fetching a data set through torchvision: verified, atomic, one process at a time, never for ever.

torchvision's download has no time limit and imports for a second, so it runs in a process of
its own (`python -m groupnorm_bench.datasets.fetch NAME FOLDER`), which is ended when nothing
arrives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from groupnorm_bench.datasets import DATASETS
from groupnorm_bench.datasets.files import FILES
from groupnorm_bench.errors import DataError

FETCHED = {name: spec.torchvision for name, spec in DATASETS.items() if spec.torchvision}
"""Data sets that can be fetched -> torchvision's class, which also names the folder."""

MAX_SILENCE_SECONDS = 10.0
"""Seconds without a single new byte, over all mirrors together, before a fetch is given up."""
_SOCKET_SECONDS = 4.0
"""For one answer of one mirror: where the first hangs, there is time for the next."""
RETRY_AFTER_SECONDS = 3600.0
"""How long `--dataset auto` remembers that a fetch failed."""


def raw_folder(name: str, data_dir: Path) -> Path:
    """Return the folder of a data set's four raw files."""
    return data_dir / FETCHED[name] / "raw"


def is_on_disk(name: str, data_dir: Path) -> bool:
    """Return whether all raw files of a data set are there, verified or not."""
    if name not in FETCHED:
        return True
    return all((raw_folder(name, data_dir) / file).is_file() for file in FILES)


def fetch(
    name: str,
    data_dir: Path,
    *,
    mirror: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Fetch a data set into `data_dir`, unless another process just did.

    Args:
        name: a key of `FETCHED`.
        data_dir: made if need be; files appear in it whole, each by one rename.
        mirror: a URL that holds the four .gz files; torchvision's own mirrors if None.
        say: called with lines for the user.

    Raises:
        DataError: nothing arrived for 10 s, no mirror answered, a checksum is wrong, or the
            folder cannot be written.
    """
    started = time.time()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _alone(name, data_dir, say):
            if _failed_since(started, name, data_dir):
                raise DataError(f"{name} could not be fetched by the process that we waited for")
            if not is_on_disk(name, data_dir):
                _fetch_alone(name, data_dir, mirror, say)
    except OSError as error:
        raise DataError(
            f"{data_dir} cannot be written: {error.strerror}; give another --data-dir, or "
            "--dataset mnist-5k"
        ) from error


def recently_failed(name: str, data_dir: Path) -> str | None:
    """Return why a fetch failed within the last hour, or None."""
    try:
        age = time.time() - _failure_path(name, data_dir).stat().st_mtime
    except OSError:
        return None
    if not 0 <= age < RETRY_AFTER_SECONDS:
        return None
    return f"{name} could not be fetched {age / 60:.0f} min ago"


def _failed_since(moment: float, name: str, data_dir: Path) -> bool:
    try:
        return _failure_path(name, data_dir).stat().st_mtime >= moment
    except OSError:
        return False


def _failure_path(name: str, data_dir: Path) -> Path:
    return data_dir / f".fetch-{name}.failed"


@contextlib.contextmanager
def _alone(name: str, data_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on fetching `name`; the kernel frees it when the holder dies."""
    with (data_dir / f".fetch-{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another process that fetches {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_alone(name: str, data_dir: Path, mirror: str | None, say: Callable[[str], None]) -> None:
    for leftover in data_dir.glob(f".fetch-{name}-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    say(f"fetching {name} to {data_dir}")
    temporary = Path(tempfile.mkdtemp(dir=data_dir, prefix=f".fetch-{name}-"))
    try:
        problem = _run_child(name, temporary, mirror)
        if problem is not None:
            _failure_path(name, data_dir).touch()
            raise DataError(
                f"{name} could not be fetched: {problem}; put its raw files into "
                f"{raw_folder(name, data_dir)}, give --mirror URL to gnbench data, or use "
                "--dataset mnist-5k"
            )
        target = raw_folder(name, data_dir)
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(raw_folder(name, temporary).iterdir()):
            os.replace(file, target / file.name)
        _failure_path(name, data_dir).unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run_child(name: str, folder: Path, mirror: str | None) -> str | None:
    """Run the download; return None, or one line that says what went wrong."""
    command = [sys.executable, "-m", "groupnorm_bench.datasets.fetch", name, str(folder)]
    child = subprocess.Popen(
        command + ([mirror] if mirror else []),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    arrived, silence, last = 0, 0.0, time.monotonic()
    try:
        while child.poll() is None:
            time.sleep(0.1)
            now, size = time.monotonic(), _bytes_in(folder)
            if size > arrived:
                arrived = size
            elif (folder / "started").exists():  # importing torchvision is not the mirror's fault
                silence += now - last
            last = now
            if silence > MAX_SILENCE_SECONDS:
                return f"nothing arrived for {MAX_SILENCE_SECONDS:.0f} s"
        assert child.stderr is not None
        lines = child.stderr.read().strip().splitlines()
        return None if child.returncode == 0 else (lines[-1] if lines else "the download stopped")
    finally:
        child.kill()
        child.communicate()


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):  # renamed while we look
                total += os.stat(os.path.join(root, file)).st_size
    return total


def _download(name: str, folder: str, mirror: str | None) -> str | None:
    """Download through torchvision, which checks every archive's md5; return what went wrong."""
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, FETCHED[name])
    if mirror:
        dataset.mirrors = [mirror.rstrip("/") + "/"]
    Path(folder, "started").touch()
    try:
        dataset(folder, download=True)
    except Exception as error:  # urllib, http.client, zlib, ssl: to the user all mean "no"
        text = str(error).strip().splitlines() or [type(error).__name__]
        return text[-1]
    return None


if __name__ == "__main__":
    socket.setdefaulttimeout(_SOCKET_SECONDS)
    sys.exit(_download(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))

"""Fetching a data set through torchvision: verified, atomic, one process at a time, never for ever.

torchvision's download has no time limit and imports for a second, so it runs in a process of
its own (`python -m groupnorm_bench.datasets.fetch NAME FOLDER`), which is ended when nothing
arrives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from groupnorm_bench.datasets import DATASETS
from groupnorm_bench.errors import DataError
from groupnorm_bench.files import open_regular
from groupnorm_bench.wording import duration, printable

FETCHED = {name: spec.torchvision for name, spec in DATASETS.items() if spec.torchvision}
"""Data sets that can be fetched -> torchvision's class."""

MAX_DOWNLOAD = 2**29
"""On the disk, of all files together, packed and unpacked: twice what the largest needs."""
MAX_SECONDS = 600.0
"""Before a fetch is given up, however steadily something arrives."""
MAX_SILENCE_SECONDS = 10.0
"""Seconds without a single new byte, over all mirrors together, before a fetch is given up."""
_PAUSE_SECONDS = 1.0
"""A pause up to this is a slow line's, and is no silence."""
_SOCKET_SECONDS = 4.0
"""For one answer of one mirror: where the first hangs, there is time for the next."""
_STARTED = "started"
"""A file in the child's folder: from now on it waits for a mirror."""
RETRY_AFTER_SECONDS = 3600.0
"""How long `--dataset auto` remembers that a fetch failed."""


def raw_folder(name: str, data_dir: Path) -> Path:
    """Return the folder that a fetch fills with a data set's files."""
    return (data_dir / DATASETS[name].kept[0][0]).parent


def is_on_disk(name: str, data_dir: Path) -> bool:
    """Return whether all files of a data set are there, packed or not, verified or not."""
    spec = DATASETS.get(name)
    kept = spec.kept if spec else ()  # of one's own data there is nothing to fetch
    return not kept or any(all((data_dir / file).is_file() for file in files) for files in kept)


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
        mirror: a URL that holds its archives; where torchvision looks if None.
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
            f"{error.filename or data_dir}: {error.strerror}; give another --data-dir, or "
            "--dataset mnist-5k"
        ) from error


def recently_failed(name: str, data_dir: Path) -> str | None:
    """Return why a fetch failed within the last hour, or None."""
    try:
        age = time.time() - _failure_path(name, data_dir).stat().st_mtime
    except OSError:  # it has not failed
        return None
    if not 0 <= age < RETRY_AFTER_SECONDS:
        return None
    return f"{name} could not be fetched {duration(max(1, round(age)))} ago"


def _failed_since(moment: float, name: str, data_dir: Path) -> bool:
    try:
        return _failure_path(name, data_dir).stat().st_mtime >= moment
    except OSError:  # it has not failed
        return False


def _failure_path(name: str, data_dir: Path) -> Path:
    return data_dir / f".fetch-{name}.failed"


@contextlib.contextmanager
def _alone(name: str, data_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on fetching `name`; the kernel frees it when the holder dies."""
    handle = open_regular(_lock_path(name, data_dir), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.pread(handle, 200, 0).decode(errors="replace"))
            who = f" ({holder})" if holder else ""
            say(f"waiting for another process{who} that fetches {name} to {data_dir}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # it holds without its name, too
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} on {platform.node()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _lock_path(name: str, data_dir: Path) -> Path:
    return data_dir / f".fetch-{name}.lock"


def _remember_failure(name: str, data_dir: Path) -> None:
    path = _failure_path(name, data_dir)
    handle = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW)
    os.utime(handle)
    os.close(handle)


def _fetch_alone(name: str, data_dir: Path, mirror: str | None, say: Callable[[str], None]) -> None:
    for leftover in data_dir.glob(f".fetch-{name}-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    say(f"fetching {name} to {data_dir}")
    temporary = Path(tempfile.mkdtemp(dir=data_dir, prefix=f".fetch-{name}-"))
    try:
        problem = _run_child(name, temporary, mirror)
        if problem is not None:
            _remember_failure(name, data_dir)
            raise DataError(
                f"{name} could not be fetched: {problem}; put {_files_in_words(name)} into "
                f"{raw_folder(name, data_dir)}, give --mirror URL to gnbench data, or use "
                "--dataset mnist-5k"
            )
        target = raw_folder(name, data_dir)
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(raw_folder(name, temporary).iterdir()):
            if file.name != _STARTED:
                os.replace(file, target / file.name)
        _failure_path(name, data_dir).unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _files_in_words(name: str) -> str:
    files = [Path(file).name for file in DATASETS[name].kept[0]]
    return "its raw files" if len(files) > 2 else " and ".join(files)


def _run_child(name: str, folder: Path, mirror: str | None) -> str | None:
    """Run the download; return None, or one line that says what went wrong.

    The child reads from us: at the end of that file, which our death brings, it ends as well.
    """
    command = [sys.executable, "-P", "-m", "groupnorm_bench.datasets.fetch", name, str(folder)]
    child = subprocess.Popen(  # -P: nothing is imported from the working directory
        command + ([mirror] if mirror else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},  # a bar would fill the pipe, and be waited for
    )
    try:
        problem = _watch(child, folder)
        if problem is not None:
            return problem
        assert child.stderr is not None
        lines = child.stderr.read().strip().splitlines()
        return None if child.returncode == 0 else (lines[-1] if lines else "the download stopped")
    finally:
        child.kill()
        child.communicate()


def _watch(child: subprocess.Popen[str], folder: Path) -> str | None:
    """Wait for the download's end; return why it must not go on, or None."""
    arrived, silence = 0, 0.0
    last = grew = time.monotonic()
    started: float | None = None
    while child.poll() is None:
        time.sleep(0.1)
        now, size = time.monotonic(), _bytes_in(folder)
        if started is None and (folder / _STARTED).exists():
            started = grew = now  # importing torchvision is not the mirror's fault
        if size > arrived:
            arrived, grew = size, now
        elif started is not None and now - grew > _PAUSE_SECONDS:
            silence += now - last
        last = now
        if silence > MAX_SILENCE_SECONDS:
            return f"nothing arrived for {MAX_SILENCE_SECONDS:.0f} s"
        if size > MAX_DOWNLOAD:
            return f"more than {MAX_DOWNLOAD // 2**20} MB arrived, which is no such data set"
        if started is not None and now - started > MAX_SECONDS:
            return f"it was not whole after {MAX_SECONDS / 60:.0f} min"
    return None


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
    from torchvision.datasets.utils import download_url

    dataset = getattr(torchvision.datasets, FETCHED[name])
    Path(folder, _STARTED).touch()
    try:
        if hasattr(dataset, "mirrors"):  # MNIST's kind, whose archives are unpacked
            dataset.mirrors = [mirror.rstrip("/") + "/"] if mirror else dataset.mirrors
            dataset(folder, download=True)
        for url, file, md5 in _archives(dataset):
            there = f"{mirror.rstrip('/')}/{file}" if mirror else url
            download_url(there, folder, file, md5)
    except Exception as error:  # urllib, http.client, zlib, ssl: to the user all mean "no"
        text = str(error).strip().splitlines() or [type(error).__name__]
        return text[-1]
    return None


def _archives(dataset: Any) -> list[tuple[str, str, str]]:
    """Return URL, name and md5 of what a class of torchvision downloads to be read packed."""
    if hasattr(dataset, "split_list"):  # SVHN, whose third part is extra
        return [tuple(dataset.split_list[part]) for part in ("train", "test")]
    if hasattr(dataset, "tgz_md5"):
        return [(dataset.url, dataset.filename, dataset.tgz_md5)]
    return []


def _end_with_parent() -> None:
    """End this process when its parent has gone: stdin is a pipe from it."""
    while os.read(0, 1):  # not sys.stdin: its buffer, held here, is fatal to Python's own end
        pass
    os._exit(1)


if __name__ == "__main__":
    socket.setdefaulttimeout(_SOCKET_SECONDS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (MAX_DOWNLOAD, MAX_DOWNLOAD)
    )  # whatever a mirror sends
    problem = _download(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
    print(problem or "", file=sys.stderr, flush=True)
    os._exit(0 if problem is None else 1)  # Python's own end trips over the thread that reads

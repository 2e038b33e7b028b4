"""Files that a kill, a full disk or another person may have left in any state.

Regular files only, read within bounds, replaced whole. Errors are the system's own, so that a
caller can tell what to do next; `write_atomic` alone names a remedy, since it is always the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from groupnorm_bench.errors import RunFolderError

_TEMPORARY = re.compile(r"\.(?P<name>.+)-[a-z0-9_]{8}")
"""`.result.json-1a2b3c4d`; those of version 0.1.0, which had underscores too, are meant as well."""
_READER_SECONDS = 5.0
"""How long a pipe is waited on: `gnbench report --out PIPE & cat PIPE` starts both at once."""
_NO_LINK = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


def open_regular(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a file without being held up by what is none; returns its descriptor.

    Args:
        path: the file.
        flags: `O_NOFOLLOW` among them refuses a symbolic link too.
        mode: of a file that `O_CREAT` makes; the umask is obeyed.

    Raises:
        OSError: it is a pipe, a device, a socket or a folder; or as `os.open`.
    """
    with contextlib.suppress(FileNotFoundError):  # looked at first: opening a device may move it
        _check_regular(os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW), path)
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    try:
        _check_regular(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_regular(found: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def read_bounded(path: Path | str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        OSError: it is longer, or no regular file; or as `os.open`.
    """
    handle = open_regular(path)
    try:
        size = os.fstat(handle).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"is larger than {limit:,} bytes", str(path))
        return os.read(handle, size)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes, option: str = "out") -> None:
    """Write a file whole or not at all, and for good: a power cut later does not undo it.

    A temporary beside it, fsync, rename, fsync of the folder. Its mode is what the umask leaves.

    Args:
        path: the file.
        content: its bytes.
        option: what names it or its folder, for the error's remedy.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    try:
        for _ in range(3):
            with contextlib.suppress(_SweptAwayError):
                return _replace(path, content)
        raise OSError(errno.EBUSY, "another process removes its temporary files")
    except OSError as error:
        raise RunFolderError(
            f"{path}: cannot be written: {error.strerror}; free space or choose another "
            f"--{option}, then type the command again"
        ) from error


def write_asked(path: Path, content: bytes, option: str) -> None:
    """Write the file that an option names: whole or not at all; in place where it is no file.

    Through a link to what it leads to, into a pipe or a device as into stdout: neither is replaced.

    Args:
        path: the file; folders on the way to it are made.
        content: its bytes.
        option: for the error, as `out`.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            _write_in_place(path, content)
            return
    except OSError as error:
        raise RunFolderError(
            f"{option}={str(path)!r} cannot be written: {error.strerror}; choose another --{option}"
        ) from error
    write_atomic(path, content, option)


def _write_in_place(path: Path, content: bytes) -> None:
    """Write into what a path leads to; a pipe that nobody reads for five seconds is an error."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    deadline = time.monotonic() + _READER_SECONDS
    while True:
        try:
            handle = os.open(path, flags, 0o666)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "nobody reads from this pipe") from error
        time.sleep(0.02)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


class _SweptAwayError(Exception):
    """`remove_temporaries` took a temporary in the moment between its making and its lock."""


def _replace(path: Path, content: bytes) -> None:
    temporary = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError):  # no locks here: then nothing is swept away either
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            try:
                os.replace(temporary, path)
            except FileNotFoundError as error:
                if path.parent.exists():
                    raise _SweptAwayError from error
                raise
    except BaseException:  # Ctrl-C too: no half-written file stays
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the disk keep a folder's entries as they are now.

    Raises:
        OSError: the disk failed.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # one may write into a folder that one may not list
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that sync no folders
            raise
    finally:
        os.close(handle)


def remove_temporaries(folder: Path, *, of: str | None = None) -> None:
    """Remove what killed writers left in a folder; one at work holds its temporary's lock.

    Args:
        folder: where to look.
        of: the file that was being written; any if None.
    """
    with contextlib.suppress(OSError):  # it is only tidying
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and of in (None, match["name"]) and entry.is_file(follow_symlinks=False):
                _remove_if_stale(entry.path)


def _remove_if_stale(path: str) -> None:
    with contextlib.suppress(OSError):
        handle = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(handle)


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a folder among the system's temporary files; it goes in the end, with all in it.

    It is locked meanwhile. One of the same prefix and user that nobody holds was left by a killed
    process, and goes as well.
    """
    _remove_abandoned(prefix)
    while True:
        folder = tempfile.mkdtemp(prefix=prefix)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.isdir(folder)
        except BlockingIOError:  # another process, which starts now too, takes it for abandoned
            is_ours = False
        except OSError:  # no locks here: then nobody does
            is_ours = True
        if is_ours:
            break
        os.close(handle)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _remove_abandoned(prefix: str) -> None:
    with contextlib.suppress(OSError):  # it is only tidying
        for entry in list(os.scandir(tempfile.gettempdir())):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(folder: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
        try:
            if os.fstat(handle).st_uid == os.geteuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def is_temporary(name: str) -> bool:
    """Return whether a file of this name is one that `write_atomic` has begun."""
    return _TEMPORARY.fullmatch(name) is not None

"""The claim on a run folder: flock on a file in it, so that a killed process lets go."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import time
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import open_regular

_WAIT_SECONDS = 0.2
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
"""What flock answers where another process holds the lock; anything else is no answer to that."""
_NAME_BYTES = 300


def take(path: Path) -> int:
    """Take the lock at `path`, made if need be; returns the descriptor that holds it.

    It is tried for a moment, since `is_held` holds it for an instant.

    Raises:
        RunFolderError: another process holds it, it is no regular file, or there are no locks here.
        OSError: it cannot be made.
    """
    handle = _open(path)
    deadline = time.monotonic() + _WAIT_SECONDS
    try:
        while not _try(handle, path):
            if time.monotonic() > deadline:
                raise RunFolderError(
                    f"{path.parent} is in use by {holder(path) or 'another process'}; wait for it "
                    "or stop it"
                )
            time.sleep(_WAIT_SECONDS / 20)
        _sign(handle)
    except BaseException:  # Ctrl-C too: nobody may wait for a handle that nobody has
        os.close(handle)
        raise
    return handle


def _open(path: Path) -> int:
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except PermissionError:  # another user's, in a shared folder: to hold it, reading is enough
        return open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)


def _try(handle: int, path: Path) -> bool:
    """Return whether the lock is ours now.

    Raises:
        RunFolderError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise RunFolderError(
            f"{path.parent}: its file system gives no locks ({error.strerror}), without which two "
            "processes may train one run; choose an --out on a local disk"
        ) from error
    return True


def _sign(handle: int) -> None:
    """Write down who holds the lock, for whoever waits; it holds without that, too."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {platform.node()}\n".encode(), 0)


def holder(path: Path) -> str:
    """Return who signed the lock last, as `process 123 on laptop`; "" if nobody did."""
    try:
        handle = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        number, _, host = os.read(handle, _NAME_BYTES).decode(errors="replace").partition(" ")
    finally:
        os.close(handle)
    host = "".join(letter for letter in host.strip() if letter.isprintable())
    return f"process {int(number)} on {host}" if number.isascii() and number.isdigit() else ""


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock now; False where that cannot be told."""
    try:
        handle = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(handle)
    return False

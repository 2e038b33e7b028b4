"""The claim on a run folder: flock on a file in it, so that a killed process lets go.

On file systems where flock is not to be had, or holds on one node only, see `exclusive`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import open_regular
from groupnorm_bench.runs import exclusive

_WAIT_SECONDS = 0.2
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
"""What flock answers where another process holds the lock; anything else is no answer to that."""
_NAME_BYTES = 300


@contextlib.contextmanager
def hold(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold the lock at `path`, made if need be, while entered.

    It is tried for a moment, since `is_held` holds it for an instant.

    Yields:
        whether it is held still: flock's is, an exclusive file may be lost.

    Raises:
        RunFolderError: another process holds it, or it is no regular file.
        OSError: it cannot be made.
    """
    handle = _open(path)
    try:
        if not exclusive.is_needed(path.parent) and _take(handle, path):
            _sign(handle)
            yield lambda: True
            return
        with exclusive.hold(path) as claim:
            _sign(handle)
            yield claim.is_ours
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> bool:
    """Take the lock; return False where there are no locks.

    Raises:
        RunFolderError: another process holds it.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _HELD:
                return False
        if time.monotonic() > deadline:
            raise RunFolderError(
                f"{path.parent} is in use by {holder(path) or 'another process'}; wait for it or "
                "stop it"
            )
        time.sleep(_WAIT_SECONDS / 20)


def _open(path: Path) -> int:
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except PermissionError:  # another user's, in a shared folder: to hold it, reading is enough
        return open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)


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
        if exclusive.is_needed(path.parent):
            return exclusive.is_held(path)
        handle = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD or exclusive.is_held(path)
    finally:
        os.close(handle)
    return False

"""A process that cleans up after a parent that was killed.

SIGKILL, also of a kernel short of memory, asks nobody: what we started would train on, and what we
put into temporary folders would stay. A leash is a child that reads from us; at the end of the
file, with no word that all is well, it ends the processes and removes the folder. As a script it
imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

GRACE_SECONDS = 30.0
"""How long processes have to save their work, from SIGTERM to SIGKILL."""
_ALL_IS_WELL = b"done"
_APART = "--apart"


class Leash:
    """While entered, a folder and some processes, each with a group of its own, outlive us not.

    Args:
        folder: removed where this process is killed.
        processes: their ids.
        apart: no child of ours, for whoever ends us may end our children as well.
    """

    def __init__(self, folder: Path, processes: list[int], *, apart: bool = False) -> None:
        self._arguments = [_APART] * apart + [str(folder), *map(str, processes)]

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-I", __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it was killed: then nothing is cleaned up after us
            self._child.communicate(_ALL_IS_WELL)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def main(folder: str, processes: list[int]) -> None:
    """Wait for the end of stdin; end the processes and remove the folder if it came unannounced."""
    if sys.stdin.buffer.read() == _ALL_IS_WELL:
        return
    for process in processes:
        with contextlib.suppress(OSError):  # it has ended
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(_is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        with contextlib.suppress(OSError):  # it has ended
            os.killpg(process, signal.SIGKILL)
    while os.path.exists(folder) and time.monotonic() < deadline + GRACE_SECONDS:
        shutil.rmtree(folder, ignore_errors=True)  # something may yet write to it
        time.sleep(0.1)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == _APART:
        del arguments[0]
        if os.fork():
            os._exit(0)
    main(arguments[0], list(map(int, arguments[1:])))

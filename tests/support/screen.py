"""A command in a real terminal, as pyte sees it: what stands on the screen, and when."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pyte

Seen = Callable[[str], bool]


class Terminal:
    """`gnbench ARGUMENTS` in a pseudo-terminal; used as a context, which ends it.

    Or Python's own arguments, with `module` None.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        columns: int = 80,
        rows: int = 30,
        module: str | None = "groupnorm_bench",
        **environment: str,
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=1_000)
        self._stream = pyte.ByteStream(self._screen)
        self.started = time.monotonic()
        self.exit_code: int | None = None
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.environ |= {"TERM": "xterm-256color"} | environment
            for name in ("COLUMNS", "LINES"):
                os.environ.pop(name, None)
            first = [] if module is None else ["-m", module]
            os.execv(sys.executable, [sys.executable, *first, *arguments])
        self._size(columns, rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.exit_code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def resize(self, columns: int, rows: int = 30) -> None:
        """Make the window another size."""
        self._screen.resize(rows, columns)
        self._size(columns, rows)
        os.kill(self._pid, signal.SIGWINCH)

    def press_ctrl_c(self) -> None:
        """Press it: the terminal sends the signal, and echoes ^C."""
        os.write(self._terminal, b"\x03")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._terminal, keys.encode())

    def text(self) -> str:
        """Return what stands on the screen and above it."""
        above = ["".join(line[c].data for c in range(self._screen.columns)) for line in self._above]
        return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).strip("\n")

    @property
    def _above(self) -> list[dict[int, pyte.screens.Char]]:
        return list(self._screen.history.top)

    def wait_for(self, seen: Seen | str, seconds: float = 60) -> str:
        """Return the text once it holds what is sought.

        Raises:
            AssertionError: it did not come, or the command ended before.
        """
        holds = (lambda text: seen in text) if isinstance(seen, str) else seen
        deadline = time.monotonic() + seconds
        while not holds(self.text()):
            assert self._read(deadline), self.text()
        return self.text()

    def wait(self, seconds: float = 120) -> str:
        """Return the text once the command has ended."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        _, status = os.waitpid(self._pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        return self.text()

    def look(self, seconds: float) -> str:
        """Return the text after some time more; the command must not have ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._read(deadline) or time.monotonic() >= deadline, self.text()
        return self.text()

    def _read(self, deadline: float) -> bool:
        """Take in what the command wrote; return whether it can write more."""
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._terminal], [], [], 0.05)
            if not ready:
                continue
            try:
                data = os.read(self._terminal, 65_536)
            except OSError:  # Linux's way to say that the other side is closed
                return False
            self._stream.feed(data)
            return bool(data)
        return False

    def _size(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

"""Standard streams that never end the work: a closed pipe, a full disk, a narrow encoding.

`gnbench train 2>&1 | head -1` closes our stderr after a line, and a job's log may lie on a full
disk. What is printed is of less worth than what is trained: what cannot be written is lost, and
`lost_output` tells of it at the end.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TextIO


class _Pipe(io.RawIOBase):
    """A file descriptor whose first error is kept, after which all that is written is lost."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None

    def write(self, content: object) -> int:
        view = memoryview(content)  # type: ignore[arg-type]
        left = view.cast("B")
        while len(left) and self.error is None:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
        return view.nbytes

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor


_ours: dict[str, tuple[_Pipe, TextIO]] = {}


def install() -> None:
    """Put our streams in place of `sys.stdout` and `sys.stderr`, for the rest of the process."""
    for descriptor in range(3):  # one that is closed would be given to the next file opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        before: TextIO | None = getattr(sys, name)
        pipe = _Pipe(descriptor)
        stream = io.TextIOWrapper(
            io.BufferedWriter(pipe),
            encoding=before.encoding if before is not None else "utf-8",
            errors="backslashreplace",  # a name or an error may hold what the terminal cannot show
            line_buffering=name == "stderr" or pipe.isatty(),
        )
        if before is not None:
            before.flush()
        setattr(sys, name, stream)
        _ours[name] = (pipe, stream)


def lost_output() -> str | None:
    """Flush; return why a part of stdout could not be written, None where all is well.

    A reader that has gone (`gnbench compare | head`) wants no more of it, so that is well.
    """
    for pipe, stream in _ours.values():
        stream.flush()
        if pipe is _ours["stdout"][0] and pipe.error and pipe.error.errno != errno.EPIPE:
            return os.strerror(pipe.error.errno or 0)
    return None

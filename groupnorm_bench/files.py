"""Files that a kill, a full disk or another person may have left in any state."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from groupnorm_bench.errors import RunFolderError


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary beside it, fsync, then `os.replace`.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise RunFolderError(
            f"{path}: cannot be written: {error.strerror}; free space or choose another --out, "
            "then type the command again"
        ) from error

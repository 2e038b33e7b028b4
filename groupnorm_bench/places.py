"""A home for what libraries keep, where the user has none or may not write to it."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path


def ensure_home() -> None:
    """Set HOME where there is none, and the folders of libraries where it cannot be written.

    A container often runs under a number that no passwd knows; W&B's service, torch and
    matplotlib would then make a folder called `~`, or write their troubles to our stderr.
    """
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        os.environ["HOME"] = str(_own_folder())
        return
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    if not _is_writable(cache):
        os.environ.setdefault("WANDB_CACHE_DIR", str(_own_folder()))
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    if not _is_writable(data):
        os.environ.setdefault("WANDB_DATA_DIR", str(_own_folder()))
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    if not _is_writable(os.path.join(config, "matplotlib")):
        os.environ.setdefault("MPLCONFIGDIR", str(_own_folder()))


def _is_writable(folder: str) -> bool:
    """Return whether a folder can be written, or made."""
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.access(folder, os.W_OK | os.X_OK)


def _own_folder() -> Path:
    """Return a temporary folder of this user's, the same each time, which no other can write."""
    path = Path(tempfile.gettempdir()) / f"gnbench-home-{os.getuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o22:
            folder = tempfile.mkdtemp(prefix="gnbench-home-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return Path(folder)
    return path

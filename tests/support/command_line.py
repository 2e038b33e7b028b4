"""`gnbench` as a user runs it: a process of its own, with nothing of this machine to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "groupnorm_bench.cli"]


def start(*args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `gnbench *args` in `cwd`."""
    return subprocess.Popen(
        [*COMMAND, *args],
        cwd=cwd,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gnbench(*args: str, cwd: Path, env: dict[str, str] | None = None) -> Any:
    """Run `gnbench *args` in `cwd` to its end; returns a CompletedProcess of text."""
    process = start(*args, cwd=cwd, env=env)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(args, process.returncode, out, err)

"""What a killed parent leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, subprocess, sys, time
from pathlib import Path
from groupnorm_bench.leash import Leash
command = [sys.executable, "-c", {child!r}]
child = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
with Leash(Path(sys.argv[1]), [child.pid], apart={apart}):
    print(child.pid, flush=True)
    sys.stdin.read()
"""
SLEEPER = "import time; time.sleep(600)"
"""Ends by SIGTERM."""


@pytest.fixture(params=[False, True], ids=["a child", "apart"])
def parent(request: pytest.FixtureRequest, tmp_path: Path):
    """A process with a leash on a child and on a folder; and the child's id."""
    scratch = tmp_path / "scratch"
    (scratch / "deep").mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(child=SLEEPER, apart=request.param), str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    yield process, child, scratch
    process.kill()
    process.communicate()
    if is_alive(child):
        os.kill(child, signal.SIGKILL)


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def soon(condition, seconds=20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_killed_parents_children_and_folder_go(parent):
    process, child, scratch = parent
    time.sleep(0.5)  # until the leash is awake, which any parent with work gives it
    process.kill()
    assert soon(lambda: not is_alive(child))
    assert soon(lambda: not scratch.exists())


def test_where_all_is_well_the_leash_touches_nothing(parent):
    process, child, scratch = parent
    process.communicate("\n")
    assert process.returncode == 0
    time.sleep(0.5)
    assert is_alive(child)
    assert scratch.exists()

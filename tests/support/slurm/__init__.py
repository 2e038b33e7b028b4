"""Slurm for tests: stand-ins of its three commands, which can be told to answer oddly."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm import commands

_COMMAND = """#!/bin/sh
exec {python} -IS {script} {state} {name} "$@"
"""


class StandIns:
    """`sbatch`, `squeue` and `scancel` on PATH, whose jobs are processes of this machine.

    A file in `state` changes how they answer: see `commands`.
    """

    def __init__(self, folder: Path) -> None:
        self.state, self.bin = folder / "state", folder / "bin"
        self.state.mkdir(parents=True)
        self.bin.mkdir()
        for name in commands.COMMANDS:
            script = self.bin / name
            where = {"python": sys.executable, "script": commands.__file__, "state": self.state}
            script.write_text(_COMMAND.format(name=name, **where))
            script.chmod(0o755)

    def tell(self, what: str, value: object = "") -> None:
        """Have the commands answer oddly from now on."""
        (self.state / what).write_text(str(value))

    def untell(self, what: str) -> None:
        """Have them answer as they do again."""
        (self.state / what).unlink(missing_ok=True)

    @property
    def calls(self) -> list[list[str]]:
        """The commands typed so far, but for `squeue`."""
        log = self.state / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines]

    def submitted(self) -> list[list[str]]:
        """The arguments of each `sbatch` so far."""
        return [call[1:] for call in self.calls if call[0] == "sbatch"]

    def live(self) -> list[int]:
        """The processes of tasks that have not ended."""
        jobs = commands.jobs_in(str(self.state))
        return [pid for job in jobs for pid, _ in commands.live_tasks(job).values() if pid]

    def end(self) -> None:
        """Kill what is left of all tasks."""
        for pid in self.live():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def slurm_stand_ins(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandIns]:
    """Put stand-ins of Slurm's commands on PATH."""
    stand_ins = StandIns(tmp_path_factory.mktemp("slurm"))
    monkeypatch.setenv("PATH", f"{stand_ins.bin}:{os.environ['PATH']}")
    yield stand_ins
    stand_ins.end()

"""Slurm's own commands: `sbatch` to submit, `squeue` to look, `scancel` to end.

They are all that is asked of a site: no `sacct`, which needs a data base, and no rights.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groupnorm_bench.errors import ConfigError, GnbenchError

COMMANDS = ("sbatch", "squeue", "scancel")
SIGNAL_SECONDS = 60
"""How long before its time limit a task is asked to checkpoint."""
_FIRST, _LAST = 1.0, 10.0
"""Seconds between two looks at the queue: while something has just changed, and later."""
_PATIENCE = 300.0
"""Seconds that a command may take; `sbatch` itself tries again where the controller is busy."""
_NAME = re.compile(r"gnbench-([0-9a-f]{8})-(\d+)")
_FORMAT = "%F|%K|%j|%T|%r"
_TOO_LARGE = ("Invalid job array specification",)
_FULL = (
    *("job submit limit", "SubmitJob", "SubmitLimit", "Resource temporarily unavailable"),
    *("Unable to contact slurm controller", "timed out", "Zero Bytes were transmitted"),
)
"""Parts of refusals that may pass: a full queue, a limit on jobs, a busy controller."""
_HIDDEN = ("WANDB_API_KEY",)
"""Variables that do not travel with a job: a node uses its own credentials."""
_OF_HABIT = re.compile(r"SQUEUE_\w+|SCANCEL_\w+|SBATCH_WAIT")
"""What a user has set for commands typed by hand: tasks out of sight, an `sbatch` that waits."""


class SlurmRefused(GnbenchError):
    """A command of Slurm's ended with an error; the message is its own words."""

    @property
    def is_too_large(self) -> bool:
        """Whether a smaller array may be taken."""
        return any(words in str(self) for words in _TOO_LARGE)

    @property
    def may_pass(self) -> bool:
        """Whether fewer jobs, or the same ones later, may be taken."""
        return any(words in str(self) for words in _FULL)


@dataclass(frozen=True, slots=True)
class Queued:
    """A task that Slurm has not done with."""

    job: str
    """The number of its array, as `scancel` takes it."""
    batch: str
    number: int
    """Of the task within its batch; an array that was cut begins beyond 0."""
    state: str
    reason: str
    """Why it waits, in Slurm's words."""


def check_commands() -> None:
    """See that Slurm can be had from here.

    Raises:
        ConfigError: one of its commands is not on PATH.
    """
    for name in COMMANDS:
        if shutil.which(name) is None:
            raise ConfigError(
                f"executor=slurm needs {name}, which is not on PATH; type this on a machine of the "
                "cluster, or use --executor local"
            )


class SlurmQueue:
    """The queue, as far as it is ours; looked at seldom, since all users of a site share it."""

    def __init__(self) -> None:
        self.tasks: dict[tuple[str, int], Queued] = {}
        """By batch and number, as of the last look."""
        self.looked = -1.0
        """When that was, on the monotonic clock, before the answer came; it was told then."""
        self.problem: str | None = None
        """Why the last look came to nothing, where it did."""
        self._pause = _FIRST
        self._tried = -1.0

    def submit(
        self, batch: str, script: Path, first: int, count: int, options: Sequence[str]
    ) -> str:
        """Submit the tasks `first` to `first + count - 1` of a batch; return their job's number.

        Raises:
            SlurmRefused: Slurm does not take them.
        """
        log = script.parent / f"{first}-%a.log"
        said = _ask(
            [
                *("sbatch", "--parsable", *options, "--export=ALL", "--open-mode=append"),
                *(f"--array=0-{count - 1}", f"--job-name=gnbench-{batch}-{first}"),
                *(f"--signal=B:TERM@{SIGNAL_SECONDS}", f"--output={_literal(log)}"),
                *(str(script), str(first)),
            ]
        )
        self.hurry()
        return said.strip().partition(";")[0]

    def hurry(self) -> None:
        """Look again soon: something is about to change."""
        self._pause = _FIRST

    def look(self, *, now: bool = False) -> None:
        """See what Slurm has of ours, if it is time to; at once if `now`."""
        asked = time.monotonic()
        if not now and self._tried >= 0 and asked - self._tried < self._pause:
            return
        self._tried = asked
        self._pause = min(self._pause * 1.3, _LAST)
        try:
            said = _ask(
                ["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--format={_FORMAT}"]
            )
        except SlurmRefused as error:
            self.problem = str(error)
            return
        found = [_task_of(line) for line in said.splitlines()]
        self.tasks = {(task.batch, task.number): task for task in found if task is not None}
        self.problem, self.looked = None, asked

    def is_idle(self) -> bool:
        """Return whether Slurm has nothing of this user's at all, so that nothing will pass."""
        return not _ask(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i"]).strip()

    def cancel(self, jobs: Sequence[str]) -> None:
        """End these jobs: SIGTERM, and after the site's `KillWait` SIGKILL.

        Raises:
            SlurmRefused: Slurm does not.
        """
        if jobs:
            _ask(["scancel", *jobs])
        self.hurry()


def _literal(path: Path) -> str:
    """Return a path for `sbatch`, to which a percent sign in a folder's name means something."""
    return f"{str(path.parent).replace('%', '%%')}/{path.name}"


def _task_of(line: str) -> Queued | None:
    job, index, name, state, reason = [*line.strip().split("|"), "", "", "", ""][:5]
    ours = _NAME.fullmatch(name)
    if ours is None or not index.isdecimal():
        return None
    return Queued(job, ours[1], int(ours[2]) + int(index), state, reason)


def _ask(command: list[str]) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _HIDDEN and not _OF_HABIT.fullmatch(name)
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmRefused(f"{command[0]} timed out after {_PATIENCE:.0f} s") from error
    except OSError as error:
        raise SlurmRefused(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        raise SlurmRefused(_words(command[0], done.stderr) or f"{command[0]} gave no reason")
    return done.stdout


def _words(name: str, said: str) -> str:
    """Return what a command of Slurm's complained of, in one line."""
    lines = [line.removeprefix(f"{name}: ").removeprefix("error: ") for line in said.splitlines()]
    return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))[:400]

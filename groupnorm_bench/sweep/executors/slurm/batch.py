"""An array of jobs as a folder: what its tasks are to train, and what they tell of it.

`runs/.slurm/1a2b3c4d/` holds `order.json`, the script, and for each task its slice of the runs
(`3.todo`), its events (`3.said`), the answers to its questions (`3.told`) and its log. Nothing in
it is needed once the array is over: what was trained stands in the run folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import shutil
import site
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import groupnorm_bench
from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.files import read_bounded
from groupnorm_bench.runs import RunFolder, write_atomic
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.sweep.executors import EngineOptions
from groupnorm_bench.tracking.options import TrackingOptions

HOME = ".slurm"
"""The folder of batches, in the folder of runs."""
_MAX_BYTES = 2**28
_TASK = "groupnorm_bench.sweep.executors.slurm.task"
_SCRIPT = """#!/bin/sh
# One task of a sweep by gnbench; $1 is the number of the array's first.
cd {folder} || exit 1
export PYTHONSAFEPATH=1{path}
exec {python} -m {module} {batch} "$(($1 + SLURM_ARRAY_TASK_ID))"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What all tasks of a batch are told."""

    options: EngineOptions
    """Of each task's own workers: its slots are runs at a time within the task."""
    tasks: int
    asks: bool
    """Whether a run may be pruned, so that its task asks after every epoch."""

    def to_json(self) -> str:
        """Return the content of `order.json`."""
        options = self.options
        kept = {
            **{name: getattr(options, name) for name in _PLAIN},
            "runs_dir": str(options.runs_dir.absolute()),
            "data_dir": str(options.data_dir.absolute()),
            "tracking": dataclasses.asdict(options.tracking),
        }
        return json.dumps({"options": kept, "tasks": self.tasks, "asks": self.asks}, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> Order:
        """Read `order.json` back.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is of another kind.
        """
        document = json.loads(text)
        kept: dict[str, Any] = document["options"]
        tracking = {**kept["tracking"], "tags": tuple(kept["tracking"]["tags"])}
        options = EngineOptions(
            **{name: kept[name] for name in _PLAIN},
            runs_dir=Path(kept["runs_dir"]),
            data_dir=Path(kept["data_dir"]),
            tracking=TrackingOptions(**tracking),
        )
        return cls(options=options, tasks=int(document["tasks"]), asks=bool(document["asks"]))


_PLAIN = ("slots", "threads", "trial_timeout", "trial")


class Batch:
    """The folder of one array. Whoever holds its claim hears its tasks, and may remove it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def script(self) -> Path:
        return self.path / "task.sh"

    def todo(self, number: int) -> Path:
        """Return the path of a task's runs."""
        return self.path / f"{number}.todo"

    def said(self, number: int) -> Path:
        """Return the path of what a task tells."""
        return self.path / f"{number}.said"

    def told(self, number: int) -> Path:
        """Return the path of what a task is told."""
        return self.path / f"{number}.told"

    def claim(self) -> contextlib.AbstractContextManager[None]:
        """Hold the batch as a run folder is held.

        Raises:
            RunFolderError: another command holds it, or it cannot be made.
        """
        return RunFolder(self.path).claim()

    @property
    def claim_kind(self) -> str:
        """How this batch, and so its runs, are claimed: `flock` or `exclusive files`."""
        return RunFolder(self.path).claim_kind

    def write(self, order: Order, runs: Sequence[TrainConfig]) -> None:
        """Write all that the tasks need; task i of n trains every n-th run from the i-th on.

        Raises:
            RunFolderError: it cannot be written.
        """
        for number in range(order.tasks):
            lines = [json.dumps(run.to_dict()) + "\n" for run in runs[number :: order.tasks]]
            write_atomic(self.todo(number), "".join(lines).encode())
            # There from the beginning: a node may remember for a minute that a file was missing.
            for path in (self.said(number), self.told(number)):
                path.touch()
        write_atomic(self.path / "order.json", order.to_json().encode())
        write_atomic(self.script, _script_of(self.path).encode(errors="surrogateescape"))

    def read(self) -> Order:
        """Return what the tasks were told.

        Raises:
            RunFolderError: it cannot be read.
        """
        path = self.path / "order.json"
        try:
            return Order.from_json(read_bounded(path, _MAX_BYTES))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RunFolderError(f"{path} is not readable: {error}") from error

    def runs_of(self, number: int) -> list[TrainConfig]:
        """Return the runs of one task.

        Raises:
            RunFolderError: they cannot be read.
        """
        path = self.todo(number)
        try:
            lines = read_bounded(path, _MAX_BYTES).splitlines()
            return [make_config([json.loads(line)]) for line in lines]
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise RunFolderError(f"{path} is not readable: {error}") from error

    def last_words(self, number: int, lines: int = 40) -> str:
        """Return the end of a task's log, "" where there is none."""
        text = ""
        for path in sorted(self.path.glob("*-*.log")):
            first, _, index = path.stem.partition("-")
            if first.isdecimal() and index.isdecimal() and int(first) + int(index) == number:
                with contextlib.suppress(OSError):  # then it says nothing
                    text += read_bounded(path, _MAX_BYTES).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-lines:])

    def remove(self) -> None:
        """Remove the folder, and the folder of batches where it was the last."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds others
            self.path.parent.rmdir()


def new_batch(runs_dir: Path) -> Batch:
    """Return a batch of a new name; its folder is made when it is claimed."""
    return Batch(runs_dir.absolute() / HOME / secrets.token_hex(4))


def batches(runs_dir: Path) -> Iterator[Batch]:
    """Yield the batches that earlier commands have left."""
    home = runs_dir.absolute() / HOME
    with contextlib.suppress(FileNotFoundError):
        yield from [Batch(Path(entry.path)) for entry in os.scandir(home) if entry.is_dir()]


def _script_of(batch: Path) -> str:
    """Return the script of a task: this Python, this package, this working directory."""
    package = str(Path(groupnorm_bench.__file__).parent.parent)
    found_anyway = {*site.getsitepackages(), site.getusersitepackages()}
    # An empty part of PYTHONPATH is the working directory, in front of the standard library.
    path = f' PYTHONPATH={shlex.quote(package)}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    return _SCRIPT.format(
        folder=shlex.quote(os.getcwd()),
        path="" if package in found_anyway else path,
        python=shlex.quote(sys.executable),
        module=_TASK,
        batch=shlex.quote(str(batch)),
    )

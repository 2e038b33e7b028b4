"""W&B's own agents, one process per worker slot: started, watched, and stopped so that W&B knows.

`wandb agent` reports no failure and exits 0 whatever happened; of three failures in its first
minute it makes an end; and SIGTERM alone orphans its run. So: its own flapping rules are off, it
forwards signals (`-f`), and what became of the runs is read from folders and from W&B.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.leash import Leash
from groupnorm_bench.tracking.bounded import last_line, open_api, wandb_command
from groupnorm_bench.tracking.login import require_login
from groupnorm_bench.tracking.readback import split_path
from groupnorm_bench.tracking.variables import OF_ONE_RUN, without

OPEN_STATES = ("PENDING", "RUNNING", "PAUSED")
"""States of a W&B sweep that may yet hand out runs."""
_OF_OUR_CHECK = ("WANDB_SILENT", "WANDB_HTTP_TIMEOUT")
_KILL_TIERS = 3
"""Signals until a W&B agent kills its run: wait, terminate, kill."""


class SweepGoneError(TrackingError):
    """W&B has no such sweep: it was deleted, or never there."""


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """A W&B sweep as the public API tells it."""

    path: str
    url: str
    name: str
    state: str
    config: dict[str, Any]
    runs: dict[str, str]
    """W&B's id of each run to its state."""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    def count(self, *states: str) -> int:
        """Return how many of its runs are in one of these states."""
        return sum(state in states for state in self.runs.values())


def read_sweep(path: str) -> SweepStatus:
    """Ask W&B for a sweep.

    Raises:
        SweepGoneError: W&B has no such sweep.
        TrackingError: the path is malformed, or W&B gives no answer.
    """
    entity, project, sweep_id = split_path(path)
    if sweep_id is None:
        raise TrackingError(f"path={path!r} names no sweep; write ENTITY/PROJECT/SWEEP")
    try:
        with open_api() as api:
            sweep = api.sweep(f"{entity}/{project}/{sweep_id}")
            return SweepStatus(
                path=f"{entity}/{project}/{sweep_id}",
                url=sweep.url,
                name=sweep.config.get("name", sweep_id),
                state=sweep.state.upper(),
                config=dict(sweep.config),
                runs={run.id: run.state for run in sweep.runs},
            )
    except TrackingError as error:
        if "Could not find sweep" in str(error):
            raise SweepGoneError(f"W&B has no sweep {entity}/{project}/{sweep_id}") from error
        raise


class Agents:
    """`wandb agent` processes on one sweep. Leaving the context stops them.

    Args:
        path: ENTITY/PROJECT/SWEEP.
        workers: how many.
        runs_dir: where their runs keep folders.
        data_dir: where their runs find data sets.
        threads: processor threads of each run.
        devices: CUDA device per worker, in turn; none on a machine without.
        max_failures: an agent ends after so many failed runs in a row.
        count: runs that each agent does, at most.
    """

    def __init__(
        self,
        path: str,
        workers: int,
        *,
        runs_dir: Path,
        data_dir: Path,
        threads: int = 1,
        devices: Sequence[str] = (),
        max_failures: int = 5,
        count: int | None = None,
    ) -> None:
        self._path, self._workers, self._devices = path, workers, devices
        self._options = ["--forward-signals", f"--max-consecutive-failed-runs={max_failures}"]
        if count is not None:
            self._options.append(f"--count={count}")
        self._environment = _environment(runs_dir, data_dir, threads)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._scratch = Path(tempfile.mkdtemp(prefix="gnbench-agents-"))
        for slot in range(self._workers):
            environment = self._environment | {"WANDB_DIR": str(self._scratch)}
            if self._devices:
                device = self._devices[slot % len(self._devices)]
                environment["CUDA_VISIBLE_DEVICES"] = device
            with self._log(slot).open("wb") as log:
                process = subprocess.Popen(
                    wandb_command("agent", *self._options, self._path),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is ours to pass on
                )
            self._processes.append(process)
        self._leash = Leash(self._scratch, [process.pid for process in self._processes])
        self._leash.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._leash.__exit__(*error)

    def _log(self, slot: int) -> Path:
        return self._scratch / f"agent-{slot}.log"

    @property
    def alive(self) -> int:
        """How many are still at work."""
        return sum(process.poll() is None for process in self._processes)

    @property
    def failed_to_start(self) -> str | None:
        """What an agent said that ended with an error; they do so only where W&B has no sweep."""
        for slot, process in enumerate(self._processes):
            if (process.poll() or 0) > 0:  # below: a signal ended it, and its runs are lost
                return last_line(self._log(slot).read_text(errors="replace"))
        return None

    @property
    def gave_up(self) -> bool:
        """Whether one of them ended after too many failed runs in a row."""
        said = (self._log(slot).read_text(errors="replace") for slot in range(self._workers))
        return any("consecutive failed runs, shutting down" in text for text in said)

    def stop(self) -> None:
        """Have runs checkpoint and end, to be given out again, and the agents after them."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End agents and runs now."""
        for _ in range(_KILL_TIERS):
            self.stop()
            deadline = time.monotonic() + 1
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.05)
            if not self.alive:
                return
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(runs_dir: Path, data_dir: Path, threads: int) -> dict[str, str]:
    environment = without((*OF_ONE_RUN, *_OF_OUR_CHECK))
    here = str(Path(sys.executable).parent)  # W&B's agent finds `gnbench` on PATH
    return environment | {
        "PATH": os.pathsep.join([here, environment.get("PATH", os.defpath)]),
        "GNBENCH_RUNS_DIR": os.path.realpath(runs_dir),
        "GNBENCH_DATA_DIR": os.path.realpath(data_dir),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "WANDB_AGENT_DISABLE_FLAPPING": "true",
        "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000",
        "WANDB_SILENT": "true",
    }


def require_sweep(path: str) -> SweepStatus:
    """Return a sweep that agents can join.

    Raises:
        TrackingError: W&B refuses us, or the sweep is not there or over.
    """
    require_login()
    sweep = read_sweep(path)
    if not sweep.is_open:
        raise TrackingError(f"sweep {sweep.path} is {sweep.state.lower()}; see {sweep.url}")
    return sweep

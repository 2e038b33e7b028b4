"""Trials that keep `run_trial`'s contract with run folders and train nothing.

Workers import them by name. What a run does is chosen by its seed and by files in the folder that
the test gives as that of the data, wherever the run's own folder is, so that a test decides from
outside and a second attempt may fare better.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

from groupnorm_bench.errors import TrainingStopped
from groupnorm_bench.runs import SETTLED, RunFolder, RunResult

EPOCHS = 3


def row(epoch: int, seed: int) -> dict[str, float]:
    return {"epoch": epoch, "step": epoch * 10, "val/accuracy": 0.5 + epoch / 10 + seed / 1000}


def sleeper(config, *, runs_dir, data_dir, hooks, step_seconds=0.002, **_):
    """Take EPOCHS epochs of ten short steps; resume after the epochs that the folder has."""
    folder = RunFolder.of(runs_dir, config)
    with folder.claim():
        found = folder.read()
        if found is not None and found.status in SETTLED:
            return found
        with (data_dir / "begun.log").open("a") as log:
            log.write(f"{config.name} {os.getpid()}\n")
        result = found or RunResult(config=config, status="interrupted")
        folder.write(result.replace(status="interrupted"))
        for epoch in range(len(result.history) + 1, EPOCHS + 1):
            for step in range(10):
                time.sleep(step_seconds)
                hooks.on_step(epoch * 10 + step, 1.0, 0.5)
                if hooks.should_stop():
                    raise TrainingStopped("stopped")
            result = result.replace(history=[*result.history, row(epoch, config.seed)])
            folder.write(result)
            hooks.on_epoch(result.history[-1])
            if epoch < EPOCHS and hooks.should_prune(result.history[-1]):
                result = result.replace(status="pruned", summary={"status": "pruned"})
                folder.write(result)
                return result
        last = result.history[-1]["val/accuracy"]
        result = result.replace(
            status="finished", summary={"val/accuracy": last, "status": "finished"}
        )
        folder.write(result)
        return result


def slow_sleeper(config, **keywords):
    return sleeper(config, step_seconds=0.05, **keywords)


def very_slow_sleeper(config, **keywords):
    """Take 48 s, for a limit of a minute, which Slurm may cut by half, to come in between."""
    return sleeper(config, step_seconds=1.6, **keywords)


def _first_time(data_dir: Path, what: str) -> bool:
    """Return whether `what` happens for the first time in this test."""
    try:
        (data_dir / f"{what}.happened").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def troubled(config, *, data_dir, **keywords):
    """Seeds 1 to 5 have each their own trouble; even ones always, odd ones the first time only."""
    if config.seed == 1 and _first_time(data_dir, "kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 2:
        raise ValueError("no good\nat all")
    if config.seed == 3 and _first_time(data_dir, "raise"):
        raise RuntimeError("only once")
    if config.seed == 4:
        print("last words", file=sys.stderr, flush=True)
        os._exit(7)
    if config.seed == 5 and _first_time(data_dir, "memory"):
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        return bytearray(2**32)
    return sleeper(config, data_dir=data_dir, **keywords)


def hanging(config, *, data_dir, **keywords):
    """Seed 1 hangs in C, deaf to any request, the first time."""
    if config.seed == 1 and _first_time(data_dir, "hang"):
        time.sleep(3600)
    return sleeper(config, data_dir=data_dir, **keywords)


def parental(config, *, data_dir, **keywords):
    """Start a process that holds all that this one has open, and be killed the first time."""
    fork = multiprocessing.get_context("fork")
    fork.Process(target=_until_over, args=(data_dir / "over",), daemon=True).start()
    if _first_time(data_dir, "kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return sleeper(config, data_dir=data_dir, **keywords)


def _until_over(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os._exit(0)


def waiting(config, *, data_dir, **keywords):
    """Wait until the data folder holds `go`, without a step; stop when asked."""
    while not (data_dir / "go").exists():
        if keywords["hooks"].should_stop():
            raise TrainingStopped("stopped")
        time.sleep(0.05)
    return sleeper(config, data_dir=data_dir, **keywords)

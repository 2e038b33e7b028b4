"""Real trials with a fault before or around them; workers import them by name.

A fault is armed by a file in the runs folder, and most happen once: the file is taken away.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

from groupnorm_bench.sweep.executors.local.shared import run_shared_trial, shared_dataset


def _take(runs_dir: Path, fault: str) -> bool:
    """Return whether `fault` is armed, and disarm it."""
    try:
        (runs_dir / f"{fault}.armed").unlink()
    except FileNotFoundError:
        return False
    return True


def troubled(config, *, runs_dir, **keywords):
    """Raise, exhaust memory, or hang, each once, whichever run comes first; then train."""
    if _take(runs_dir, "raise"):
        raise ValueError("a trial that raises")
    if _take(runs_dir, "memory"):
        import torch

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
        torch.zeros(2**30)
    if _take(runs_dir, "hang"):
        while True:
            time.sleep(60)
    return run_shared_trial(config, runs_dir=runs_dir, **keywords)


def full_disk(config, *, runs_dir, data_dir, shared_dir, **keywords):
    """While armed, no file may grow beyond 100 kB, as on a full disk; a checkpoint is larger."""
    shared_dataset(config.dataset, data_dir, shared_dir)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if (runs_dir / "full.armed").exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        return run_shared_trial(
            config, runs_dir=runs_dir, data_dir=data_dir, shared_dir=shared_dir, **keywords
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def clock_set_back(config, **keywords):
    """The wall clock loses an hour at every look."""
    real, looks = time.time, iter(range(10**9))
    time.time = lambda: real() - 3600 * next(looks)
    try:
        return run_shared_trial(config, **keywords)
    finally:
        time.time = real

"""What an engine adds to a run, local workers and Ray side by side; and Ray's driver at 32 slots.

    python benchmarks/sweep_on_ray.py [--runs 100] [--slots 32] [--rounds 4]

Stub runs: one that returns at once gives the overhead of a run, one of five seconds the part of a
core that the driver takes. Prints tables for docs/scale.md; exits 1 if a limit is passed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

from sweep_running import Runs, nothing

from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EXECUTORS, EngineOptions
from groupnorm_bench.sweep.executors.protocol import Ended
from groupnorm_bench.sweep.scheduler import Reused, Scheduler
from groupnorm_bench.tracking.options import TrackingOptions

RUN_LIMIT = 0.15
"""Seconds that Ray may add to a run once its actors are warm."""
DRIVER_LIMIT = 0.10
"""Of a core, for the driver of 32 slots of runs of five seconds."""
WARM = 6
"""Runs that are left out: workers start."""


def five_seconds(config, *, hooks, **keywords):
    """A trial of five seconds and five epochs that trains nothing."""
    for epoch in range(1, 6):
        for step in range(10):
            time.sleep(0.1)
            hooks.on_step(10 * epoch + step, 1.0, 0.5)
        hooks.on_epoch({"epoch": epoch, "step": 10 * epoch, "val/accuracy": 0.5})
    return nothing(config, **keywords)


def work(engine: str, trial: str, runs: int, slots: int) -> tuple[list[float], list[float]]:
    """Return when each run ended, by the clock and in this process's own CPU seconds."""
    stamps, cpu = [], []

    def watch(event):
        if isinstance(event, Ended | Reused):
            stamps.append(time.perf_counter())
            cpu.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        options = EngineOptions(
            runs_dir=Path(folder) / "runs",
            data_dir=Path(folder),
            tracking=TrackingOptions(mode="disabled"),
            trial=f"sweep_on_ray:{trial}",
            slots=slots,
        )
        executor = EXECUTORS[engine].open(None, options, print)
        source = Runs(TrainConfig(norm="batch", dataset="mnist-5k"), runs)
        Scheduler(source, executor, Path(folder) / "runs", watch=watch).run()
    return stamps, cpu


def main() -> int:
    """Measure, print, and return 1 if a limit is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n")
    print("| one slot | seconds a run | CPU seconds of this process |\n| --- | --- | --- |")
    added = {}
    for engine in ("local", "ray"):
        stamps, cpu = work(engine, "nothing", given.runs, 1)
        gaps = sorted(after - before for before, after in itertools.pairwise(stamps[WARM:]))
        added[engine] = gaps[len(gaps) // 2]
        spent = (cpu[-1] - cpu[WARM]) / (len(cpu) - 1 - WARM)
        print(f"| {engine} | {added[engine]:.4f} | {spent:.4f} |", flush=True)
    stamps, cpu = work("ray", "five_seconds", given.slots * given.rounds, given.slots)
    first = given.slots  # from when all slots are at work
    share = (cpu[-1] - cpu[first]) / (stamps[-1] - stamps[first])
    print(f"\ndriver of {given.slots} slots of 5 s runs: {share:.1%} of a core")
    print(f"load after: {os.getloadavg()[0]:.2f}")
    return 0 if added["ray"] <= RUN_LIMIT and share <= DRIVER_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the scheduler and its workers cost, and what a second worker gains.

    python benchmarks/sweep_running.py

Prints Markdown tables for docs/scheduler.md and exits 1 if a limit is passed. Everything runs on
the bundled digits. Nothing else should run on the machine meanwhile: the load is printed.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from groupnorm_bench.runs import RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig

SHORT_LIMIT = 0.3
"""Seconds that a sweep may add to a short trial."""
LONG_LIMIT = 0.05
"""The part of a 10 s trial that a sweep may add."""
SPEEDUP_LIMIT = 1.6
NOTHING_RUNS = 200
PAIRS = 15
SCALING_RUNS = 32  # enough that starting the workers is a small part, as in a real sweep
SCALING_SWEEP = f"""
name: scaling
method: grid
parameters:
  norm: {{value: group}}
  batch_size: {{value: 32}}
  dataset: {{value: mnist-5k}}
  epochs: {{value: 1}}
  seed: {{min: 0, max: {SCALING_RUNS - 1}}}
"""


class Runs:
    """A source of runs that are alike but for the seed."""

    def __init__(self, config: TrainConfig, count: int) -> None:
        self._runs = iter([config.replace(seed=seed) for seed in range(count)])

    def next(self):
        return next(self._runs, None)

    def report(self, config, row):
        return False

    def done(self, config, result):
        pass


def nothing(config, *, runs_dir, **_):
    """A trial that trains nothing: claims its folder and writes a result."""
    folder = RunFolder.of(runs_dir, config)
    with folder.claim():
        result = RunResult(config=config, status="finished", summary={"val/accuracy": 0.5})
        folder.write(result)
        return result


def seconds_of_pool_and_scheduler() -> float:
    """Return what the scheduler, the pipe and the worker's loop take of a run. Median."""
    from groupnorm_bench.sweep.executors import EXECUTORS, EngineOptions
    from groupnorm_bench.sweep.executors.protocol import Ended
    from groupnorm_bench.sweep.scheduler import Reused, Scheduler
    from groupnorm_bench.tracking.options import TrackingOptions

    config = TrainConfig(norm="batch", dataset="mnist-5k")
    stamps = []

    def watch(event):
        if isinstance(event, Ended | Reused):  # no step was made: the scheduler says reused
            stamps.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options = EngineOptions(
            runs_dir=Path(folder),
            data_dir=Path(folder),
            tracking=TrackingOptions(mode="disabled"),
            trial="sweep_running:nothing",
        )
        executor = EXECUTORS["local"].open(None, options, print)
        Scheduler(Runs(config, NOTHING_RUNS), executor, Path(folder), watch=watch).run()
    return statistics.median(after - before for before, after in itertools.pairwise(stamps))


def seconds_of_keeping() -> tuple[float, float]:
    """Return what W&B and the run folder add to a training, and the training itself. Medians.

    The same run is trained bare and as a trial, in turn, so that both see the same machine.
    """
    import torch

    from groupnorm_bench.datasets.load import load_dataset
    from groupnorm_bench.tracking.options import TrackingOptions
    from groupnorm_bench.training.loop import train
    from groupnorm_bench.trial import run_trial

    torch.set_num_threads(1)
    dataset = load_dataset("mnist-5k", Path())
    config = TrainConfig(norm="group", dataset="mnist-5k", train_limit=1000, epochs=1)
    added, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(PAIRS + 2):  # the first two warm up torch and start W&B
            run = config.replace(seed=seed)
            started = time.perf_counter()
            train(run, dataset)
            trained = time.perf_counter()
            options = TrackingOptions(mode="offline")
            run_trial(run, runs_dir=Path(folder), dataset=dataset, tracking=options)
            kept = time.perf_counter()
            bare.append(trained - started)
            added.append((kept - trained) - (trained - started))
    return statistics.median(added[2:]), statistics.median(bare[2:])


def seconds_of_sweep(workers: int, threads: int) -> tuple[float, float]:
    """Return the seconds of a whole `gnbench sweep`, from Enter to the prompt, and of its runs."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scaling.yaml").write_text(SCALING_SWEEP)
        started = time.perf_counter()
        process = subprocess.run(
            [
                *(sys.executable, "-m", "groupnorm_bench.cli", "sweep", "scaling.yaml", "--json"),
                *("--workers", str(workers), "--threads", str(threads)),
                *("--wandb", "offline", "--quiet"),
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.perf_counter() - started
        return seconds, json.loads(process.stdout)["seconds"]


def main() -> int:
    """Measure everything, print it, and return 1 if a limit is passed."""
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n")
    pool = seconds_of_pool_and_scheduler()
    keeping, bare = seconds_of_keeping()
    overhead = pool + keeping
    print("| a run's overhead | seconds |\n| --- | --- |")
    print(f"| scheduler, pipe, worker's loop | {pool:.4f} |")
    print(f"| W&B offline, folder, checkpoint, beside {bare:.2f} s of training | {keeping:.3f} |")
    print(f"| together | {overhead:.3f} |")
    print(f"| as a part of a 10 s trial | {overhead / 10:.1%} |\n")
    print(f"| {SCALING_RUNS} one-epoch trials | seconds | of it at work |\n| --- | --- | --- |")
    times = {}
    for workers, threads in ((1, 1), (1, 2), (2, 1)):
        total, working = times[workers, threads] = seconds_of_sweep(workers, threads)
        print(f"| {workers} x {threads} (workers x threads) | {total:.1f} | {working:.1f} |")
    speedup = times[1, 1][0] / times[2, 1][0]
    against_threads = times[1, 2][0] / times[2, 1][0]
    print(
        f"\n2 workers: {speedup:.2f} times one worker of one thread, {against_threads:.2f} of two"
    )
    print(f"load after: {os.getloadavg()[0]:.2f}")
    held = (
        overhead <= SHORT_LIMIT
        and overhead / 10 <= LONG_LIMIT
        and speedup >= SPEEDUP_LIMIT
        and against_threads >= 1
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

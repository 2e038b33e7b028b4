"""How long planning takes: big grids, and a plan over 10,000 run folders that exist already.

    python benchmarks/sweep_planning.py

Each measurement is a process of its own, so that its memory is its own. Seconds are the
processor's: planning is one thread that waits for nothing but files in the page cache, so on an
idle machine they are the clock's, and on a busy one they stay honest. Prints a Markdown table for
docs/sweeps.md and exits 1 if a limit is passed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMITS = {
    # name: (seconds, MB)
    "plan 100,000 points": (2.0, 500),
    "plan 1,000,000 points": (2.0, 500),
    "build 100,000 runs, as a sweep hands them out": (None, 500),
    "read 10,000 run folders": (3.0, 500),
    "plan 10,000 runs, all found": (2.0, 500),
}
REPEATS = 3
GRID = """\
method: grid
parameters:
  norm: {{values: [none, batch, group, layer]}}
  num_groups: {{values: [1, 2, 4, 8, 16]}}
  batch_size: {{min: 2, max: {batch_sizes}}}
  lr: {{values: [{lrs}]}}
  seed: {{min: 0, max: {last_seed}}}
"""


def write_grid(folder: Path, *, batch_sizes: int, lrs: int, seeds: int) -> Path:
    """Write a sweep file of 20 x `batch_sizes` x `lrs` x `seeds` points."""
    path = folder / f"grid-{batch_sizes}-{lrs}-{seeds}.yaml"
    rates = ", ".join(f"{0.0001 * (i + 1):.4f}" for i in range(lrs))
    text = GRID.format(batch_sizes=batch_sizes + 1, lrs=rates, last_seed=seeds - 1)
    path.write_text(text)
    return path


def plan_of(path: Path, runs_dir: Path | None = None):
    from groupnorm_bench.runs import find_runs
    from groupnorm_bench.settings.config import TrainConfig
    from groupnorm_bench.sweep.file.spec import read_spec
    from groupnorm_bench.sweep.plan.plan import build_plan

    found = find_runs([runs_dir])[0] if runs_dir is not None else []
    started = time.process_time()
    plan = build_plan(read_spec(path), base=TrainConfig(dataset="mnist-5k"), found=found)
    return plan, time.process_time() - started


def write_runs(path: Path, runs_dir: Path) -> None:
    """Write the folder of every run of a plan: five epochs, 22 numbers each, as training does."""
    from groupnorm_bench.runs import RunFolder, RunResult

    plan, _ = plan_of(path)
    row = {f"norm/norm1/number_{i}": 0.123456789 * i for i in range(22)} | {"val/accuracy": 0.98}
    history = [{"epoch": epoch, **row} for epoch in range(1, 6)]
    environment = {f"key_{i}": "a version, a host or a command" for i in range(12)}
    for config in plan.todo():
        folder = RunFolder.of(runs_dir, config)
        folder.path.mkdir(parents=True)
        result = RunResult(
            config=config, status="finished", history=history, environment=environment
        )
        folder.result_path.write_text(result.to_json())


def measure(name: str, folder: Path) -> float:
    """Do what `name` says once and return its seconds."""
    if name == "plan 100,000 points":
        path = write_grid(folder, batch_sizes=100, lrs=10, seeds=5)
        plan, seconds = plan_of(path)
        assert plan.grid_points == 100_000
        return seconds
    if name == "plan 1,000,000 points":
        path = write_grid(folder, batch_sizes=1_000, lrs=10, seeds=5)
        plan, seconds = plan_of(path)
        assert plan.grid_points == 1_000_000
        return seconds
    if name.startswith("build"):
        plan, _ = plan_of(write_grid(folder, batch_sizes=250, lrs=10, seeds=5))
        started = time.process_time()
        assert sum(1 for _ in plan.todo()) == 100_000
        return time.process_time() - started
    path, runs_dir = ready_runs(folder)
    if name.startswith("read"):
        from groupnorm_bench.runs import find_runs

        started = time.process_time()
        found, problems = find_runs([runs_dir])
        seconds = time.process_time() - started
        assert len(found) == 10_000
        assert not problems
        return seconds
    plan, seconds = plan_of(path, runs_dir)
    assert (plan.num_reused, plan.num_todo) == (10_000, 0)
    return seconds


def ready_runs(folder: Path) -> tuple[Path, Path]:
    path, runs_dir = write_grid(folder, batch_sizes=25, lrs=10, seeds=5), folder / "runs"
    if not runs_dir.exists():
        write_runs(path, runs_dir)
    return path, runs_dir


def main() -> int:
    passed = True
    print("| what | processor seconds (best of 3) | limit | peak memory |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        ready_runs(Path(folder))
        for name, (most_seconds, most_mb) in LIMITS.items():
            rows = []
            for _ in range(REPEATS):
                command = [sys.executable, __file__, name, folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows.append(json.loads(done.stdout))
            seconds, mb = min(row[0] for row in rows), max(row[1] for row in rows)
            limit = "-" if most_seconds is None else f"{most_seconds:g}"
            print(f"| {name} | {seconds:.2f} | {limit} | {mb:.0f} MB |", flush=True)
            passed &= mb <= most_mb and (most_seconds is None or seconds <= most_seconds)
    return 0 if passed else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        seconds = measure(sys.argv[1], Path(sys.argv[2]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, peak]))
    else:
        sys.exit(main())

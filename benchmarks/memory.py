"""Memory of `gnbench train`, and of each further worker of a sweep, on the full MNIST.

    python benchmarks/memory.py --data-dir DATA

Memory that processes share is divided among them (PSS, every 0.1 s, the highest sum; Linux). A
further worker is the difference of a sweep with two of them to one with one. W&B is offline.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = """
name: memory
method: grid
parameters:
  norm: {value: group}
  batch_size: {value: 256}
  dataset: {value: mnist}
  max_steps: {value: 60}
  compile: {value: "%s"}
  seed: {min: 0, max: 5}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=os.environ.get("GNBENCH_DATA_DIR"))
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("--data-dir (or GNBENCH_DATA_DIR) must name the folder that has MNIST/raw")
    data_dir = str(Path(args.data_dir).resolve())
    train = ["train", "--dataset", "mnist", "--batch-size", "256", "--max-steps", "60"]
    print("| compile | gnbench train, MB | sweep of 1 worker | of 2 | a further worker |")
    print("| --- | --- | --- | --- | --- |")
    for setting in ("off", "on"):
        alone = peak_mb([*train, "--compile", setting], data_dir, setting)
        one, two = (
            peak_mb(["sweep", "sweep.yaml", "--workers", count], data_dir, setting)
            for count in "12"
        )
        cells = f"{alone:.0f} | {one:.0f} | {two:.0f} | {two - one:.0f}"
        print(f"| {setting} | {cells} |", flush=True)


def peak_mb(command: list[str], data_dir: str, setting: str) -> float:
    """Return the highest sum over a `gnbench` command and all that it started."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sweep.yaml").write_text(SWEEP % setting)
        quiet = ["--data-dir", data_dir, "--wandb", "offline", "--quiet"]
        process = subprocess.Popen(
            [sys.executable, "-m", "groupnorm_bench.cli", *command, *quiet],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_mb, session(process.pid))))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"gnbench {' '.join(command)}: exit {process.returncode}")
        return peak


def session(leader: int) -> list[Path]:
    """Return the /proc folders of the processes in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == leader:
            found.append(path)
    return found


def proportional_mb(process: Path) -> float:
    """Return a process's own memory and its part of what it shares."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


if __name__ == "__main__":
    main()

"""Test accuracy of bf16 against fp32 over paired seeds: one epoch each, batch size 64, 8 groups.

    python benchmarks/precision.py --data-dir DATA --out RUNS [--seeds 6] [--threads 1]

Typed again it goes on where it was, since each run is a run folder of `gnbench train`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=os.environ.get("GNBENCH_DATA_DIR"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--threads", default="1")
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("--data-dir (or GNBENCH_DATA_DIR) must name the folder that has MNIST/raw")
    print("| seed | fp32 | bf16 | difference, points |\n| --- | --- | --- | --- |")
    differences = []
    for seed in range(args.seeds):
        exact, rounded = (accuracy(precision, seed, args) for precision in ("fp32", "bf16"))
        differences.append(100 * (rounded - exact))
        print(f"| {seed} | {exact:.4f} | {rounded:.4f} | {differences[-1]:+.2f} |", flush=True)
    if len(differences) > 1:
        spread = statistics.stdev(differences)
        mean = statistics.mean(differences)
        print(f"\nbf16 - fp32: {mean:+.3f} points, sd {spread:.3f}, {len(differences)} pairs")


def accuracy(precision: str, seed: int, args: argparse.Namespace) -> float:
    """Train one run, or read the one that is there, and return its `test/accuracy`."""
    command = [sys.executable, "-m", "groupnorm_bench.cli", "train", "--dataset", "mnist"]
    command += ["--data-dir", args.data_dir, "--out", str(args.out), "--epochs", "1"]
    command += ["--precision", precision, "--seed", str(seed), "--threads", args.threads]
    command += ["--compile", "on", "--device", "cpu", "--wandb", "disabled", "--quiet", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)["summary"]["test/accuracy"]


if __name__ == "__main__":
    main()

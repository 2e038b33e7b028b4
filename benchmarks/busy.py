"""The speed of `gnbench train`, as typed, beside busy processes, as a share of its quiet speed.

    python benchmarks/busy.py [--repeats 5] [--neighbours 0 1 2] [-- OPTIONS OF gnbench train]

Each repeat trains on the bundled digits once beside each number of busy processes, which are of
normal priority and end with it; a share is taken within a repeat, then its median. With --sweep a
sweep of two workers is timed, from Enter to the prompt, instead of a training.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HOG = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
SWEEP = """
method: grid
parameters:
  norm: {values: [group, batch]}
  seed: {values: [0, 1, 2, 3]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, os.cpu_count() or 1])
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("options", nargs="*", help="of gnbench train, behind --")
    args = parser.parse_args()
    measure = sweep_rate if args.sweep else train_rate
    measure([])  # compiles, if nothing has
    rates: dict[int, list[float]] = {count: [] for count in args.neighbours}
    for repeat in range(args.repeats):
        for count in args.neighbours:
            with busy(count):
                rates[count].append(measure(args.options))
            print(f"{repeat + 1}: beside {count}: {rates[count][-1]:,.4g}", file=sys.stderr)
    unit = "runs a minute" if args.sweep else "images/s"
    print(f"| busy processes | {unit} (range) | of quiet |\n| --- | --- | --- |")
    quiet = rates[args.neighbours[0]]
    for count, values in rates.items():
        shares = [value / other for value, other in zip(values, quiet, strict=True)]
        print(
            f"| {count} | {statistics.median(values):,.4g} ({min(values):,.4g} to "
            f"{max(values):,.4g}) | {statistics.median(shares):.2f} |"
        )


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes busy meanwhile."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def train_rate(options: list[str]) -> float:
    """Return the images a second of a training's own phase."""
    with tempfile.TemporaryDirectory() as folder:
        document = gnbench("train", "--norm", "group", "--groups", "8", "--out", folder, *options)
    return document["summary"]["images_per_second"]


def sweep_rate(options: list[str]) -> float:
    """Return the runs a minute of a sweep of eight."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(SWEEP)
        started = time.monotonic()
        gnbench("sweep", str(path), "--workers", "2", "--out", f"{folder}/runs", *options)
    return 8 * 60 / (time.monotonic() - started)


def gnbench(*args: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "groupnorm_bench", *args, "--dataset", "mnist-5k"]
    command += ["--device", "cpu", "--wandb", "disabled", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()

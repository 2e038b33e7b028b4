"""A part of sweeps/norm.yaml, from Enter to the ranking, by this checkout and by an older one.

    python benchmarks/sweep_before.py --before CHECKOUT [--repeats 5] [--all] [--train] [--warm]

Two workers, the bundled digits, W&B off. The part is 9 of its 72 runs: none, batch and group norm
with 8 groups, at every batch size, for one seed; --all takes all 72. With --train it is one
`gnbench train --norm group --groups 8` instead, each time with an empty cache of compiled loops:
the first command ever; --warm has them there already. Prints a table with the memory of the
largest process; a ratio is taken within a repeat.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent.parent
PART = """
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, batch, group]}
  num_groups: {value: 8}
  batch_size: {values: [32, 128, 512]}
  seed: {value: 0}
"""


class Measured(NamedTuple):
    """Of one command."""

    seconds: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="an older checkout")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--warm", action="store_true", help="the cache of loops has all already")
    args = parser.parse_args()
    command = ["train", "--norm", "group", "--groups", "8"]
    if not args.train:
        command = ["sweep", "sweep.yaml", "--workers", "2"]
    if not args.train or args.warm:
        for side in (HERE, args.before):
            measured(side, command, args, PART)  # compiles, if nothing has
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n", flush=True)
    print(
        "| repeat | before, s | now, s | ratio | difference, s | before, MB | now, MB |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    pairs: list[tuple[Measured, Measured]] = []
    for repeat in range(args.repeats):
        sides = [HERE, args.before] if repeat % 2 else [args.before, HERE]
        found = {side: measured(side, command, args) for side in sides}
        pairs.append((found[args.before], found[HERE]))
        print(f"| {repeat + 1} | {_row([pairs[-1]])} |", flush=True)
    print(f"| median | {_row(pairs)} |")


def _row(pairs: list[tuple[Measured, Measured]]) -> str:
    old, new = ([pair[side] for pair in pairs] for side in (0, 1))
    before, now = (statistics.median(one.seconds for one in side) for side in (old, new))
    ratio = statistics.median(b.seconds / a.seconds for a, b in pairs)
    difference = statistics.median(b.seconds - a.seconds for a, b in pairs)
    peaks = " | ".join(f"{statistics.median(one.megabytes for one in s):.0f}" for s in (old, new))
    return f"{before:.1f} | {now:.1f} | {ratio:.2f} | {difference:+.1f} | {peaks}"


def measured(
    checkout: Path, command: list[str], args: argparse.Namespace, sweep: str | None = None
) -> Measured:
    """Return wall time and peak memory of a gnbench command in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        text = sweep or ((HERE / "sweeps/norm.yaml").read_text() if args.all else PART)
        (Path(folder) / "sweep.yaml").write_text(text)
        environment = os.environ | {"PYTHONPATH": str(checkout), "WANDB_MODE": "disabled"}
        if args.train and not args.warm:
            environment["NUMBA_CACHE_DIR"] = f"{folder}/loops"
        started = time.perf_counter()
        with (Path(folder) / "told").open("w+") as told:
            process = subprocess.Popen(
                [sys.executable, "-m", "groupnorm_bench.cli", *command, "--dataset", "mnist-5k"],
                cwd=folder,
                env=environment,
                stdout=told,
                stderr=told,
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            taken = time.perf_counter() - started
            told.seek(0)
            if process.returncode:
                raise SystemExit(f"{checkout}: {' '.join(command)} failed:\n{told.read()[-2000:]}")
        return Measured(taken, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()

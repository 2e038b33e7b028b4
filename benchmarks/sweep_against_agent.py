"""The same 24 short trials by `gnbench sweep` and by `wandb agent`, against the loopback server.

    python benchmarks/sweep_against_agent.py [--repeats 3] [--norm]

Both report online to the W&B server of the tests. W&B's agent starts a fresh `gnbench train` for
every trial, with all cores, one after the other. Prints a table; exits 1 above a third. --norm
takes the 72 runs of sweeps/norm.yaml, of five epochs, instead, and exits 1 above 0.15: the agent
trains 9 of them, which differ as the 72 do, and its time counts eight times.
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

CHECKOUT = Path(__file__).parent.parent


class Sweep(NamedTuple):
    """A sweep file's text, and the runs it makes."""

    text: str
    num_runs: int


_SHORT = """
name: twenty-four
project: groupnorm-bench
program: gnbench
command: [gnbench, train, --quiet, "${args}"]
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, batch, group]}
  num_groups: {value: 8}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  epochs: {value: 1}
  seed: {values: [0, 1, 2, 3, 4, 5, 6, 7]}
"""
_PART = """
name: nine
project: groupnorm-bench
program: gnbench
command: [gnbench, train, --quiet, "${args}"]
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, batch, group]}
  num_groups: {value: 8}
  batch_size: {values: [32, 128, 512]}
  dataset: {value: mnist-5k}
  seed: {value: 0}
"""
SWEEP = Sweep(_SHORT, 24)
NORM = Sweep(_PART, 9)
_ALL = (CHECKOUT / "sweeps/norm.yaml").read_text()
ALL = Sweep(f"{_ALL}  dataset: {{value: mnist-5k}}\n", 72)


def main() -> int:
    """Measure both, in turn, and return 1 if the limit is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--norm", action="store_true")
    args = parser.parse_args()
    ours, theirs, limit = (ALL, NORM, 0.15) if args.norm else (SWEEP, SWEEP, 1 / 3)
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n", flush=True)
    print("| repeat | gnbench sweep, s | wandb agent, s | ratio |\n| --- | --- | --- | --- |")
    ratios = []
    for repeat in range(args.repeats):
        mine = measured(by_sweep, ours)
        agent = measured(by_agent, theirs) * ours.num_runs / theirs.num_runs
        ratios.append(mine / agent)
        print(f"| {repeat + 1} | {mine:.1f} | {agent:.1f} | {ratios[-1]:.2f} |", flush=True)
    return 0 if statistics.median(ratios) <= limit else 1


def measured(way, sweep: Sweep) -> float:
    """Return the seconds of `way`, given an empty folder and the environment of a new server."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.support.wandb_server"]
        places = os.environ | {"PYTHONPATH": str(CHECKOUT)}
        server = subprocess.Popen(command, env=places, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            exported = server.stdout.readline().split()[1:]  # export NAME=value ...
            bin_dir = os.path.dirname(sys.executable)
            environment = os.environ | dict(pair.split("=", 1) for pair in exported)
            environment |= {"HOME": folder, "WANDB_ERROR_REPORTING": "false"}
            environment["PATH"] = os.pathsep.join([bin_dir, os.environ["PATH"]])
            (Path(folder) / "sweep.yaml").write_text(sweep.text)
            return way(folder, environment, sweep.num_runs)
        finally:
            server.terminate()
            server.wait()


def by_sweep(folder: str, environment: dict[str, str], count: int) -> float:
    """Return the seconds of our scheduler and its workers, from Enter to the prompt."""
    return seconds_of(
        ["gnbench", "sweep", "sweep.yaml", "--executor", "local"], folder, environment, count
    )


def by_agent(folder: str, environment: dict[str, str], count: int) -> float:
    """Return the seconds of one agent; making the sweep is not counted."""
    made = subprocess.run(
        ["wandb", "sweep", "sweep.yaml"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    path = next(line for line in made.stderr.splitlines() if "wandb agent" in line).split()[-1]
    return seconds_of(["wandb", "agent", path], folder, environment, count)


def seconds_of(command: list[str], folder: str, environment: dict[str, str], count: int) -> float:
    """Return the wall time of a command, whose finished runs are counted."""
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    finished = [
        path
        for path in Path(folder).rglob("result.json")
        if '"status": "finished"' in path.read_text()
    ]
    if done.returncode or len(finished) != count:
        raise SystemExit(
            f"{' '.join(command)}: exit {done.returncode}, {len(finished)} runs of {count}\n"
            f"{done.stderr[-2000:]}"
        )
    return seconds


if __name__ == "__main__":
    sys.exit(main())

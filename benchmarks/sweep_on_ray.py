"""What an engine adds to a run, all engines side by side; and Ray's command at 32 slots.

    python benchmarks/sweep_on_ray.py [--runs 60] [--agent-runs 10] [--slots 32] [--rounds 3]

Each engine in turn is typed as `gnbench sweep --executor ENGINE`, one slot, with a trial that
returns at once: the time from one result to the next is what the engine adds. Slurm is a real one
of one node on loopback where it is installed, else the tests' stand-ins of its commands; W&B's
agents ask the tests' server on loopback. Then stub runs of five seconds on Ray tell the part of a
core that the command takes. Prints tables for docs/scale.md; exits 1 if a limit is passed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from many_runs import OURS, SWEEP, TRIAL, state_of
from sweep_running import Runs, nothing

from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EXECUTORS, EngineOptions
from groupnorm_bench.sweep.executors.protocol import Ended
from groupnorm_bench.sweep.scheduler import Reused, Scheduler
from groupnorm_bench.tracking.options import TrackingOptions

RUN_LIMIT = 0.15
"""Seconds that Ray may add to a run once its actors are warm."""
DRIVER_LIMIT = 0.10
"""Of a core, for the command with 32 slots of runs of five seconds."""
WARM = 5
"""Runs that are left out: workers start."""


def five_seconds(config, *, hooks, **keywords):
    """A trial of five seconds and five epochs that trains nothing."""
    for epoch in range(1, 6):
        for step in range(10):
            time.sleep(0.1)
            hooks.on_step(10 * epoch + step, 1.0, 0.5)
        hooks.on_epoch({"epoch": epoch, "step": 10 * epoch, "val/accuracy": 0.5})
    return nothing(config, **keywords)


@contextlib.contextmanager
def at_hand(engine: str, home: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Start what an engine needs; yield its name, its options, and variables."""
    alone = ["--wandb", "disabled", "--workers", "1"]
    if engine == "wandb":
        from tests.support.wandb_server.server import API_KEY, WandbServer

        with WandbServer(home / "server.sqlite") as server:
            variables = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY, "HOME": str(home)}
            yield "wandb, agents on loopback", ["--workers", "1"], variables
    elif engine == "slurm":
        from tests.support.slurm import StandIns, real

        options = ["--wandb", "disabled", "--jobs", "1"]
        if real.is_installed():
            os.environ["SLURM_CONF"] = str(home / "slurm.conf")
            with real.real_slurm(home):
                yield "slurm, real, one node", options, {}
                real.left_in_queue()  # the daemons would leave a task's keeper behind
        else:
            path = f"{StandIns(home / 'slurm').bin}:{os.environ['PATH']}"
            yield "slurm, stand-ins", options, {"PATH": path}
    else:
        yield engine, alone, {}


def typed(engine: str, runs: int) -> tuple[str, float, float, float]:
    """Type a sweep of stub runs, and look at when each had its result.

    Returns:
        the engine's name; seconds until the first result; the median of seconds from one result to
        the next, once warm; processor seconds of the command a run, once warm.
    """
    with (
        tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as folder,
        at_hand(engine, Path(folder)) as (name, options, variables),
    ):
        work = Path(folder) / "work"
        work.mkdir()
        (work / "stub.py").write_text(TRIAL)
        sweep = SWEEP.format(rates=[0.1], last=(runs - 1) // 2)
        (work / "stub.yaml").write_text(f"name: stub\n{sweep}")
        began = time.time()
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "groupnorm_bench", "sweep", "stub.yaml", "--json"),
                *("--executor", engine, *options),
            ],
            cwd=work,
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        states: list[tuple[float, float]] = []
        while process.poll() is None:
            if state := state_of(process.pid):
                states.append((time.time(), state[1]))
            time.sleep(0.1)
        stdout, stderr = process.communicate()
        if process.returncode or json.loads(stdout)["finished"] != 2 * ((runs + 1) // 2):
            sys.exit(f"{name}: {stdout}{stderr}")
        ends = sorted(path.stat().st_mtime for path in work.glob("runs/*/result.json"))
    gaps = sorted(after - before for before, after in itertools.pairwise(ends[WARM:]))
    before, after = (next(s for at, s in states if at >= end) for end in (ends[WARM], ends[-2]))
    spent = (after - before) / (len(ends) - 2 - WARM)
    return name, ends[0] - began, gaps[len(gaps) // 2], spent


def command_share(slots: int, rounds: int) -> tuple[float, float]:
    """Return the part of a core that this process takes on Ray, all slots at runs of 5 s.

    Returns:
        as it was, and as it would be where no run waits for a core: processor seconds a run, times
        the runs in a second.
    """
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
            trial="sweep_on_ray:five_seconds",
            slots=slots,
        )
        executor = EXECUTORS["ray"].open(None, options, print)
        source = Runs(TrainConfig(norm="batch", dataset="mnist-5k"), slots * rounds)
        Scheduler(source, executor, Path(folder) / "runs", watch=watch).run()
    first = slots  # from when all slots are at work
    spent = cpu[-1] - cpu[first]
    return spent / (stamps[-1] - stamps[first]), spent / (len(cpu) - 1 - first) * slots / 5


def main() -> int:
    """Measure, print, and return 1 if a limit is passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--agent-runs", type=int, default=10, help="each takes seconds")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if min(given.runs, given.agent_runs) < WARM + 3:
        parser.error(f"--runs and --agent-runs are {WARM + 3} at least: the first {WARM} warm up")
    sys.path.insert(0, str(OURS))
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n")
    print("| one slot | seconds to the first result | seconds a run, warm | CPU seconds of it |")
    print("| --- | --- | --- | --- |")
    added = {}
    for engine in ("local", "ray", "slurm", "wandb"):
        runs = given.agent_runs if engine == "wandb" else given.runs
        name, first, added[engine], spent = typed(engine, runs)
        print(f"| {name} | {first:.1f} | {added[engine]:.3f} | {spent:.4f} |", flush=True)
    seen, share = command_share(given.slots, given.rounds) if given.slots else (0.0, 0.0)
    print(
        f"\ncommand of {given.slots} Ray slots of 5 s runs: {seen:.1%} of a core, {share:.1%} were "
        "no run to wait for one"
    )
    print(f"load after: {os.getloadavg()[0]:.2f}")
    return 0 if added["ray"] <= RUN_LIMIT and share <= DRIVER_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

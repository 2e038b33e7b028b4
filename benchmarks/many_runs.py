"""Tens of thousands of runs that return at once, through an engine, while workers are killed.

    python benchmarks/many_runs.py [--engine local] [--runs 10000] [--kill-every 5]

Types `gnbench sweep` on a terminal of its own, kills a worker at random every few seconds, and
looks at the command from outside: seconds a run, its own processor seconds, its memory as runs come
in, how long its live table stood still. Then every run must have its result, and nothing may be
left: no process, no scratch folder. Slurm is the tests' stand-ins of its commands. Prints a row for
docs/scale.md; exits 1 if a run is missing or something is left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

OURS = Path(__file__).parents[1]
TRIAL = """
def train(run):
    return {"score": 0.5 + 0.001 * (run.seed % 7)}
"""
CELLS = 100
SWEEP = """
method: grid
metric: {{name: score, goal: maximize}}
parameters:
  trial: {{value: "stub:train"}}
  norm: {{values: [batch, none]}}
  lr: {{values: {rates}}}
  seed: {{min: 0, max: {last}}}
"""
MARK = "GNBENCH_MANY_RUNS"


def marked(token: str) -> dict[int, bytes]:
    """Return the processes that carry a token in their environment, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or is another's
                if f"{MARK}={token}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes()
    return found


class Killer(threading.Thread):
    """Kills a worker every few seconds."""

    def __init__(self, token: str, every: float) -> None:
        super().__init__(daemon=True)
        self.token, self.every = token, every
        self.kills = 0
        self.over = threading.Event()

    def run(self) -> None:
        while self.every and not self.over.wait(self.every):
            workers = [pid for pid, line in marked(self.token).items() if b"spawn_main" in line]
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(workers), signal.SIGKILL)
                    self.kills += 1


def state_of(pid: int) -> tuple[float, float] | None:
    """Return a process's resident memory in MB and its processor seconds; None once it is over."""
    told = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return told and (int(told[1]) / 1024, ticks / os.sysconf("SC_CLK_TCK"))


def watched(command: list[str], home: Path, environment: dict[str, str], killer: Killer):
    """Run a command on a terminal; return what was seen of it.

    Returns:
        exit code, seconds; (runs done, MB, processor seconds) once a second; the times at which it
        drew; the last of its output.
    """
    ours, theirs = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=home, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    killer.start()
    states: list[tuple[int, float, float]] = []
    drawn: list[float] = []
    done, tail, due = 0, b"", began
    while True:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                chunk = os.read(ours, 2**16)
            except OSError:  # it has closed the terminal
                break
            drawn.append(time.monotonic())
            tail = (tail + chunk)[-20_000:]
            told = re.findall(rb"(\d+)/\d+ ", chunk)
            done = int(told[-1]) if told else done
        if time.monotonic() >= due and (state := state_of(process.pid)):
            due = time.monotonic() + 1
            states.append((done, *state))
    code = process.wait()
    killer.over.set()
    os.close(ours)
    return code, time.monotonic() - began, states, drawn, tail.decode(errors="replace")


def main() -> int:
    """Measure, print a row, and return 1 if something was lost or left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="local", choices=["local", "ray", "slurm"])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds; 0 for never")
    given = parser.parse_args()
    seeds = max(given.runs // CELLS, 1)
    home = Path(tempfile.mkdtemp(prefix="gm", dir="/tmp"))
    scratch = home / "t"
    scratch.mkdir()
    rates = [round(0.001 * (1 + i), 3) for i in range(CELLS // 2)]
    (home / "stub.py").write_text(TRIAL)
    (home / "many.yaml").write_text(SWEEP.format(rates=rates, last=seeds - 1))
    token = home.name
    environment = os.environ | {MARK: token, "TMPDIR": str(scratch), "TERM": "xterm"}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "LINES": "40"}
    gnbench = [sys.executable, "-P", "-m", "groupnorm_bench"]
    options = ["--executor", given.engine, "--wandb", "disabled", "--yes"]
    options += ["--jobs" if given.engine == "slurm" else "--workers", str(given.workers)]
    if given.engine == "slurm":
        sys.path.insert(0, str(OURS))
        from tests.support.slurm import StandIns

        environment["PATH"] = f"{StandIns(home / 'slurm').bin}:{environment['PATH']}"
    killer = Killer(token, given.kill_every)
    code, seconds, states, drawn, tail = watched(
        [*gnbench, "sweep", "many.yaml", *options], home, environment, killer
    )
    status = subprocess.run(
        [*gnbench, "status", "runs", "--json"], cwd=home, capture_output=True, check=True
    )
    counts = json.loads(status.stdout)["counts"]
    time.sleep(3)  # what ends by itself has ended
    left = [line for line in marked(token).values() if line]
    scratch_left = sorted(path.name for path in scratch.iterdir())
    runs = seeds * CELLS
    begun = next(state for state in states if state[0] >= runs / 10)
    heads = ["engine", "runs", "killed", "seconds a run", "CPU seconds of the command a run"]
    heads += ["MB at a tenth", "MB at the end", "table stood still, s: 99 %, most", "results"]
    gaps = sorted(after - before for before, after in itertools.pairwise(drawn))
    row = [given.engine, f"{runs:,}", str(killer.kills), f"{seconds / runs:.4f}"]
    row += [f"{(states[-1][2] - begun[2]) / (states[-1][0] - begun[0]):.4f}"]
    row += [f"{begun[1]:.0f}", f"{max(state[1] for state in states):.0f}"]
    row += [f"{gaps[int(0.99 * len(gaps))]:.1f}, {gaps[-1]:.1f}", str(counts)]
    for line in (heads, ["---"] * len(heads), row):
        print(f"| {' | '.join(line)} |")
    if code != 0:
        print(f"exit code {code}: {tail[-2000:]}")
    if left or scratch_left:
        print(f"left: {left} {scratch_left}")
    shutil.rmtree(home)
    return int(counts.get("finished") != runs or bool(left) or bool(scratch_left))


if __name__ == "__main__":
    sys.exit(main())

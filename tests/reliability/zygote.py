"""Runs `gnbench` many times without paying for the import of torch each time.

A process that has imported what commands import waits for requests and forks: the child becomes
the leader of a session of its own, takes the request's folder and environment, arms the fault
counter and runs `gnbench`, its threads and its exit functions to their end. From there on every
line of code is the one that a person's command runs; `tests/support/forks.py` says what is skipped.

So that a case costs little, the zygote has also built the command line, trained a moment at the
sizes of the campaigns (torch prepares each shape of a convolution once), and has an estimate of a
plan's time take two steps and a forest of importances ten trees. The bundled data set is cut to 250
digits, by another entry in the table of data sets: three parts of four of such a small run went
into reading and scoring the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.reliability import faults
from tests.support import forks

HUNG = -1000
"""The exit code of a command that was killed for taking too long."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    """Negative: the signal that killed it; `HUNG`."""
    out: str
    err: str
    session: int
    """Its process group: whatever is left of it has this session."""
    seconds: float
    """Of processor time, with those of its children that it waited for."""


class Zygote:
    """The requester's end; use it in a `with`."""

    def __enter__(self) -> Self:
        environment = os.environ | {"LD_PRELOAD": str(faults.library()), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.zygote"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the requester
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(
        self, args: Sequence[str], *, cwd: Path, env: dict[str, str], seconds: float = 60
    ) -> Done:
        """Run `gnbench *args` in `cwd` with exactly `env`; kill it after `seconds`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = cwd / "stdout.txt", cwd / "stderr.txt"
        request = {"args": list(args), "cwd": str(cwd), "env": env, "seconds": seconds}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return Done(
            answer["code"],
            out.read_text(errors="replace"),
            err.read_text(errors="replace"),
            answer["session"],
            answer["seconds"],
        )


def serve() -> dict[str, Any]:
    """Answer requests, to the end of the requester; return one, in the child that is to run it."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            return request
        code, used = _wait(child, time.monotonic() + request["seconds"])
        try:
            print(json.dumps({"code": code, "session": child, "seconds": used}), flush=True)
        except BrokenPipeError:
            break
    os._exit(0)


def _wait(child: int, deadline: float) -> tuple[int, float]:
    """Return the child's exit code and its seconds of processor time.

    It is killed at the deadline, and when the requester ends: requests come one at a time, so that
    there is nothing to read but the end.
    """
    pause, hung = 0.002, False
    while True:
        done, status, used = os.wait4(child, 0 if hung else os.WNOHANG)
        if done:
            code = HUNG if hung else os.waitstatus_to_exitcode(status)
            return code, used.ru_utime + used.ru_stime
        is_left = bool(select.select([0], [], [], 0)[0])
        if is_left or time.monotonic() > deadline:
            hung = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def become(request: dict[str, Any]) -> list[str]:
    """Turn this fork into the command that was asked for; return its arguments."""
    os.setsid()
    os.chdir(request["cwd"])
    for name in set(os.environ) - set(request["env"]):
        del os.environ[name]
    os.environ.update(request["env"])
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, "stdout.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        handle = os.open(name, flags, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    import tempfile

    tempfile.tempdir = None  # it was looked up in the zygote's environment
    arm_the_counter()
    forks.fork_workers(arm_the_counter)  # a worker has closed its log with the rest
    sys.argv = ["gnbench", *request["args"]]
    return list(request["args"])


def arm_the_counter() -> None:
    ctypes.CDLL(None).fault_arm()


def serve_and_run() -> None:
    from groupnorm_bench.cli.app import main

    main(become(serve()))


if __name__ == "__main__":
    forks.import_all()
    forks.cut_the_digits()
    forks.build_the_command_line()
    forks.shorten_what_takes_its_time()
    forks.train_a_moment()
    forks.freeze()
    forks.run_to_the_end(serve_and_run)

"""Runs `gnbench` many times without paying for the import of torch each time.

A process that has imported what commands import waits for requests and forks: the child becomes
the leader of a session of its own, takes the request's folder and environment, arms the fault
counter and runs `gnbench`, its threads and its exit functions to their end. From there on every
line of code is the one that a person's command runs. A sweep's workers are forked as well, where
Python would start a new interpreter and import torch: with nothing inherited but the handles that a
new interpreter gets, and with its first function. What is skipped is Python's own start and the
freeing of what it imported, nothing of ours.

So that a case costs little, the zygote has also built the command line, trained a moment at the
sizes of the campaigns (torch prepares each shape of a convolution once), and has an estimate of a
plan's time take two steps and a forest of importances ten trees. The bundled data set is cut to 250
digits, by another entry in the table of data sets: three parts of four of such a small run went
into reading and scoring the rest.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from tests.reliability import faults

IMPORTS = (
    *("encodings.unicode_escape", "jinja2", "joblib", "matplotlib.figure", "optuna"),
    *("plotly.graph_objects", "plotly.offline", "plotly.tools", "pydantic.type_adapter"),
    *("rich._emoji_codes", "rich.live", "rich.progress", "rich.table", "scipy.stats"),
    *("sklearn.ensemble", "torch.utils.serialization", "typer._adapters"),
)
"""What commands import beside all modules of ours."""
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
    ctypes.CDLL(None).fault_arm()
    _fork_workers()
    sys.argv = ["gnbench", *request["args"]]
    return list(request["args"])


def _fork_workers() -> None:
    """Have multiprocessing fork where it would start a new interpreter for a worker."""
    from multiprocessing import util

    start_interpreter = util.spawnv_passfds

    def start(path: Any, args: Sequence[Any], passed: Sequence[int]) -> int:
        command = next((str(arg) for arg in args if "spawn_main" in str(arg)), None)
        if command is None:  # multiprocessing's resource tracker
            return start_interpreter(path, args, passed)
        child = os.fork()
        if child:
            return child
        with contextlib.suppress(BaseException):
            _keep_only([0, 1, 2, *passed])
            ctypes.CDLL(None).fault_arm()  # its log was closed with the rest
            for number in signal.valid_signals():
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            sys.argv = [*sys.argv[:1], "--multiprocessing-fork"]
            exec(command, {})
        os._exit(1)

    util.spawnv_passfds = start


def run_to_the_end(args: list[str]) -> NoReturn:
    """Run `gnbench *args`, and leave as an interpreter does that has nothing to free."""
    from groupnorm_bench.cli.app import main

    code = 1
    try:
        main(args)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _keep_only(handles: list[int]) -> None:
    kept = sorted(set(handles))
    for low, high in zip(kept, [*kept[1:], 65536], strict=True):
        os.closerange(low + 1, high)


def _cut_the_digits() -> None:
    from groupnorm_bench.datasets import DATASETS, Counts
    from groupnorm_bench.datasets.files import Arrays

    spec = DATASETS["mnist-5k"]
    whole = spec.load(Path())
    few = Arrays(whole.images[::20].copy(), whole.labels[::20].copy())  # they lie by class
    counts = Counts(train=122, val=64, test=64)
    DATASETS["mnist-5k"] = dataclasses.replace(spec, counts=counts, load=lambda _: few)


def _import_all() -> None:
    import importlib
    import pkgutil

    import groupnorm_bench

    ours = pkgutil.walk_packages(groupnorm_bench.__path__, "groupnorm_bench.")
    names = [module.name for module in ours if not module.name.endswith("__main__")]
    for name in (*IMPORTS, *names):
        importlib.import_module(name)


def _build_the_command_line() -> None:
    import importlib

    home = importlib.import_module("groupnorm_bench.cli.app")
    built = home.get_command(home.app)
    home.get_command = lambda _: built  # type: ignore[attr-defined]


def _shorten_what_takes_its_time() -> None:
    from groupnorm_bench.compare import importance
    from groupnorm_bench.sweep import estimate

    estimate.PROBE_SECONDS, importance.TREES = 0.0, 10


def _train_a_moment() -> None:
    from groupnorm_bench.datasets.load import load_dataset
    from groupnorm_bench.settings.config import TrainConfig
    from groupnorm_bench.sweep import estimate

    data = load_dataset("mnist-5k", Path())
    for norm in ("none", "batch", "group"):
        for size in (32, 64):
            config = TrainConfig(norm=norm, batch_size=size, dataset="mnist-5k", train_limit=64)
            estimate.probe(config, data)


if __name__ == "__main__":
    _import_all()
    _cut_the_digits()
    _build_the_command_line()
    _shorten_what_takes_its_time()
    _train_a_moment()
    gc.collect()
    gc.freeze()  # else each child looks at everything imported, and copies its pages so
    run_to_the_end(become(serve()))

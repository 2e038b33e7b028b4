"""What a process does that imports everything once and forks for each command.

The import of torch and of what else commands need is most of the bill of a short command. A process
that has paid it forks: the child turns into the command and runs it to its end, its threads and its
exit functions included, by the product's own code. A sweep's workers are forked as well, where
Python would start a new interpreter. What is skipped is Python's own start and the freeing of what
it imported, nothing of ours.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import importlib
import os
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

IMPORTS = (
    *("encodings.unicode_escape", "jinja2", "joblib", "matplotlib.figure", "optuna"),
    *("plotly.graph_objects", "plotly.offline", "plotly.tools", "pydantic.type_adapter"),
    *("rich._emoji_codes", "rich.live", "rich.progress", "rich.table", "scipy.stats"),
    *("sklearn.ensemble", "torch.utils.serialization", "typer._adapters"),
)
"""What commands import beside all modules of ours."""


def import_all() -> None:
    """Import what commands need, and all modules of ours."""
    import groupnorm_bench

    ours = pkgutil.walk_packages(groupnorm_bench.__path__, "groupnorm_bench.")
    names = [module.name for module in ours if not module.name.endswith("__main__")]
    for name in (*IMPORTS, *names):
        importlib.import_module(name)


def build_the_command_line() -> None:
    """Build it once: each fork has it then."""
    home = importlib.import_module("groupnorm_bench.cli.app")
    built = home.get_command(home.app)
    home.get_command = lambda _: built  # type: ignore[attr-defined]


def shorten_what_takes_its_time() -> None:
    """An estimate of a plan's time takes two steps, a forest of importances ten trees."""
    from groupnorm_bench.compare import importance
    from groupnorm_bench.sweep import estimate

    estimate.PROBE_SECONDS, importance.TREES = 0.0, 10


def cut_the_digits() -> None:
    """Cut the bundled data set to 250 digits, by another entry in the table of data sets."""
    from groupnorm_bench.datasets import DATASETS, Counts
    from groupnorm_bench.datasets.files import Arrays

    spec = DATASETS["mnist-5k"]
    whole = spec.load(Path())
    few = Arrays(whole.images[::20].copy(), whole.labels[::20].copy())  # they lie by class
    counts = Counts(train=122, val=64, test=64)
    DATASETS["mnist-5k"] = dataclasses.replace(spec, counts=counts, load=lambda _: few)


def train_a_moment(sizes: Sequence[int] = (32, 64)) -> None:
    """Have torch prepare the convolutions of these batch sizes, which it does once in a process."""
    from groupnorm_bench.datasets.load import load_dataset
    from groupnorm_bench.settings.config import TrainConfig
    from groupnorm_bench.sweep import estimate

    data = load_dataset("mnist-5k", Path())
    for norm in ("none", "batch", "group"):
        for size in sizes:
            config = TrainConfig(norm=norm, batch_size=size, dataset="mnist-5k", train_limit=64)
            estimate.probe(config, data)


def freeze() -> None:
    """Put what was imported out of the collector's sight: else each fork copies its pages."""
    gc.collect()
    gc.freeze()


def fork_workers(at_start: Callable[[], object] = lambda: None) -> None:
    """Have multiprocessing fork where it would start a new interpreter for a worker.

    The worker has nothing inherited but the handles that a new interpreter gets, and its first
    function.

    Args:
        at_start: called in each worker, before anything else.
    """
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
            at_start()
            for number in signal.valid_signals():
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            sys.argv = [*sys.argv[:1], "--multiprocessing-fork"]
            exec(command, {})
        os._exit(1)

    util.spawnv_passfds = start


def run_to_the_end(main: Callable[[], object]) -> NoReturn:
    """Run a command, and leave as an interpreter does that has nothing to free."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
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

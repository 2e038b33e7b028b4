"""A run that a training function of the user's own does: `--trial package.module:train`."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groupnorm_bench.errors import (
    ConfigError,
    GnbenchError,
    TrainingDiverged,
    TrainingStopped,
    TrialError,
    one_line,
)
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.own import own_function
from groupnorm_bench.runs import TRIAL_CODE, RunFolder, RunResult
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.tracking.run import Tracker
from groupnorm_bench.training.device import peak_memory_mb, resolve_device
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.trial.attempt import Attempt
from groupnorm_bench.trial.guard import guarded, stdout_on_stderr
from groupnorm_bench.trial.handle import TrialRun, number, shown
from groupnorm_bench.wording import count, printable

HITS = "hits"
"""The key under which a function may return which items it got right."""
_WRITE_SHARE = 20
"""Rows are written to disk so that this takes at most one part in so many of the time."""


class OwnAttempt(Attempt):
    """One claimed run folder, and the function that fills it."""

    def __init__(
        self, config: OwnConfig, folder: RunFolder, hooks: Hooks, previous: RunResult | None
    ) -> None:
        from groupnorm_bench.training.build import norm_layer_of

        self._function = load_trial(config.trial)
        self._name = config.trial
        device = resolve_device(config.device)
        super().__init__(config, folder, hooks, previous, str(device))
        self._say = hooks.say
        goes_on = previous is not None and _is_filled(folder.own_checkpoint_dir)
        rows: list[EpochRow] = list(previous.history) if previous and goes_on else []
        self._trial_run = TrialRun(
            config,
            folder,
            device,
            norm_layer_of(config),
            rows=rows,
            on_row=self._on_row,
            on_save=self._write_rows,
            should_stop=hooks.should_stop,
        )
        self._tracker: Tracker | None = None
        self._next_write = -math.inf
        environment = self.result.environment | {TRIAL_CODE: code_of(self._function)}
        self.result = self.result.replace(history=list(rows), environment=environment)

    @property
    def history(self) -> list[EpochRow]:
        return self._trial_run.rows

    def begin(self) -> None:
        """Tell that the generators are seeded; how many steps there are, nobody knows."""
        self.hooks.note(f"{self._name}: torch, numpy and random are seeded with {self.config.seed}")
        self.hooks.on_start(0)

    def _train(self, tracker: Tracker) -> RunResult:
        self._tracker = tracker
        started = time.perf_counter()
        run = self._trial_run
        with guarded(self.config.seed, self._name, self._say):
            returned = self._called(run)
        if run.was_told == "stopped":
            self._write_rows()
            raise TrainingStopped(f"stopped after {len(run.rows)} logged epochs")
        if run.was_told == "pruned":
            self._settle("pruned", self._pruned_summary())
        else:
            summary, hits = checked(returned, self._name)
            summary.setdefault("train_seconds", time.perf_counter() - started)
            summary.setdefault("peak_memory_mb", peak_memory_mb(run.device))
            self._tell_of_unread()
            if hits is not None:
                self.folder.write_hits(hits)
            self._settle("finished", summary)
        tracker.summarize(self.result.summary)
        return self.result

    def _called(self, run: TrialRun) -> Any:
        try:
            return self._function(run)
        except GnbenchError:
            raise
        except SystemExit as error:
            raise TrialError(
                f"trial={self._name!r} called sys.exit({error.code!r}); return the metrics instead"
            ) from error
        except Exception as error:  # code of others may raise anything
            raise TrialError(
                f"trial={self._name!r} raised {printable(one_line(error))}; see "
                f"{self.folder.traceback_path}"
            ) from error

    def _on_row(self, row: EpochRow) -> bool:
        """Pass a row on; return whether hyperband stops the run at it."""
        assert self._tracker is not None
        self._tracker.log(row)
        self.hooks.on_epoch(row)
        if time.monotonic() > self._next_write:
            self._write_rows()
        return self.hooks.should_prune(row)

    def _write_rows(self) -> None:
        started = time.monotonic()
        self.result = self.result.replace(history=list(self.history))
        self.folder.write(self.result)
        self._next_write = started + _WRITE_SHARE * (time.monotonic() - started)

    def _pruned_summary(self) -> dict[str, Any]:
        last = self.history[-1] if self.history else {}
        return {name: value for name, value in last.items() if name != "epoch"}

    def _tell_of_unread(self) -> None:
        """Say which settings changed nothing, for they were not read."""
        unread = sorted(self._trial_run.settings.unread)
        if unread:
            self._say(f"{self._name} did not read {', '.join(unread)}: it changes nothing")


def load_trial(name: str) -> Callable[[TrialRun], Any]:
    """Import a training function.

    Raises:
        ConfigError: it cannot be imported, or does not take one argument.
    """
    usage = "it must be importable from here and callable with (run)"
    try:
        with stdout_on_stderr():
            function = own_function(name)
    except (Exception, SystemExit) as error:  # code of others may raise anything
        raise ConfigError(
            f"trial={name!r} cannot be imported: {one_line(error)}; {usage}"
        ) from error
    if not callable(function):
        raise ConfigError(f"trial={name!r} is {type(function).__name__}, no function; {usage}")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise ConfigError(f"trial={name!r} takes other arguments: {error}; {usage}") from error
    except ValueError:  # written in C: nothing tells
        pass
    return function


def checked(returned: Any, name: str) -> tuple[dict[str, Any], npt.NDArray[np.bool_] | None]:
    """Return what a function returned as a summary, and which items were right if it told.

    Raises:
        TrialError: it is no dictionary of metric names to numbers.
        TrainingDiverged: a metric is NaN or infinite.
    """
    if not isinstance(returned, Mapping) or not set(returned) - {HITS}:
        raise TrialError(
            f"trial={name!r} returned {shown(returned)}; return metrics by name, as "
            "{'dice': 0.71}"
        )
    try:
        summary = {key: number(key, value) for key, value in returned.items() if key != HITS}
        hits = _hits(returned[HITS]) if returned.get(HITS) is not None else None
    except TrialError as error:
        raise TrialError(f"trial={name!r} returned what is no result: {error}") from error
    for key, value in summary.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"{key} is {value}; leave out what is not defined")
    if hits is not None:
        accuracy = float(hits.mean())
        told = summary.setdefault("test/accuracy", accuracy)
        if not math.isclose(told, accuracy, abs_tol=1e-6):
            raise TrialError(
                f"trial={name!r} returned test/accuracy={told:g}, but {accuracy:g} of its hits are"
            )
        summary["test/num_images"] = len(hits)
    return dict(summary), hits


def _hits(value: Any) -> npt.NDArray[np.bool_]:
    """Return per-item outcomes as booleans, shape [items].

    Raises:
        TrialError: they are no row of zeros and ones.
    """
    try:
        array = np.asarray(value.detach().cpu().float() if hasattr(value, "detach") else value)
    except Exception as error:  # of another library, or rows of several lengths
        raise TrialError(f"hits={shown(value)} is no row of 0 and 1, one an item") from error
    if array.ndim != 1 or not array.size or not np.isin(array, (0, 1)).all():
        raise TrialError(f"hits of shape {array.shape} are no row of 0 and 1, one an item")
    return array.astype(bool)


def code_of(function: Callable[..., Any]) -> str:
    """Return which code a function is, as `study.py@1a2b3c4d`; "" where no file tells."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # an object that is called
        path = inspect.getsourcefile(type(function))
    return "" if path is None else _code_at(Path(path).absolute())


@functools.cache  # before the function imports more: the same in every run of every process
def _code_at(path: Path) -> str:
    """Hash a file, and those of modules beside and below it that it has imported by now."""
    origins = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files = {Path(origin) for origin in origins if origin and os.path.isfile(origin)}
    beside = {
        file
        for file in files
        if file.is_relative_to(path.parent) and "site-packages" not in file.parts
    }
    digest = hashlib.sha256()
    for file in sorted({path, *beside}):
        digest.update(file.name.encode() + b"\0")
        digest.update(file.read_bytes() if file.suffix == ".py" else b"")
    return f"{path.name}@{digest.hexdigest()[:8]}"


def of_other_code(name: str, results: Iterable[RunResult]) -> str:
    """Return a line on results that a function made when it was other code; "" if there are none.

    Nor where it cannot be imported: a result needs no code to be read.
    """
    try:
        now = code_of(load_trial(name))
    except ConfigError:
        return ""
    told = [result.environment.get(TRIAL_CODE) for result in results]
    others = sum(bool(code) and code != now for code in told)
    if not others:
        return ""
    made = f"{count(others, 'result')} {'was' if others == 1 else 'were'} made by other code"
    return f"{made} than {now} is now; compare keeps them apart, and another --out trains all anew"


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())

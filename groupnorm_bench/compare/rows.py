"""A run as a row: its arm, setting and metrics; and all the runs at hand as a table of rows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.order import (
    arm_by,
    arm_order,
    setting_key,
    setting_order,
    varying,
)
from groupnorm_bench.compare.where import parse_where
from groupnorm_bench.datasets import DATASETS
from groupnorm_bench.errors import CompareError, RunFolderError
from groupnorm_bench.metrics import EpochRow, metric_spec
from groupnorm_bench.notebooks import data_frame, html_table
from groupnorm_bench.runs import TRIAL_CODE, RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS, SETTINGS
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.wording import count, printable, setting_value

if TYPE_CHECKING:
    import pandas

_SHOWN = 20
"""Runs that a notebook shows of a table."""


def _number(value: Any) -> float | None:
    """Return what a file told, if it is a finite number; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with contextlib.suppress(OverflowError):  # of 5,000 digits
        return float(value) if math.isfinite(value) else None
    return None


OF_ROWS = ("arm", "cell", "name", "status", "code", "device", "source")
OF_ENVIRONMENTS = ("version", "commit", "torch", "threads", "device_name")
"""What `RunRow.value` knows besides settings and metrics."""


def code_of(told: Mapping[str, Any]) -> str:
    """Return what computed a run by what it tells of its environment."""
    commit = str(told.get("commit") or "")[:12]
    version = str(told.get("version") or "unknown")
    at = f"@{commit}" if commit else ""
    own = f", {told[TRIAL_CODE]}" if told.get(TRIAL_CODE) else ""
    return printable(f"{version}{at}, torch {told.get('torch', 'unknown')}{own}")


def threads_of(told: Mapping[str, Any]) -> int | None:
    """Return the threads that a run tells it trained on."""
    threads = told.get("threads")
    return threads if type(threads) is int and threads > 0 else None


def device_of(told: Mapping[str, Any], config: TrainConfig) -> str:
    """Return the device that a run tells of, or was to be computed on."""
    return printable(str(told.get("device") or config.device))


def timed_on(told: Mapping[str, Any], config: TrainConfig) -> str:
    """Return what a run's times depend on, as `cpu (Some CPU), 1 thread`."""
    name, threads = printable(str(told.get("device_name") or "")), threads_of(told)
    words = f"{device_of(told, config)} ({name})" if name else device_of(told, config)
    return words if threads is None else f"{words}, {count(threads, 'thread')}"


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run. Accuracies are fractions, times are seconds."""

    result: RunResult
    folder: RunFolder | None = None
    """Where it lies; None for a run read from W&B."""
    source: str = ""
    """The folder's path or the run's URL, for messages."""
    chosen: tuple[str, ...] = ()
    """Settings that were picked on validation, per arm: they are left out of `setting`."""
    called: str = ""
    """The arm's name where its own settings are among the chosen; else that of the result."""
    armed: tuple[str, ...] = ()
    """Settings, or columns of a table, that make the arm; the norm with its own if empty."""
    position: int = 0
    """Of its arm among the others, where `armed` makes it."""

    @cached_property
    def arm(self) -> str:
        if not self.armed:
            return self.called or self.result.arm
        return arm_by(self.config, self.armed)

    @property
    def factor(self) -> tuple[str, str]:
        """What the arms are values of, and this run's value: the norm, of any number of groups."""
        return (", ".join(self.armed), self.arm) if self.armed else ("norm", self.norm)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key of arms."""
        if not self.armed:
            return arm_order(self.config)
        live = self.config.cell_settings
        return setting_order({name: live.get(name) for name in self.armed})

    @cached_property
    def cell(self) -> str:
        return self.result.cell

    @cached_property
    def name(self) -> str:
        return self.result.config.name

    @property
    def config(self) -> TrainConfig:
        return self.result.config

    @property
    def cell_config(self) -> TrainConfig:
        """Its config but for the seed, which may be another run's: at hand in a pack, too."""
        return self.result.config

    @property
    def norm(self) -> str:
        return self.result.config.norm

    @property
    def seed(self) -> int:
        return self.result.seed

    @property
    def status(self) -> str:
        return self.result.status

    @property
    def history(self) -> list[EpochRow]:
        return self.result.history

    @cached_property
    def setting(self) -> dict[str, Any]:
        """All that makes the cell, except the arm's own settings and chosen ones."""
        own = ARM_SETTINGS if not self.armed or "norm" in self.armed else ()
        left_out = (*own, *self.armed, *self.chosen)
        return {k: v for k, v in self.config.cell_settings.items() if k not in left_out}

    @cached_property
    def setting_key(self) -> str:
        """The setting as a key for grouping."""
        return setting_key(self.setting)

    @property
    def told(self) -> dict[str, Any]:
        """Its settings and its seed, as it tells them."""
        return self.config.to_dict()

    @property
    def environment(self) -> dict[str, Any]:
        """Where it ran, as the run tells it."""
        return self.result.environment

    @property
    def summary_keys(self) -> Sequence[str]:
        """Names that its summary may have."""
        return tuple(self.result.summary)

    @cached_property
    def code(self) -> str:
        """What computed it: versions of gnbench and torch, the commit, the trial's file."""
        return code_of(self.environment)

    @property
    def threads(self) -> int | None:
        """Threads it trained on; None where it does not tell."""
        return threads_of(self.environment)

    @property
    def timed_on(self) -> str:
        """What its times depend on, as `cpu (Some CPU), 1 thread`."""
        return timed_on(self.environment, self.config)

    @property
    def device(self) -> str:
        return device_of(self.environment, self.config)

    def seen_as(self, **seen: Any) -> RunRow:
        """Return the row with another `chosen`, `called` or `armed`."""
        return replace(self, **seen)

    def whole(self) -> RunRow:
        """Return the row with all of its result at hand, read now where it was not."""
        return self

    def metric(self, name: str) -> float | None:
        """Return a summary metric, or None where it is missing or not finite."""
        return _number(self.result.summary.get(name))

    def printed(self, name: str) -> float | None:
        """Return a summary metric in the unit that people read: accuracies in per cent."""
        value = self.metric(name)
        return None if value is None else value * metric_spec(name).factor

    @property
    def seconds_per_epoch(self) -> float | None:
        """Training time of a pass over the data; a part of a pass at the end counts as such."""
        seconds = self.metric("train_seconds")
        if seconds is None or not self.history:
            return None
        first, last = (_number(self.history[i].get("images_seen")) for i in (0, -1))
        return seconds * first / last if first and last else seconds / len(self.history)

    def value(self, name: str) -> Any:
        """Return what `--where` and a table's column call `name`; inert settings are None."""
        if name in OF_ROWS:
            return getattr(self, name)
        if name in OF_ENVIRONMENTS:
            return self.environment.get(name)
        if name in SETTINGS:
            return None if name in self.config.inert else self.config.value(name)
        if name in (live := self.config.cell_settings):
            return live[name]
        return self.result.summary.get(name)

    def num_images(self, part: str) -> int | None:
        """Return how many images of `val` or `test` scores were measured on; None: nothing tells.

        Runs of 0.1.0 did not write it down: for the test images it follows from the hits, else
        from the data set.
        """
        told = self.result.summary.get(f"{part}/num_images")
        if type(told) is int and told > 0:
            return told
        if part == "test" and self._hits is not None:
            return len(self._hits)
        spec = DATASETS.get(self.config.dataset)
        return getattr(spec.counts, part) if spec else None

    def hits(self) -> npt.NDArray[np.bool_] | None:
        """Return which test images were right, shape [test images], or None if not kept."""
        return self._hits

    def misreads(self) -> npt.NDArray[np.int64] | None:
        """Return what each misread test image was taken for, -1 for the others: [test images].

        None where that was not kept.
        """
        hits = self.hits()
        if hits is None or self.folder is None:
            return None
        try:
            return self.folder.read_misreads(len(hits))
        except RunFolderError:
            return None  # a figure less

    @cached_property
    def _hits(self) -> npt.NDArray[np.bool_] | None:
        told = self.result.summary.get("test/num_images")
        return self._read_hits(told if type(told) is int and told > 0 else None)

    def _read_hits(self, images: int | None) -> npt.NDArray[np.bool_] | None:
        """Return the hits of so many images, or of as many as the hits tell themselves."""
        if self.folder is None:
            return None
        try:
            images = images or self._images_by_hits(self.folder)
            return self.folder.read_hits(images) if images else None
        except RunFolderError:
            return None  # verdicts stand without it: only "new digits" and McNemar are left out

    def _images_by_hits(self, folder: RunFolder) -> int:
        """Return the number of images packed in the hits: those right over the share right.

        Of a run that got none right, the data set's number, where as many bytes are there.
        """
        packed = folder.read_packed_hits()
        accuracy = self.metric("test/accuracy")
        if accuracy:
            return round(int(np.unpackbits(packed).sum()) / accuracy)
        spec = DATASETS.get(self.config.dataset)
        images = spec.counts.test if spec else 0
        return images if -(-images // 8) == len(packed) and not packed.any() else 0


_NAMES = (
    *("arm", "cell", "name", "status", "code", "version", "commit", "torch", "threads"),
    "device_name",
)


def armed_by(rows: Iterable[RunRow], names: tuple[str, ...]) -> tuple[RunRow, ...]:
    """Return the runs with these settings as what makes an arm, each arm in its place."""
    armed = [row.seen_as(armed=names) for row in rows]
    orders = {row.arm: row.order for row in armed}
    places = {arm: at for at, arm in enumerate(sorted(orders, key=lambda arm: orders[arm]))}
    return tuple(row.seen_as(position=places[row.arm]) for row in armed)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTable:
    """Runs at hand, in any status, and what was wrong with the rest."""

    rows: tuple[RunRow, ...]
    problems: tuple[str, ...] = ()
    """A line for each folder or run that could not be read."""
    chosen_on_reported: bool = False
    """Settings were chosen by the seeds that are left to report: no claim rests on them."""
    metric: str | None = None
    """What the runs of another program's table were measured by."""

    @property
    def is_of_networks(self) -> bool:
        """Whether gnbench trained every run itself: then batch sizes, epochs, layers are known."""
        configs = (row.cell_config for row in self.rows)
        return self.metric is None and not any(isinstance(config, OwnConfig) for config in configs)

    @property
    def finished(self) -> tuple[RunRow, ...]:
        """The runs that count: only those that trained to their end."""
        return tuple(row for row in self.rows if row.status == "finished")

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms with a finished or a diverged run, in the order tables show them."""
        settled = {row.arm: row for row in self.rows if row.status in ("finished", "diverged")}
        return tuple(sorted(settled, key=lambda arm: settled[arm].order))

    def records(self) -> tuple[list[str], list[list[Any]]]:
        """Return heads and rows: what each run is, its settings, its summary as kept."""
        settings = list(dict.fromkeys(name for row in self.rows for name in row.told))
        metrics = list(dict.fromkeys(name for row in self.rows for name in row.summary_keys))
        metrics = [name for name in metrics if name not in ("status", "error")]
        found: list[list[Any]] = []
        for row in self.rows:
            config = row.told
            values = [config.get(name) for name in settings]
            numbers = [row.metric(name) for name in metrics]
            found.append([row.name, row.arm, row.cell, row.status, *values, *numbers, row.code])
        return ["run", "arm", "cell", "status", *settings, *metrics, "code"], found

    def to_pandas(self) -> pandas.DataFrame:
        """Return the runs, a row each: the columns of `gnbench compare --runs-csv`.

        Raises:
            MissingPackage: there is no pandas.
        """
        return data_frame(*self.records())

    def _repr_html_(self) -> str:
        """What a notebook shows: the first runs by what sets them apart."""
        names = varying(row.setting for row in self.rows)
        metric = self.metric or "test/accuracy"
        spec = metric_spec(metric)
        heads = ["arm", *names, "seed", "status", spec.title]
        rows: list[list[Any]] = []
        for row in self.rows[:_SHOWN]:
            values = [setting_value(row.setting.get(name)) for name in names]
            rows.append([row.arm, *values, row.seed, row.status, spec.text(row.printed(metric))])
        more = f", the first {_SHOWN} of them here" if len(self.rows) > _SHOWN else ""
        numbers = ["seed", spec.title]
        return f"<p>{count(len(self.rows), 'run')}{more}</p>\n{html_table(heads, rows, numbers)}"

    def where(self, expression: str) -> RunTable:
        """Return the runs that `expression` holds for.

        Raises:
            CompareError: the expression is not clear, names what no run has, or leaves nothing.
        """
        summary_keys = {key for keys in {row.summary_keys for row in self.rows} for key in keys}
        every = {row.setting_key: row.setting for row in self.rows}
        settings = {name for setting in every.values() for name in setting}
        keeps = parse_where(expression, sorted({*SETTINGS, *_NAMES, *summary_keys, *settings}))
        rows = tuple(row for row in self.rows if keeps(row.value))
        if not rows:
            raise CompareError(f"where={expression!r} leaves no run of {len(self.rows)}; loosen it")
        return replace(self, rows=rows)

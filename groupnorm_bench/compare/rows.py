"""Runs as rows: read from run folders or W&B, filtered, checked, grouped into cells."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.where import parse_where
from groupnorm_bench.errors import CompareError, RunFolderError, TrackingError
from groupnorm_bench.runs import RunFolder, RunResult, find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS

_WANDB_PATH = re.compile(r"\w[\w.-]*/\w[\w.-]*(/(sweeps/)?\w+)?")
_LOWER_IS_BETTER = re.compile(r"loss|error|seconds|memory")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run. Accuracies are fractions, times are seconds."""

    result: RunResult
    folder: RunFolder | None = None
    """Where it lies; None for a run read from W&B."""
    source: str = ""
    """The folder's path or the run's URL, for messages."""
    chosen: tuple[str, ...] = ()
    """Settings that were picked on validation, per arm: they are left out of `setting`."""

    @cached_property
    def arm(self) -> str:
        return self.result.arm

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
    def norm(self) -> str:
        return self.result.config.norm

    @property
    def seed(self) -> int:
        return self.result.seed

    @property
    def status(self) -> str:
        return self.result.status

    @property
    def history(self) -> list[dict[str, float]]:
        return self.result.history

    @cached_property
    def setting(self) -> dict[str, Any]:
        """All that makes the cell, except the arm's own settings and chosen ones."""
        left_out = (*ARM_SETTINGS, *self.chosen)
        return {k: v for k, v in self.config.cell_settings.items() if k not in left_out}

    @cached_property
    def code(self) -> str:
        """What computed it: versions of gnbench and torch, and the commit."""
        told = self.result.environment
        commit = str(told.get("commit") or "")[:12]
        version = str(told.get("version") or "unknown")
        return f"{version}{'@' + commit if commit else ''}, torch {told.get('torch', 'unknown')}"

    @property
    def device(self) -> str:
        return str(self.result.environment.get("device") or self.config.device)

    def metric(self, name: str) -> float | None:
        """Return a summary metric, or None where it is missing or not finite."""
        value = self.result.summary.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) else None

    @property
    def seconds_per_epoch(self) -> float | None:
        """Training time of a pass over the data; a part of a pass at the end counts as such."""
        seconds = self.metric("train_seconds")
        if seconds is None or not self.history:
            return None
        first, last = (self.history[i].get("images_seen") for i in (0, -1))
        return seconds * first / last if first and last else seconds / len(self.history)

    def value(self, name: str) -> Any:
        """Return what `--where` and a table's column call `name`; inert settings are None."""
        if name in ("arm", "cell", "name", "status", "code", "device", "source"):
            return getattr(self, name)
        if name in ("version", "commit", "torch", "threads"):
            return self.result.environment.get(name)
        if name in SETTINGS:
            return None if name in self.config.inert else getattr(self.config, name)
        return self.result.summary.get(name)

    def hits(self) -> npt.NDArray[np.bool_] | None:
        """Return which test images were right, shape [test images], or None if not kept.

        The number of images follows from the accuracy: the file holds them packed to bytes.
        """
        return self._hits

    @cached_property
    def _hits(self) -> npt.NDArray[np.bool_] | None:
        accuracy = self.metric("test/accuracy")
        if self.folder is None or not accuracy:
            return None
        try:
            packed = np.load(self.folder.hits_path, allow_pickle=False)
            right = int(np.unpackbits(packed).sum()) if packed.dtype == np.uint8 else 0
            return self.folder.read_hits(round(right / accuracy))
        except (OSError, ValueError, EOFError, RunFolderError):
            return None  # verdicts stand without it: only "new digits" and McNemar are left out


SETTINGS: tuple[str, ...] = tuple(TrainConfig.__dataclass_fields__)
_NAMES = ("arm", "cell", "name", "status", "code", "version", "commit", "torch", "threads")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTable:
    """Runs at hand, in any status, and what was wrong with the rest."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    """A line for each folder or run that could not be read."""

    @property
    def finished(self) -> tuple[Row, ...]:
        """The runs that count: only those that trained to their end."""
        return tuple(row for row in self.rows if row.status == "finished")

    @property
    def statuses(self) -> Counter[str]:
        return Counter(row.status for row in self.rows)

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms with a finished or a diverged run, in the order tables show them."""
        settled = {row.arm: row for row in self.rows if row.status in ("finished", "diverged")}
        return tuple(sorted(settled, key=lambda arm: arm_order(settled[arm].config)))

    def where(self, expression: str) -> RunTable:
        """Return the runs that `expression` holds for.

        Raises:
            CompareError: the expression is not clear, names what no run has, or leaves nothing.
        """
        summary_keys = {key for row in self.rows for key in row.result.summary}
        keeps = parse_where(expression, sorted({*SETTINGS, *_NAMES, *summary_keys}))
        rows = tuple(row for row in self.rows if keeps(row.value))
        if not rows:
            raise CompareError(
                f"where={expression!r} leaves none of {len(self.rows)} runs; loosen it"
            )
        return RunTable(rows=rows, problems=self.problems)


def load_table(sources: Sequence[str | Path], where: str | None = None) -> RunTable:
    """Read runs from folders (of runs, or of one run) and from W&B, merged into one table.

    A folder reached twice counts once. Runs in every status are kept: see `RunTable.finished`.

    Args:
        sources: folders; or `ENTITY/PROJECT[/SWEEP]` on W&B, where there is no such folder.
        where: a filter, as in `batch_size<=32 and norm!=none`.

    Raises:
        RunFolderError: a folder does not exist.
        TrackingError: W&B refused, or has no such project or sweep.
        CompareError: no run was found, a run is there twice, or `where` is not clear.
    """
    rows: dict[str, Row] = {}
    problems: list[str] = []
    for source in sources:
        if not Path(source).is_dir() and _WANDB_PATH.fullmatch(str(source)):
            found, bad = _wandb_rows(str(source))
        else:
            runs, bad = find_runs([Path(source)])
            found = [
                Row(result=run.result, folder=run.folder, source=str(run.folder.path))
                for run in runs
            ]
        problems += bad
        for row in found:
            key = str(row.folder.path.resolve()) if row.folder else row.source
            rows.setdefault(key, row)
    table = RunTable(rows=tuple(rows.values()), problems=tuple(dict.fromkeys(problems)))
    if not table.rows:
        places = ", ".join(str(source) for source in sources) or "no folder"
        raise CompareError(f"{places} holds no runs; train some: gnbench sweep")
    if where is not None:
        table = table.where(where)
    refuse_duplicates(table.rows)
    return table


def _wandb_rows(path: str) -> tuple[list[Row], list[str]]:
    from groupnorm_bench.tracking.readback import read_wandb

    try:
        results, problems = read_wandb(path)
    except TrackingError as error:
        raise TrackingError(f"{path} is no folder here; as a W&B path: {error}") from error
    return [Row(result=r, source=str(r.wandb["url"])) for r in results], problems


def refuse_duplicates(rows: Sequence[Row]) -> None:
    """Refuse two results of one cell and seed by the same code: which of them counts?

    Raises:
        CompareError: there are such.
    """
    seen: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        if row.status not in ("finished", "diverged"):
            continue
        key = (row.cell, row.seed, row.code)
        if key in seen:
            raise CompareError(
                f"seed={row.seed} of {row.cell} is there twice, in {seen[key].source} and "
                f"{row.source}; give one of them"
            )
        seen[key] = row


def arm_order(config: TrainConfig) -> tuple[Any, ...]:
    """Sort key of arms: the norms as `gnbench norms` lists them, then by number of groups."""
    from groupnorm_bench.norms import CONV_CHANNELS, NORMS

    names = list(NORMS)
    known = names.index(config.norm) if config.norm in names else len(names)
    groups = config.num_groups_for(CONV_CHANNELS[0]) if config.norm_spec.reads_groups else 0
    return (known, config.norm, groups, config.arm)


def setting_key(setting: dict[str, Any]) -> str:
    """Return a setting as a key for grouping."""
    return json.dumps(setting, sort_keys=True)


def setting_order(setting: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of settings: numbers by size, words by letter, missing values first."""
    return tuple(
        (name, value is not None, isinstance(value, str), value if value is not None else 0)
        for name, value in sorted(setting.items())
    )


def varying(settings: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Return the names that do not have one and the same value in all settings."""
    every = list(settings)
    names = dict.fromkeys(name for setting in every for name in setting)
    return tuple(n for n in names if len({json.dumps(s.get(n)) for s in every}) > 1)


def describe(setting: dict[str, Any], names: Iterable[str]) -> str:
    """Return `batch_size=8, lr=0.001` for those of `names` that the setting has."""
    parts = (
        f"{n}={setting[n]:g}" if isinstance(setting[n], float) else f"{n}={setting[n]}"
        for n in names
        if n in setting
    )
    return ", ".join(parts)


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value of the metric is the better one."""
    return _LOWER_IS_BETTER.search(metric) is not None


def points(metric: str) -> float:
    """Return the factor from a metric's own unit to the one printed: accuracies in points."""
    return 100.0 if "accuracy" in metric else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSummary:
    """A cell over its seeds. Metric values in points where the metric is an accuracy."""

    arm: str
    cell: str
    setting: dict[str, Any]
    code: str
    metric: str
    n: int
    """Finished runs with the metric."""
    mean: float | None
    sd: float | None
    """Standard deviation over seeds (n - 1); None for a single run."""
    seeds: tuple[int, ...] = ()
    other_statuses: dict[str, int] = field(default_factory=dict)
    """Runs that do not count, by status, as {"diverged": 2}."""
    seconds_per_epoch: float | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None


def summarize_cells(rows: Iterable[Row], metric: str = "test/accuracy") -> list[CellSummary]:
    """Return one summary per cell and code version, by setting, then by arm."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.cell, row.code), []).append(row)
    ordered = sorted(
        groups.values(),
        key=lambda g: (setting_order(g[0].setting), g[0].code, arm_order(g[0].config)),
    )
    return [_summarize(group, metric) for group in ordered]


def _summarize(group: list[Row], metric: str) -> CellSummary:
    first = group[0]
    kept = [row for row in group if row.status == "finished" and row.metric(metric) is not None]
    kept.sort(key=lambda row: row.seed)
    values = np.array([row.metric(metric) for row in kept], dtype=float) * points(metric)
    others = Counter(row.status for row in group if row.status != "finished")
    missing = sum(row.status == "finished" for row in group) - len(kept)
    if missing:
        others[f"without {metric}"] = missing

    def middle(read: Callable[[Row], float | None]) -> float | None:
        numbers = [number for row in kept if (number := read(row)) is not None]
        return float(np.median(numbers)) if numbers else None

    return CellSummary(
        arm=first.arm,
        cell=first.cell,
        setting=first.setting,
        code=first.code,
        metric=metric,
        n=len(kept),
        mean=float(values.mean()) if len(kept) else None,
        sd=float(values.std(ddof=1)) if len(kept) > 1 else None,
        seeds=tuple(row.seed for row in kept),
        other_statuses=dict(others),
        seconds_per_epoch=middle(lambda row: row.seconds_per_epoch),
        images_per_second=middle(lambda row: row.metric("images_per_second")),
        peak_memory_mb=middle(lambda row: row.metric("peak_memory_mb")),
    )


def rank(rows: Iterable[Row], metric: str = "val/accuracy") -> list[CellSummary]:
    """Return the cells, best mean first; those without a finished run come last.

    A ranking chooses, so its default is the validation metric: `test` is for reporting.
    """
    sign = 1.0 if lower_is_better(metric) else -1.0
    cells = summarize_cells(rows, metric)
    return sorted(cells, key=lambda c: (c.mean is None, sign * c.mean if c.mean is not None else 0))

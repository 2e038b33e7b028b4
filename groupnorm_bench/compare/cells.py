"""Cells: runs that differ in their seed alone, summarised and ranked."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groupnorm_bench.compare.order import setting_order
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.metrics import metric_spec


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSummary:
    """A cell over its seeds. Metric values in points where the metric is an accuracy."""

    arm: str
    cell: str
    setting: dict[str, Any]
    code: str
    """The versions of the code that computed it, as `; ` joins them: one, but in a ranking."""
    metric: str
    timed_on: str
    """Machine and threads, as `; ` joins them: one, in a ranking by what depends on them."""
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


def summarize_cells(rows: Iterable[RunRow], metric: str = "test/accuracy") -> list[CellSummary]:
    """Return one summary per cell and code version, by setting, then by arm."""
    groups: dict[tuple[str, str], list[RunRow]] = {}
    for row in rows:
        groups.setdefault((row.cell, row.code), []).append(row)
    return _summaries(groups.values(), metric)


def _summaries(groups: Iterable[list[RunRow]], metric: str) -> list[CellSummary]:
    ordered = sorted(groups, key=lambda g: (setting_order(g[0].setting), g[0].code, g[0].order))
    return [_summarize(group, metric) for group in ordered]


def _summarize(group: list[RunRow], metric: str) -> CellSummary:
    first = group[0]
    kept = [row for row in group if row.status == "finished" and row.metric(metric) is not None]
    kept.sort(key=lambda row: row.seed)
    values = np.array([row.printed(metric) for row in kept], dtype=float)
    others = Counter(row.status for row in group if row.status != "finished")
    missing = sum(row.status == "finished" for row in group) - len(kept)
    if missing:
        others[f"without {metric}"] = missing

    def middle(read: Callable[[RunRow], float | None]) -> float | None:
        numbers = [number for row in kept if (number := read(row)) is not None]
        return float(statistics.median(numbers)) if numbers else None

    return CellSummary(
        arm=first.arm,
        cell=first.cell,
        setting=first.setting,
        code="; ".join(sorted({row.code for row in group})),
        timed_on="; ".join(sorted({row.timed_on for row in group})),
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


def rank(rows: Iterable[RunRow], metric: str = "val/accuracy") -> list[CellSummary]:
    """Return the cells, best mean first; those without a finished run come last.

    A ranking chooses, so its default is the validation metric: `test` is for reporting. It is over
    all runs that a sweep counts, also those that an earlier version of the code left to be reused.
    By a metric that depends on the machine, the runs of each machine and number of threads are a
    cell of their own.
    """
    spec = metric_spec(metric)
    sign = -1.0 if spec.larger_is_better else 1.0
    groups: dict[tuple[str, str], list[RunRow]] = {}
    for row in rows:
        groups.setdefault((row.cell, row.timed_on if spec.of_machine else ""), []).append(row)
    cells = _summaries(groups.values(), metric)
    return sorted(cells, key=lambda c: (c.mean is None, sign * c.mean if c.mean is not None else 0))

"""Parallel coordinates: a line per run across its settings and its result, as W&B draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from groupnorm_bench.compare.order import num_groups_of, varying
from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.report.charts import Dimension, Figure, Parallel
from groupnorm_bench.report.palette import styles_of

MAX_PLACES = 12
"""A setting with more values than this is a scale (logarithmic), not a list of places."""


def parallel(table: RunTable, metric: str) -> Figure:
    """Return the runs as lines over their settings and their result, as W&B draws them.

    A run of a norm without groups stands at "none" on that axis: it stays in the picture.
    """
    base = Figure(
        key="parallel",
        title="Parallel coordinates",
        caption=(
            "A line is a run, coloured by arm. Drag along an axis to keep the runs that pass "
            "there, or use the boxes above; click beside the drawn range to clear it. The run "
            "table follows."
            + (
                " Runs of norms without groups pass the groups axis at “none”."
                if table.is_of_networks
                else ""
            )
        ),
    )
    rows = [row for row in table.finished if row.metric(metric) is not None]
    if not rows:
        return base.without(f"No finished run has {metric}.")
    rows.sort(key=lambda row: row.order)
    place = {id(row): i for i, row in enumerate(table.rows)}
    styles = styles_of(rows)
    ours = table.is_of_networks
    names = [n for n in varying(row.setting for row in rows) if n != "batch_size" or not ours]
    values = [row.factor[1] for row in rows]
    dimensions = [
        _places(rows[0].factor[0], values, list(dict.fromkeys(values))),
        *(_axes_of_ours(rows) if ours else ()),
        *(_setting(name, [row.setting.get(name) for row in rows]) for name in names),
        *(_result(key, rows) for key in ("val/accuracy", metric) if _all_have(key, rows)),
    ]
    return base.filled(
        parallel=Parallel(
            dimensions=dimensions,
            arms=[row.arm for row in rows],
            runs=[place[id(row)] for row in rows],
            styles=styles,
        ),
    )


def _axes_of_ours(rows: Sequence[RunRow]) -> list[Dimension]:
    return [
        _setting("num_groups", [_groups_of(row) for row in rows]),
        _setting("batch_size", [row.cell_config.batch_size for row in rows]),
    ]


def _groups_of(row: RunRow) -> str | int:
    return num_groups_of(row.cell_config) or "none"


def _all_have(key: str, rows: Sequence[RunRow]) -> bool:
    return all(row.metric(key) is not None for row in rows)


def _result(key: str, rows: Sequence[RunRow]) -> Dimension:
    return _scale(metric_spec(key).title, [row.printed(key) or 0.0 for row in rows])


def _setting(label: str, values: Sequence[Any]) -> Dimension:
    words: list[Any] = ["none" if value is None else value for value in values]
    different = set(words)
    numbers = all(type(value) in (int, float) and value > 0 for value in different)
    if numbers and len(different) > MAX_PLACES:
        return _scale(f"log10 {label}", [math.log10(value) for value in words])
    return _places(label, words, sorted(different, key=lambda v: (not isinstance(v, str), v)))


def _scale(label: str, values: Sequence[float]) -> Dimension:
    return Dimension(
        label=label, values=values, ticks=round_ticks(min(values), max(values)), is_scale=True
    )


def round_ticks(low: float, high: float, most: int = 7) -> list[tuple[float, str]]:
    """Return round places between two numbers with their words, each with the digits it takes."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return [(low, f"{low:.4g}")]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * part for part in (1, 2, 5, 10) if (high - low) / (power * part) <= most)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(i * step, f"{i * step:.{decimals}f}") for i in range(first, last + 1)]


def _places(label: str, values: Sequence[Any], ordered: Sequence[Any]) -> Dimension:
    """Return an axis with a place per value."""
    places = {value: place for place, value in enumerate(ordered)}
    ticks = [
        (place, f"{value:g}" if isinstance(value, float) else str(value))
        for value, place in places.items()
    ]
    return Dimension(label=label, values=[places[value] for value in values], ticks=ticks)

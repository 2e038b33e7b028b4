"""The figures of accuracy: differences, batch size, number of groups, cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from groupnorm_bench import wording
from groupnorm_bench.compare.order import varying
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.compare.series import estimate_metric
from groupnorm_bench.compare.verdicts import Comparison, Contrast
from groupnorm_bench.compare.words import RULES, adjusted_p, interval_of
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.report.charts import (
    ChartAxis,
    Figure,
    FigureView,
    Panel,
    Series,
    Table,
    estimate_series,
    estimate_text,
    metric_axis,
    size_ticks,
)
from groupnorm_bench.report.palette import Style, style_of_run, styles_of
from groupnorm_bench.report.slices import MAX_VIEWS, Slice, fullest_of, slices
from groupnorm_bench.settings.config import AUTO_GROUPS

MAX_ROWS_OF_ONE_FOREST = 32
BESIDE = 0.12
"""Norms with the same number of groups stand this share of a place apart."""
MOST_CELLS_SHOWN = 2_000
"""Marks of what cells cost."""
MOST_NAMES = 40
"""Marks that can be named and still be read."""
MAX_LINEAR_SPREAD = 10
"""Times that lie further apart than this factor are drawn on a logarithmic axis."""
TWO_DOUBLINGS = 4
"""A setting that spans this factor stands on a logarithmic axis."""
DODGE = 0.035
"""Arms at one batch size are drawn side by side, this share of the axis' doubling apart."""


def differences(comparison: Comparison, rows: Sequence[RunRow]) -> Figure:
    """Return every contrast's difference with its interval, and the margin of equality."""
    measured = metric_spec(comparison.metric).title.removesuffix(" (%)")
    base = Figure(
        key="differences",
        title=f"Difference from {comparison.baseline}",
        caption=(
            f"Each arm minus {comparison.baseline} over paired seeds, with its "
            f"{1 - comparison.alpha:.0%} intervals: thick for a number of seeds fixed beforehand "
            f"(Student's t), thin for whenever one looks; {RULES[comparison.rule]}. To "
            f"the right of zero the arm has the larger "
            f"{measured}; differences inside a shaded margin count for nothing."
        ),
    )
    styles = styles_of(rows)
    contrasts = [contrast for contrast in comparison.contrasts if contrast.arm in styles]
    if not contrasts:
        return base.without("No arm shares a setting with the baseline, so nothing is contrasted.")
    if len(contrasts) <= MAX_ROWS_OF_ONE_FOREST:
        views = [FigureView(label="all contrasts", panels=[_forest(contrasts, styles)])]
        return base.filled(views=views, table=_contrast_table(contrasts))
    groups: dict[str, list[Contrast]] = {}
    for contrast in contrasts:
        groups.setdefault(contrast.label, []).append(contrast)
    fullest = sorted(groups, key=lambda label: -len(groups[label]))[:MAX_VIEWS]
    views = [
        FigureView(label=label, panels=[_forest(group, styles, labelled=False)])
        for label, group in groups.items()
        if label in fullest
    ]
    note = fullest_of(len(groups))
    return base.filled(note, views=views, table=_contrast_table(contrasts))


def _forest(
    contrasts: Sequence[Contrast], styles: dict[str, Style], *, labelled: bool = True
) -> Panel:
    ticks: list[tuple[float, str]] = []
    series: dict[str, dict[str, Any]] = {}
    for place, contrast in enumerate(contrasts):
        label = contrast.label if labelled else ""
        ticks.append((place, f"{contrast.arm}, {label}" if label else contrast.arm))
        marks = series.setdefault(
            contrast.arm,
            {"x": [], "y": [], "low": [], "high": [], "text": [], "planned": []},
        )
        marks["x"].append(contrast.mean_difference)
        marks["y"].append(place)
        marks["low"].append(contrast.anytime_low)
        marks["high"].append(contrast.anytime_high)
        marks["planned"].append((contrast.ci_low, contrast.ci_high))
        marks["text"].append(contrast.sentence)
    unit = contrasts[0].unit or contrasts[0].metric
    return Panel(
        x=ChartAxis(title=f"difference ({unit})"),
        y=ChartAxis(title="", ticks=ticks, reversed=True),
        series=[
            one for arm, marks in series.items() for one in _both_intervals(arm, styles[arm], marks)
        ],
        height=110 + 24 * max(4, len(contrasts)),
        zero_line="x",
        shades=[
            (-contrast.margin, contrast.margin, place - 0.5, place + 0.5)
            for place, contrast in enumerate(contrasts)
            if contrast.margin
        ],
    )


def _both_intervals(arm: str, style: Style, marks: dict[str, Any]) -> list[Series]:
    """Return an arm's marks with the thin interval, and the thick one behind them."""
    low, high = zip(*marks.pop("planned"), strict=True)
    places = {"x": marks["x"], "y": marks["y"]}
    thick = Series(
        label=arm,
        arm=arm,
        style=style,
        kind="points",
        across=True,
        width=5,
        low=low,
        high=high,
        text=marks["text"],
        **places,
    )
    return [thick, Series(label=arm, arm=arm, style=style, kind="points", across=True, **marks)]


def _contrast_table(contrasts: Sequence[Contrast]) -> Table:
    return Table(
        headers=["arm", "setting", "pairs", "difference", "low", "high", "adjusted p", "verdict"],
        rows=[
            [
                contrast.arm,
                contrast.label,
                contrast.n_pairs,
                contrast.mean_difference,
                *interval_of(contrast),
                adjusted_p(contrast),
                contrast.verdict,
            ]
            for contrast in contrasts
        ],
    )


def by_batch_size(rows: Sequence[RunRow], metric: str) -> Figure:
    """Return the metric against batch size per arm: Wu and He's figure 1 for this network."""
    base = Figure(
        key="batch-size",
        title="Accuracy against batch size" if "accuracy" in metric else "Against batch size",
        caption=(
            "Mean over seeds with its 95% interval, per arm. BatchNorm takes its statistics over "
            "the batch, so it is the one to watch on the left; the others do not see the batch. "
            "(Wu and He 2018, figure 1, for this network.)"
        ),
    )
    found, note = slices(rows, across=("batch_size",))
    sizes = sorted({row.cell_config.batch_size for row in rows})
    if not rows:
        return base.without("No finished run.")
    views, table = [], []
    for piece in found:
        series, numbers = _over(piece, metric, lambda row: row.cell_config.batch_size)
        views.append(
            FigureView(
                label=piece.label,
                panels=[
                    Panel(
                        x=ChartAxis(title="batch size", log=True, ticks=size_ticks(sizes)),
                        y=metric_axis(metric),
                        series=series,
                    )
                ],
            )
        )
        table += [[arm, piece.label, size, *values] for arm, size, *values in numbers]
    headers = ["arm", "setting", "batch size", "n", "mean", "low", "high"]
    return base.filled(views=views, table=Table(headers=headers, rows=table), note=note)


def by_setting(rows: Sequence[RunRow], metric: str) -> Figure:
    """Return the metric per arm against the numeric setting of a table that has most values."""
    base = Figure(
        key="setting",
        title="Against a setting",
        caption="Mean over seeds with its 95% interval, per arm.",
    )
    values = {
        name: sorted({row.setting[name] for row in rows})
        for name in varying(row.setting for row in rows)
        if all(isinstance(row.setting.get(name), float) for row in rows)
    }
    if not values:
        return base.without("No setting of this table has more than one number.")
    name = max(values, key=lambda one: len(values[one]))
    spread = values[name][0] > 0 and values[name][-1] / values[name][0] >= TWO_DOUBLINGS
    found, note = slices(rows, across=(name,))
    views, table = [], []
    for piece in found:
        series, numbers = _over(piece, metric, lambda row: row.setting[name], dodged=spread)
        axis = ChartAxis(title=name, log=spread, ticks=size_ticks(values[name]))
        panel = Panel(x=axis, y=metric_axis(metric), series=series)
        views.append(FigureView(label=piece.label, panels=[panel]))
        table += [[arm, piece.label, at, *estimates] for arm, at, *estimates in numbers]
    headers = ["arm", "setting", name, "n", "mean", "low", "high"]
    drawn = base.filled(views=views, table=Table(headers=headers, rows=table), note=note)
    return dataclasses.replace(drawn, title=f"Against {name}")


def _over(
    piece: Slice, metric: str, place: Any, *, dodged: bool = True
) -> tuple[list[Series], list[list[Any]]]:
    """Return a series per arm of estimates against `place(row)`, dodged on a log axis."""
    series, numbers = [], []
    arms = piece.by_arm()
    for i, (arm, members) in enumerate(arms.items()):
        at: dict[float, list[RunRow]] = {}
        for row in members:
            at.setdefault(place(row), []).append(row)
        points_of = [(x, e) for x in sorted(at) if (e := estimate_metric(at[x], metric))]
        shift = 2.0 ** (DODGE * (i - (len(arms) - 1) / 2)) if dodged else 1.0
        if points_of:
            series.append(
                estimate_series(
                    arm, members[0], [(x * shift, e, f"{x:g}") for x, e in points_of], metric
                )
            )
            numbers += [[arm, x, e.n, e.mean, e.low, e.high] for x, e in points_of]
    return series, numbers


def by_groups(rows: Sequence[RunRow], metric: str) -> Figure:
    """Return the metric against the number of groups, LayerNorm and InstanceNorm as its ends."""
    base = Figure(
        key="groups",
        title="Accuracy against number of groups",
        caption=(
            "GroupNorm with one group is LayerNorm (LN), with a group per channel InstanceNorm "
            "(IN, its learned scale aside), so both stand at the ends; dashed lines are the arms "
            f"without groups.{_reach_of_groups(rows)} Mean over seeds with its 95% interval."
        ),
    )
    grouped = [row for row in rows if _counts_groups(row)]
    if not grouped:
        return base.without("No finished run of a norm with a number of groups.")
    counts = sorted({int(row.cell_config.num_groups) for row in grouped})
    places: dict[Any, float] = {"layer": 0}
    places |= {count: i + 1 for i, count in enumerate(counts)}
    places["instance"] = len(counts) + 1
    found, note = slices(rows)
    shown = [piece for piece in found if any(map(_counts_groups, piece.rows))]
    views, table = [], []
    for piece in shown:
        series = _group_series(piece, metric, places)
        axis = ChartAxis(title="number of groups", ticks=_group_ticks(places))
        panel = Panel(x=axis, y=metric_axis(metric), series=series)
        views.append(FigureView(label=piece.label, panels=[panel]))
        for arm, members in piece.by_arm().items():
            if e := estimate_metric(members, metric):
                table.append([arm, piece.label, e.n, e.mean, e.low, e.high])
    headers = ["arm", "setting", "n", "mean", "low", "high"]
    return base.filled(views=views, table=Table(headers=headers, rows=table), note=note)


def _reach_of_groups(rows: Sequence[RunRow]) -> str:
    """Return which layers become InstanceNorm, where the runs are of one network."""
    models = {row.cell_config.model: row.cell_config.model_spec for row in rows}
    every = {tuple(sorted(set(s.norm_channels.values()))) for s in models.values()}
    channels = every.pop() if len(every) == 1 else ()
    if len(channels) != 2:
        return ""
    fewest, most = channels
    return (
        f" The {fewest}-channel layer reaches InstanceNorm at {fewest} groups, the "
        f"{most}-channel one does not."
    )


def _counts_groups(row: RunRow) -> bool:
    config = row.cell_config
    is_number = config.group_size is None and config.num_groups != AUTO_GROUPS
    return config.norm_spec.reads_groups and is_number


def _group_ticks(places: dict[Any, float]) -> list[tuple[float, str]]:
    words = {"layer": "LN", "instance": "IN"}
    return [(place, words.get(key, str(key))) for key, place in places.items()]


def _group_series(piece: Slice, metric: str, places: dict[Any, float]) -> list[Series]:
    series = []
    norms = list(dict.fromkeys(row.norm for row in piece.rows if _counts_groups(row)))
    for arm, members in piece.by_arm().items():
        config = members[0].cell_config
        estimate = estimate_metric(members, metric)
        if estimate is None:
            continue
        counted = _counts_groups(members[0])
        place = places.get(config.num_groups if counted else config.norm)
        if place is not None:
            beside = place + (BESIDE * norms.index(config.norm) if counted else 0.0)
            series.append(
                estimate_series(arm, members[0], [(beside, estimate, arm)], metric, "points")
            )
        elif not config.norm_spec.reads_groups:
            series.append(
                Series(
                    label=arm,
                    arm=arm,
                    style=style_of_run(members[0]),
                    kind="reference",
                    x=[0, len(places) - 1],
                    y=[estimate.mean],
                    text=[f"{arm}: {estimate_text(estimate, metric_spec(metric))}"],
                )
            )
    return series


def by_seconds(rows: Sequence[RunRow], metric: str) -> Figure:
    """Return the metric against training time, one mark per cell: what accuracy costs."""
    is_named = (
        len({row.cell_config.batch_size for row in rows}) > 1
        and len({row.cell for row in rows}) <= MOST_NAMES
    )
    names = " The number beside a mark is its batch size." if is_named else ""
    base = Figure(
        key="seconds",
        title="Accuracy against training time",
        caption=(
            "One mark per cell: mean accuracy and mean seconds of training over its seeds, with "
            "the 95% interval of the accuracy. Up and to the left is better."
            f"{names} Times of "
            "different devices do not compare; they are different views."
        ),
    )
    machines, note = _cells_by_machine(rows)
    views, table = [], []
    for label, cells in machines.items():
        series, numbers = _cost_series(cells, metric, is_named=is_named)
        if series:
            panel = Panel(
                x=ChartAxis(
                    title="training time (seconds)",
                    log=_spread(series) > MAX_LINEAR_SPREAD,
                    from_zero=True,  # half a second more is to look like half a second
                ),
                y=metric_axis(metric),
                series=series,
            )
            views.append(FigureView(label=label, panels=[panel]))
            table += [[*numbers_of, label] for numbers_of in numbers]
    if not views:
        return base.without("No finished run recorded its training time.")
    headers = ["arm", "cell", "n", "seconds", "mean", "low", "high", "machine"]
    return base.filled(note, views=views, table=Table(headers=headers, rows=table))


def _cells_by_machine(rows: Sequence[RunRow]) -> tuple[dict[str, list[list[RunRow]]], str]:
    """Return the runs of each cell by where they ran, and a line where there are too many cells."""
    cells: dict[tuple[Any, ...], list[RunRow]] = {}
    for row in rows:
        key = (row.cell_config.dataset, row.device, row.threads, row.cell)
        cells.setdefault(key, []).append(row)
    fullest = sorted(cells, key=lambda key: -len(cells[key]))[:MOST_CELLS_SHOWN]
    machines: dict[str, list[list[RunRow]]] = {}
    for dataset, device, threads, cell in fullest:
        on = "" if threads is None else f", {wording.count(threads, 'thread')}"
        members = cells[dataset, device, threads, cell]
        machines.setdefault(f"{dataset} on {device}{on}", []).append(members)
    left = len(cells) - len(fullest)
    note = f"The {len(fullest):,} fullest of {len(cells):,} cells are drawn." if left else ""
    return machines, note


def _spread(series: Sequence[Series]) -> float:
    places = [x for one in series for x in one.x]
    return max(places) / min(places)


def _cost_series(
    cells: Sequence[list[RunRow]], metric: str, *, is_named: bool
) -> tuple[list[Series], list[list[Any]]]:
    by_arm: dict[str, list[list[RunRow]]] = {}
    for members in sorted(cells, key=lambda members: members[0].order):
        by_arm.setdefault(members[0].arm, []).append(members)
    series, numbers = [], []
    for arm, of_arm in by_arm.items():
        marks, names = [], []
        for members in of_arm:
            cell = members[0].cell
            seconds, value = (estimate_metric(members, m) for m in ("train_seconds", metric))
            if seconds and value and seconds.mean > 0:
                marks.append((seconds.mean, value, cell))
                names.append(str(members[0].cell_config.batch_size))
                numbers.append(
                    [arm, cell, value.n, seconds.mean, value.mean, value.low, value.high]
                )
        if marks:
            series.append(
                estimate_series(
                    arm, of_arm[0][0], marks, metric, "points", names=names if is_named else None
                )
            )
    return series, numbers

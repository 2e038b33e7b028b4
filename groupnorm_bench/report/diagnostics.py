"""The figures of what happens inside: learning curves, activations, BatchNorm's gap."""

from __future__ import annotations

import re
from collections.abc import Sequence

from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.compare.series import curve, estimate_last
from groupnorm_bench.report.charts import (
    ChartAxis,
    Figure,
    FigureView,
    Panel,
    Series,
    Table,
    estimate_series,
    metric_axis,
    size_ticks,
)
from groupnorm_bench.report.palette import style_of_run
from groupnorm_bench.report.slices import Slice, slices

_LAYER_KEY = re.compile(r"norm/(?P<layer>[^/]+)/activation_(?P<what>mean|std)")
_WHAT = {"mean": "mean", "std": "standard deviation"}
MAX_LAYERS = 8


def learning_curves(rows: Sequence[RunRow]) -> Figure:
    """Return validation accuracy and training loss over epochs per arm."""
    base = Figure(
        key="curves",
        title="Learning curves",
        caption=(
            "Mean over seeds per epoch; the band is one standard deviation over seeds to either "
            "side."
        ),
    )
    axes = {
        "val/accuracy": metric_axis("val/accuracy"),
        "train/loss": ChartAxis(title="train loss", log=True),
    }
    found, note = slices(rows)
    views = []
    for piece in found:
        panels = [
            Panel(x=_epochs(piece), y=axis, series=series, height=340)
            for key, axis in axes.items()
            if (series := _curves(piece, key))
        ]
        if panels:
            views.append(FigureView(label=piece.label, panels=panels))
    if not views:
        return base.without("No finished run has a history.")
    return base.filled(note, views=views, table=_last_epochs(found))


def _last_epochs(found: Sequence[Slice]) -> Table:
    rows = [
        [arm, piece.label, e.n, e.mean, e.low, e.high]
        for piece in found
        for arm, members in piece.by_arm().items()
        if (e := estimate_last(members, "val/accuracy"))
    ]
    headers = ["arm", "setting", "n", "val accuracy (%), last epoch", "low", "high"]
    return Table(headers=headers, rows=rows)


def _curves(piece: Slice, key: str) -> list[Series]:
    series = []
    for arm, members in piece.by_arm().items():
        line = curve(members, key)
        if line is not None:
            series.append(
                Series(
                    label=arm,
                    arm=arm,
                    style=style_of_run(members[0]),
                    x=line.epochs,
                    y=line.mean,
                    low=line.low,
                    high=line.high,
                    band=True,
                )
            )
    return series


def _epochs(piece: Slice) -> ChartAxis:
    last = max(row.cell_config.epochs for row in piece.rows)
    ticks = [(epoch, str(epoch)) for epoch in range(1, last + 1)] if last <= 10 else None
    return ChartAxis(title="epoch", ticks=ticks)


def activations(rows: Sequence[RunRow]) -> Figure:
    """Return the mean and the standard deviation of each norm layer's output over epochs."""
    base = Figure(
        key="activations",
        title="Activations behind each norm layer",
        caption=(
            "Mean and standard deviation of each norm layer's output on a fixed batch of images, "
            "after each epoch; mean over seeds, band of one standard deviation."
        ),
    )
    found, note = slices(rows)
    views, notes = [], [note] if note else []
    for piece in found:
        every = _layers(piece.rows)
        layers = _spread(every)
        if len(layers) < len(every):
            notes.append(
                f"{len(layers)} of {len(every)} norm layers are shown, from first to last."
            )
        panels = [
            Panel(
                x=_epochs(piece),
                y=ChartAxis(title=_WHAT[what]),
                series=series,
                title=f"{layer}: {_WHAT[what]}",
                height=280,
            )
            for layer in layers
            for what in _WHAT
            if (series := _curves(piece, f"norm/{layer}/activation_{what}"))
        ]
        if panels:
            views.append(FigureView(label=piece.label, panels=panels))
    if not views:
        return base.without("No finished run recorded its activations.")
    return base.filled(" ".join(dict.fromkeys(notes)), views=views)


def _layers(rows: Sequence[RunRow]) -> list[str]:
    """Return the layers whose activations some run recorded, as the network calls them in order."""
    matches = (_LAYER_KEY.fullmatch(key) for row in rows for key in _keys(row))
    return list(dict.fromkeys(match["layer"] for match in matches if match))


def _spread(layers: list[str]) -> list[str]:
    """Return `MAX_LAYERS` of them at most, evenly spaced, the first and the last among them."""
    if len(layers) <= MAX_LAYERS:
        return layers
    step = (len(layers) - 1) / (MAX_LAYERS - 1)
    return [layers[round(i * step)] for i in range(MAX_LAYERS)]


def _keys(row: RunRow) -> list[str]:
    return list(row.history[-1]) if row.history else []


def eval_gap(rows: Sequence[RunRow]) -> Figure:
    """Return, against batch size, how far running statistics are from the batch's own."""
    base = Figure(
        key="eval-gap",
        title="BatchNorm's gap between training and evaluation",
        caption=(
            "Accuracy with the batch's own statistics minus accuracy with the running ones, at "
            "the last epoch: above zero, the running statistics cost accuracy when the network "
            "is used. Mean over seeds with its 95% interval."
        ),
    )
    key = "norm/eval_gap"
    having = [row for row in rows if key in _keys(row)]
    if not having:
        return base.without("No finished run of a norm with running statistics.")
    sizes = sorted({row.cell_config.batch_size for row in having})
    found, note = slices(having, across=("batch_size",))
    views, table = [], []
    for piece in found:
        series = []
        for arm, members in piece.by_arm().items():
            marks = []
            for size in sorted({row.cell_config.batch_size for row in members}):
                at = [row for row in members if row.cell_config.batch_size == size]
                if e := estimate_last(at, key):
                    marks.append((float(size), e, f"batch size {size}"))
                    table.append([arm, piece.label, size, e.n, e.mean, e.low, e.high])
            if marks:
                series.append(estimate_series(arm, members[0], marks, key))
        axis = ChartAxis(title="batch size", log=True, ticks=size_ticks(sizes))
        panel = Panel(
            x=axis, y=ChartAxis(title="gap (points)"), series=series, height=300, zero_line="y"
        )
        views.append(FigureView(label=piece.label, panels=[panel]))
    headers = ["arm", "setting", "batch size", "n", "gap (points)", "low", "high"]
    return base.filled(note, views=views, table=Table(headers=headers, rows=table))

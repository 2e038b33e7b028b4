"""The figures as PNG and SVG, by matplotlib: Plotly's own export needs a Chrome on the machine."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import write_asked
from groupnorm_bench.report.charts import ChartAxis, Figure, FigureView, Panel, Parallel, Series
from groupnorm_bench.report.draw_page import BAR_OPACITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_FORMATS = ("png", "svg")
DPI = 150
_MARKERS = {
    "circle": "o",
    "circle-open": "o",
    "cross": "P",
    "diamond": "D",
    "diamond-open": "D",
    "square": "s",
    "square-open": "s",
    "star": "*",
    "triangle-down": "v",
    "triangle-left": "<",
    "triangle-right": ">",
    "triangle-up": "^",
    "triangle-up-open": "^",
    "x": "X",
}
_DASHES: dict[str, Any] = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 2, 3)),
}
_BESIDE_AXIS: Any = {
    "ha": "right",
    "va": "center",
    "fontsize": 7,
    "zorder": 3,
    "bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6},
}
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "groupnorm-bench",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,
}


def save_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Write every view of every figure to `folder`, as PNG and as SVG; return the files.

    A figure with one view is `<key>.png`; others have a file per view: `<key>-batch_size-8.png`.

    Raises:
        RunFolderError: the folder cannot be made, or a file in it not written.
    """
    from matplotlib import rc_context

    paths: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with rc_context(_RC):
            for figure in figures:
                for name, canvas in _canvases(figure):
                    paths += _save(canvas, folder / name)
    except OSError as error:
        raise RunFolderError(
            f"figures={str(folder)!r} cannot be written: {error.strerror}; give another folder"
        ) from error
    return paths


def draw_figure(figure: Figure, view: int = 0) -> Canvas:
    """Return matplotlib's figure of one view of a report's figure."""
    from matplotlib import rc_context

    with rc_context(_RC):
        if figure.parallel is not None:
            return _parallel_canvas(figure, figure.parallel)
        return _canvas(figure, figure.views[view])


def _save(canvas: Canvas, stem: Path) -> list[Path]:
    paths = []
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # laid out once, not again for each format
    for suffix in _FORMATS:
        path = stem.with_name(f"{stem.name}.{suffix}")
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        drawn = io.BytesIO()
        canvas.savefig(drawn, format=suffix, dpi=DPI, metadata=metadata)
        write_asked(path, drawn.getvalue(), "figures")
        paths.append(path)
    return paths


def _canvases(figure: Figure) -> Iterable[tuple[str, Canvas]]:
    if figure.parallel is not None:
        yield figure.key, _parallel_canvas(figure, figure.parallel)
    for view in figure.views:
        suffix = "" if len(figure.views) == 1 else "-" + slug(view.label)
        yield figure.key + suffix, _canvas(figure, view)


def slug(text: str) -> str:
    """Return text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-") or "view"


def _canvas(figure: Figure, view: FigureView) -> Canvas:
    from matplotlib.figure import Figure as Canvas

    columns = min(2, len(view.panels))
    rows = math.ceil(len(view.panels) / columns)
    width = 7.0 if columns == 1 else 5.0 * columns
    height = max(panel.height for panel in view.panels) / 95 * rows
    canvas = Canvas(figsize=(width, height), layout="constrained")
    for i, panel in enumerate(view.panels):
        _draw(canvas.add_subplot(rows, columns, i + 1), panel)
    _title(canvas, figure, view.label if len(figure.views) > 1 else "")
    _legend(canvas, canvas.axes)
    return canvas


def _title(canvas: Canvas, figure: Figure, label: str) -> None:
    canvas.suptitle(f"{figure.title}, {label}" if label else figure.title, fontsize=10)


def _legend(canvas: Canvas, axes: Sequence[Axes]) -> None:
    handles: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        canvas.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(6, len(handles)),
            fontsize=8,
        )


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left")
    _scale(axes, "x", panel.x)
    _scale(axes, "y", panel.y)
    for left, right, bottom, top in panel.shades:
        axes.fill_betweenx([bottom, top], left, right, color="#808080", alpha=0.15, linewidth=0)
    if panel.zero_line is not None:
        line = axes.axvline if panel.zero_line == "x" else axes.axhline
        line(0, color="#808080", linewidth=1)
    for series in panel.series:
        _DRAW[series.kind](axes, series)
    if panel.x.from_zero and not panel.x.log:
        axes.set_xlim(left=0)
    if panel.y.bounds is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, panel.y.bounds[0]), min(high, panel.y.bounds[1]))


def _scale(axes: Axes, which: str, axis: ChartAxis) -> None:
    from matplotlib.ticker import LogLocator

    one = axes.xaxis if which == "x" else axes.yaxis
    getattr(axes, f"set_{which}label")(axis.title)
    if axis.log:
        getattr(axes, f"set_{which}scale")("log")
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_major_formatter("{x:g}")
        one.set_minor_formatter("")
    if axis.ticks is not None:
        one.set_ticks([place for place, _ in axis.ticks], [word for _, word in axis.ticks])
        one.set_ticks([], minor=True)
    if axis.reversed:
        one.set_inverted(True)


def _floats(numbers: Sequence[float | None]) -> list[float]:
    return [math.nan if number is None else float(number) for number in numbers]


def _look(series: Series) -> dict[str, Any]:
    style = series.style
    return {
        "color": style.color,
        "marker": _MARKERS[style.marker],
        "markerfacecolor": "white" if style.marker.endswith("-open") else style.color,
        "markersize": (3 if series.band else 6) * (1.5 if style.marker == "star" else 1),
        "markeredgecolor": style.color if style.marker.endswith("-open") else "white",
        "markeredgewidth": 1.2 if style.marker.endswith("-open") else 0.8,
        "linewidth": 1.4,
        "linestyle": "none" if series.kind == "points" else _DASHES[style.dash],
        "label": series.label,
    }


def _draw_marks(axes: Axes, series: Series) -> None:
    x, y = _floats(series.x), _floats(series.y)
    if series.band and series.low is not None and series.high is not None:
        axes.plot(x, y, **_look(series))
        axes.fill_between(
            x,
            _floats(series.low),
            _floats(series.high),
            color=series.style.color,
            alpha=0.12,
            linewidth=0,
        )
        return
    errors = _errors(series)
    axes.errorbar(x, y, **errors, capsize=2, elinewidth=series.width / 1.5, **_look(series))
    for at, height, name in zip(x, y, series.names or (), strict=bool(series.names)):
        where: Any = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(name, (at, height), fontsize=6, color=series.style.color, **where)


def _errors(series: Series) -> dict[str, Any]:
    if series.low is None or series.high is None:
        return {}
    middle = _floats(series.x if series.across else series.y)
    down = [at - low for at, low in zip(middle, _floats(series.low), strict=True)]
    up = [high - at for at, high in zip(middle, _floats(series.high), strict=True)]
    return {"xerr" if series.across else "yerr": [_not_below_zero(down), _not_below_zero(up)]}


def _not_below_zero(lengths: Sequence[float]) -> list[float]:
    """A bias-corrected interval may leave the mean outside; matplotlib takes no such bar."""
    return [length if math.isnan(length) else max(0.0, length) for length in lengths]


def _draw_reference(axes: Axes, series: Series) -> None:
    (height,) = _floats(series.y)
    color = series.style.color
    axes.axhline(height, color=color, linewidth=1.2, linestyle="--", label=series.label)


def _draw_bars(axes: Axes, series: Series) -> None:
    color = series.style.color
    style: dict[str, Any] = {"color": color, "alpha": BAR_OPACITY, "ecolor": color, "height": 0.6}
    axes.barh(_floats(series.y), _floats(series.x), **style, **_errors(series))


_DRAW = {
    "line": _draw_marks,
    "points": _draw_marks,
    "reference": _draw_reference,
    "bars": _draw_bars,
}


def _parallel_canvas(figure: Figure, parallel: Parallel) -> Canvas:
    """Draw each run as a line over axes scaled to 0..1, with each axis' own words beside it."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

    canvas = Canvas(figsize=(1.7 * len(parallel.dimensions) + 1, 4.2), layout="constrained")
    axes = canvas.add_subplot()
    columns = []
    for place, dimension in enumerate(parallel.dimensions):
        low, high = min(dimension.values), max(dimension.values)
        width = (high - low) or 1.0
        columns.append([(value - low) / width for value in dimension.values])
        axes.axvline(place, color="#808080", linewidth=0.8)
        for value, word in dimension.ticks:
            axes.text(place - 0.03, (value - low) / width, word, **_BESIDE_AXIS)
    lines = [list(enumerate(run)) for run in zip(*columns, strict=True)]
    colors = [parallel.styles[arm].color for arm in parallel.arms]
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.6, alpha=0.6))
    axes.set_xlim(-0.4, len(columns) - 0.8)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(range(len(columns)), [dimension.label for dimension in parallel.dimensions])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    for arm, style in parallel.styles.items():
        axes.add_line(Line2D([], [], color=style.color, label=arm))
    _title(canvas, figure, "")
    _legend(canvas, [axes])
    return canvas

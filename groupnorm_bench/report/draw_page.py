"""Charts as Plotly figures: plain dictionaries, for `Plotly.newPlot` in the page.

Colours of axes and text are left to the page, which knows whether it is light or dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from groupnorm_bench.report.charts import (
    ChartAxis,
    Dimension,
    Figure,
    FigureView,
    Panel,
    Parallel,
    Series,
)

BAR_OPACITY = 0.6
"""Of bars, so that the interval over one is seen."""
TOOLBAR = 34
"""CSS pixels kept free above the marks, for the title and Plotly's toolbar."""
MARK = 10
"""CSS pixels of a mark, so that its shape is seen over its bar."""
SIGNIFICANT = 6
"""Digits kept of a drawn number: more than any screen shows."""
MAX_STRONG_BANDS = 4
"""Bands of more arms than this are drawn fainter, or they hide each other."""
_BAND, _FAINT_BAND = "2e", "14"
"""Opacity, appended to a colour's six hex digits."""


def figure_spec(figure: Figure) -> dict[str, Any]:
    """Return what the page's script needs to draw a figure."""
    if figure.parallel is not None:
        return {"parallel": parallel_spec(figure.parallel)}
    return {"views": [_view_spec(view) for view in figure.views]}


def _view_spec(view: FigureView) -> dict[str, Any]:
    return {"label": view.label, "panels": [panel_spec(panel) for panel in view.panels]}


def panel_spec(panel: Panel) -> dict[str, Any]:
    """Return a panel as Plotly's `data` and `layout`."""
    faint = len(panel.series) > MAX_STRONG_BANDS
    data = [trace for series in panel.series for trace in _traces(series, faint)]
    layout: dict[str, Any] = {
        "height": panel.height,
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": TOOLBAR, "b": 8},
        "shapes": _shapes(panel),
    }
    if panel.title:
        layout["title"] = {
            "text": plain(panel.title),
            "x": 0,
            "xref": "paper",
            "font": {"size": 13},
        }
    return {"data": data, "layout": layout}


def plain(text: str) -> str:
    """Return text that Plotly draws as it stands: Plotly reads tags and entities in any text."""
    return html.escape(text, quote=False)


def _axis(axis: ChartAxis) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "title": {"text": plain(axis.title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
    }
    if axis.log:
        spec |= {"type": "log", "tickformat": "~g"}  # else 20 and 200 are both marked "2"
    if axis.bounds is not None:
        low, high = axis.bounds
        spec["autorangeoptions"] = {"clipmin": low, "clipmax": high}
    if axis.ticks is not None:
        places = [place for place, _ in axis.ticks]
        spec |= {
            "tickmode": "array",
            "tickvals": places,
            "ticktext": [plain(word) for _, word in axis.ticks],
            "range": _range(places, axis),
        }
    elif axis.from_zero:
        spec["rangemode"] = "tozero"
    return spec


def _range(places: Sequence[float], axis: ChartAxis) -> list[float]:
    """Return the ends of an axis with named places, half a place beyond the outer ones."""
    numbers = [math.log2(place) for place in places] if axis.log else list(places)
    ends = [min(numbers) - 0.5, max(numbers) + 0.5]
    if axis.log:
        ends = [end * math.log10(2) for end in ends]
    return ends[::-1] if axis.reversed else ends


def _shapes(panel: Panel) -> list[dict[str, Any]]:
    shapes: list[dict[str, Any]] = [
        {
            "type": "rect",
            "layer": "below",
            "x0": _short(left),
            "x1": _short(right),
            "y0": bottom,
            "y1": top,
            "line": {"width": 0},
            "fillcolor": "#80808033",
        }
        for left, right, bottom, top in panel.shades
    ]
    if panel.zero_line is not None:
        across = panel.zero_line == "x"
        shapes.append(
            {
                "type": "line",
                "layer": "below",
                "xref": "x" if across else "paper",
                "yref": "paper" if across else "y",
                "x0": 0,
                "x1": 0 if across else 1,
                "y0": 0,
                "y1": 1 if across else 0,
                "line": {"width": 1.5, "color": "#808080"},
            }
        )
    return shapes


def _traces(series: Series, faint: bool) -> list[dict[str, Any]]:
    if series.kind == "bars":
        return [_bar_trace(series)]
    trace = _base_trace(series)
    if series.kind == "reference":
        (height,) = series.y
        places = len(series.x)
        return [
            trace
            | {
                "x": list(series.x),
                "y": [_short(height)] * places,
                "text": [*[""] * (places - 1), plain(series.label)],
                "textposition": "top left",
                "textfont": {"color": series.style.color},
            }
        ]
    if series.band:
        return [*_band_traces(series, faint), trace]
    if series.low is not None and series.high is not None:
        trace["error_x" if series.across else "error_y"] = _error(series, series.low, series.high)
    if series.names is not None:
        trace["mode"] += "+text"
        trace |= {"text": [plain(name) for name in series.names], "textposition": "middle right"}
        trace["textfont"] = {"size": 10, "color": series.style.color}
    return [trace]


def _base_trace(series: Series) -> dict[str, Any]:
    style = series.style
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": {"line": "lines+markers", "points": "markers", "reference": "lines+text"}[
            series.kind
        ],
        "name": plain(series.label),
        "meta": {"arm": series.arm},
        "x": _shorts(series.x),
        "y": _shorts(series.y),
        "marker": {"color": style.color, "symbol": style.marker, "size": MARK},
        "line": {"color": style.color, "width": 2, "dash": style.dash},
    }
    if series.kind == "reference":
        trace["line"] |= {"width": 1.5, "dash": "dash"}
    if series.kind == "line" and series.band:
        trace["marker"]["size"] = 5
    if series.text is not None:
        words = [plain(word) for word in series.text]
        trace["hovertext"] = words if series.kind != "reference" else words[0]
        trace["hoverinfo"] = "text"
    else:
        trace["hovertemplate"] = f"{trace['name']}: %{{y:.4g}}<extra></extra>"
    return trace


def _band_traces(series: Series, faint: bool) -> list[dict[str, Any]]:
    """Return the lower and the upper edge, the latter filled down to the former."""
    kept = [
        (x, low, high)
        for x, low, high in zip(series.x, series.low or (), series.high or (), strict=True)
        if low is not None and high is not None
    ]
    if not kept:
        return []
    edge: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": _shorts([x for x, _, _ in kept]),
        "line": {"width": 0, "color": series.style.color},
        "hoverinfo": "skip",
        "meta": {"arm": series.arm},
        "name": plain(series.label),
    }
    lower = edge | {"y": _shorts([low for _, low, _ in kept])}
    upper = edge | {
        "y": _shorts([high for _, _, high in kept]),
        "fill": "tonexty",
        "fillcolor": series.style.color + (_FAINT_BAND if faint else _BAND),
    }
    return [lower, upper]


def _bar_trace(series: Series) -> dict[str, Any]:
    trace = {
        "type": "bar",
        "orientation": "h",
        "name": plain(series.label),
        "meta": {"arm": series.arm},
        "x": _shorts(series.x),
        "y": _shorts(series.y),
        "width": 0.6,
        "marker": {"color": series.style.color, "opacity": BAR_OPACITY},
    }
    if series.low is not None and series.high is not None:
        trace["error_x"] = _error(series, series.low, series.high)
    if series.text is not None:
        trace |= {"hovertext": [plain(word) for word in series.text], "hoverinfo": "text"}
    return trace


def _error(series: Series, low: Sequence[Any], high: Sequence[Any]) -> dict[str, Any]:
    middle = series.x if series.across else series.y
    arms = [
        (None, None) if at is None or a is None or b is None else (b - at, at - a)
        for at, a, b in zip(middle, low, high, strict=True)
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": _shorts([up for up, _ in arms]),
        "arrayminus": _shorts([down for _, down in arms]),
        "thickness": series.width,
        "width": 3,
        "color": series.style.color,
    }


def parallel_spec(parallel: Parallel) -> dict[str, Any]:
    """Return the runs as the page's script draws and filters them."""
    arms = list(parallel.styles)
    place = {arm: i for i, arm in enumerate(arms)}
    return {
        "dimensions": [_dimension(dimension) for dimension in parallel.dimensions],
        "arms": arms,
        "colors": [style.color for style in parallel.styles.values()],
        "arm": [place[arm] for arm in parallel.arms],
        "runs": list(parallel.runs),
    }


def _dimension(dimension: Dimension) -> dict[str, Any]:
    places = [place for place, _ in dimension.ticks]
    low, high = min(*dimension.values, *places), max(*dimension.values, *places)
    pad = 0.02 * ((high - low) or 1) if dimension.is_scale else 0.04 * max(1, len(places) - 1)
    return {
        "title": dimension.label,  # as it stands, for the page's own controls
        "label": plain(dimension.label),
        "values": _shorts(dimension.values),
        "tickvals": _shorts(places),
        "words": [word for _, word in dimension.ticks],
        "ticktext": [plain(word) for _, word in dimension.ticks],
        "range": [_short(low - pad), _short(high + pad)],
        "scale": dimension.is_scale,
    }


def _shorts(numbers: Sequence[Any]) -> list[Any]:
    return [_short(number) for number in numbers]


def _short(number: Any) -> Any:
    if not isinstance(number, float):
        return number
    return float(f"{number:.{SIGNIFICANT}g}") if math.isfinite(number) else None

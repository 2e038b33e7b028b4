"""What a figure shows, free of any drawing library: both back ends read these values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.compare.series import Estimate
from groupnorm_bench.metrics import MetricSpec, metric_spec
from groupnorm_bench.report.palette import Style, style_of_run

Drawn = Literal["line", "points", "bars", "reference"]
"""`reference` is a horizontal line at its one y."""
Number = float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One arm's (or one quantity's) marks in a panel."""

    label: str
    style: Style
    arm: str | None = None
    """The arm it belongs to, for the legend that hides and shows arms; None: always shown."""
    kind: Drawn = "line"
    x: Sequence[float]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None
    band: bool = False
    """Draw low..high as a band, not as bars."""
    width: float = 1.5
    """Of the bars from low to high, in pixels."""
    across: bool = False
    """low..high belong to x, not to y."""
    text: Sequence[str] | None = None
    """What a pointer over each mark reads; plain text."""
    names: Sequence[str] | None = None
    """Words beside the marks, where colour and shape do not tell all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartAxis:
    """An axis: its title with its unit, and where it is marked."""

    title: str
    log: bool = False
    ticks: Sequence[tuple[float, str]] | None = None
    """Positions and their words; the drawing library's choice if None."""
    from_zero: bool = False
    bounds: tuple[float, float] | None = None
    """Nothing beyond these is shown: an interval may be wider than what can be."""
    reversed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One pair of axes."""

    x: ChartAxis
    y: ChartAxis
    series: Sequence[Series]
    title: str = ""
    height: int = 380
    """In CSS pixels."""
    zero_line: Literal["x", "y"] | None = None
    """Emphasise 0 on this axis."""
    shades: Sequence[tuple[float, float, float, float]] = ()
    """Boxes to shade behind the marks: left, right, and two heights, in the axes' units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureView:
    """Panels that belong together: one setting of what the figure does not show."""

    label: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One axis of the parallel coordinates: a value per run."""

    label: str
    values: Sequence[float]
    ticks: Sequence[tuple[float, str]]
    """Places and their words, lowest first."""
    is_scale: bool = False
    """A number of any size, marked at round places; else every value is a place of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """Runs as lines across axes, coloured by arm."""

    dimensions: Sequence[Dimension]
    arms: Sequence[str]
    """The arm of each line."""
    runs: Sequence[int]
    """The run of each line: its place in the table of runs."""
    styles: dict[str, Style]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Numbers in rows."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Text, numbers or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure of the report."""

    key: str
    """Its file's name and its anchor."""
    title: str
    caption: str
    views: Sequence[FigureView] = ()
    parallel: Parallel | None = None
    table: Table | None = None
    """The numbers behind it."""
    absent: str = ""
    """Why there is nothing to draw; empty where there is."""

    def without(self, why: str) -> Figure:
        """Return the figure with the reason why there is nothing to draw."""
        return self.filled(absent=why)

    def filled(self, note: str = "", **changes: Any) -> Figure:
        """Return the figure with its content, and `note` at the end of its caption."""
        caption = f"{self.caption} {note}".strip()
        return dataclasses.replace(self, caption=caption, **changes)

    @property
    def arms(self) -> list[tuple[str, Style]]:
        """Arms drawn in it, in order of appearance."""
        if self.parallel is not None:
            return list(self.parallel.styles.items())
        found: dict[str, Style] = {}
        for view in self.views:
            for panel in view.panels:
                for series in panel.series:
                    if series.arm is not None:
                        found.setdefault(series.arm, series.style)
        return list(found.items())


MAX_TICKS = 12


def metric_axis(metric: str) -> ChartAxis:
    """Return the axis of a metric; an accuracy lies between 0 and 100 %, with room for marks."""
    spec = metric_spec(metric)
    if spec.bounds is None:
        return ChartAxis(title=spec.title)
    low, high = (bound * spec.factor for bound in spec.bounds)
    return ChartAxis(title=spec.title, bounds=(low, high + 0.5))


def estimate_series(
    arm: str,
    row: RunRow,
    marks: Sequence[tuple[float, Estimate, str]],
    metric: str,
    kind: Drawn = "line",
    names: Sequence[str] | None = None,
) -> Series:
    """Return an arm's estimates of a metric, with intervals, each at its x and with its name."""
    spec = metric_spec(metric)
    return Series(
        label=arm,
        arm=arm,
        style=style_of_run(row),
        kind=kind,
        x=[x for x, _, _ in marks],
        y=[e.mean for _, e, _ in marks],
        low=[e.low for _, e, _ in marks],
        high=[e.high for _, e, _ in marks],
        text=[f"{arm} at {name}: {estimate_text(e, spec)}" for _, e, name in marks],
        names=names,
    )


def estimate_text(estimate: Estimate, spec: MetricSpec) -> str:
    """Return an estimate in words: `98.41 (98.02 to 98.80), n=6`."""
    interval = (
        f" ({spec.text(estimate.low)} to {spec.text(estimate.high)})"
        if estimate.low is not None and estimate.high is not None
        else ""
    )
    return f"{spec.text(estimate.mean)}{interval}, n={estimate.n}"


def size_ticks(values: Sequence[float]) -> list[tuple[float, str]] | None:
    """Return a tick per value, or None where they are too many to print."""
    if len(values) > MAX_TICKS:
        return None
    return [(value, f"{value:g}") for value in values]

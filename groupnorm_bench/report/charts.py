"""What a figure shows, free of any drawing library: both back ends read these values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groupnorm_bench.report.palette import Style

Kind = Literal["line", "points", "bars", "reference"]
"""`reference` is a horizontal line at its one y."""
Number = float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One arm's (or one quantity's) marks in a panel."""

    label: str
    style: Style
    arm: str | None = None
    """The arm it belongs to, for the legend that hides and shows arms; None: always shown."""
    kind: Kind = "line"
    x: Sequence[float]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None
    band: bool = False
    """Draw low..high as a band, not as bars."""
    across: bool = False
    """low..high belong to x, not to y."""
    text: Sequence[str] | None = None
    """What a pointer over each mark reads; plain text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
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

    x: Axis
    y: Axis
    series: Sequence[Series]
    title: str = ""
    height: int = 380
    """In CSS pixels."""
    zero_line: Literal["x", "y"] | None = None
    """Emphasise 0 on this axis."""
    shades: Sequence[tuple[float, float, float, float]] = ()
    """Boxes to shade behind the marks: left, right, and two heights, in the axes' units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Panels that belong together: one setting of what the figure does not show."""

    label: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One axis of the parallel coordinates: a value per run."""

    label: str
    values: Sequence[float]
    ticks: Sequence[tuple[float, str]] | None = None
    """For settings: every value and its word, lowest first; None for a scale."""


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
    views: Sequence[View] = ()
    parallel: Parallel | None = None
    table: Table | None = None
    """The numbers behind it."""
    absent: str = ""
    """Why there is nothing to draw; empty where there is."""

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

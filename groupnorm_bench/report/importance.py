"""Which setting matters: variance shares beside the forest importance that W&B shows."""

from __future__ import annotations

from collections.abc import Sequence

from groupnorm_bench.compare.importance import (
    Forest,
    VarianceShares,
    forest_importance,
    variance_shares,
)
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.errors import CompareError
from groupnorm_bench.report.charts import ChartAxis, Figure, FigureView, Panel, Series, Table
from groupnorm_bench.report.palette import Style

_SETTING = Style("#3f7cac", "circle")
_SEED = Style("#808080", "circle")
MAX_BARS = 16


def importance(rows: Sequence[RunRow], metric: str, alpha: float) -> Figure:
    """Return variance shares with intervals, and forest importance with linear correlation."""
    base = Figure(
        key="importance",
        title="Which setting matters",
        caption=(
            "Left: the share of the variance over all runs that each setting explains, with its "
            f"{1 - alpha:.0%} bootstrap interval; the seed's share (grey) is the yardstick. "
            "Right, for those who know W&B's panel: a random forest's importance; its table adds "
            "the linear correlation."
        ),
    )
    notes, panels, table = [], [], []
    try:
        shares = variance_shares(rows, metric, alpha)
        panels.append(_shares_panel(shares))
        notes += [f"Shares: {note}." for note in shares.notes]
        table += _share_rows(shares)
    except CompareError as error:
        notes.append(f"No variance shares: {error}.")
    try:
        forest = forest_importance(rows, metric)
        panels.append(_forest_panel(forest))
        notes += [f"Forest: {note}." for note in forest.notes]
        table += _forest_rows(forest)
    except CompareError as error:
        notes.append(f"No forest importance: {error}.")
    if not panels:
        return base.without(" ".join(notes))
    headers = ["method", "source", "share or importance", "low", "high", "by chance", "correlation"]
    views = [FigureView(label="all runs", panels=panels)]
    return base.filled(" ".join(notes), views=views, table=Table(headers=headers, rows=table))


def _shares_panel(shares: VarianceShares) -> Panel:
    shown = [*shares.shares[:-1][: MAX_BARS - 1], shares.shares[-1]]
    groups = {"settings": (_SETTING, shown[:-1], 0), "seed": (_SEED, shown[-1:], len(shown) - 1)}
    return Panel(
        title="share of variance (%)",
        x=ChartAxis(title="", from_zero=True),
        y=ChartAxis(
            title="", ticks=[(i, share.source) for i, share in enumerate(shown)], reversed=True
        ),
        series=[
            Series(
                label=label,
                style=style,
                kind="bars",
                across=True,
                x=[100 * share.share for share in part],
                y=[first + i for i in range(len(part))],
                low=[None if s.ci_low is None else 100 * s.ci_low for s in part],
                high=[None if s.ci_high is None else 100 * s.ci_high for s in part],
                text=[
                    f"{s.source}: {s.share:.1%} ({s.expected_by_chance:.1%} by chance alone)"
                    for s in part
                ],
            )
            for label, (style, part, first) in groups.items()
        ],
        height=_height(len(shown)),
    )


def _forest_panel(forest: Forest) -> Panel:
    shown = forest.columns[:MAX_BARS]
    return Panel(
        title="random-forest importance (%)",
        x=ChartAxis(title="", from_zero=True),
        y=ChartAxis(
            title="", ticks=[(i, column.column) for i, column in enumerate(shown)], reversed=True
        ),
        series=[
            Series(
                label="forest",
                style=_SETTING,
                kind="bars",
                x=[100 * column.importance for column in shown],
                y=list(range(len(shown))),
                text=[
                    f"{c.column}: {c.importance:.1%}"
                    + ("" if c.correlation is None else f", correlation {c.correlation:+.2f}")
                    for c in shown
                ],
            )
        ],
        height=_height(len(shown)),
    )


def _height(bars: int) -> int:
    return 90 + 28 * max(4, bars)


def _share_rows(shares: VarianceShares) -> list[list[object]]:
    return [
        ["variance", s.source, s.share, s.ci_low, s.ci_high, s.expected_by_chance, None]
        for s in shares.shares
    ]


def _forest_rows(forest: Forest) -> list[list[object]]:
    return [
        ["forest", c.column, c.importance, None, None, None, c.correlation] for c in forest.columns
    ]

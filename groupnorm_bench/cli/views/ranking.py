"""The ranking a sweep ends with: cells by their mean over seeds, never by their best seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groupnorm_bench.wording import count, setting_value

if TYPE_CHECKING:
    from rich.console import RenderableType

    from groupnorm_bench.compare.cells import CellSummary

_SHOWN = 20


def as_data(ranking: list[CellSummary]) -> list[dict[str, Any]]:
    """Return the ranking as data; accuracies in per cent, as their spread is."""
    from groupnorm_bench.metrics import metric_spec

    return [
        {
            "rank": place,
            "arm": cell.arm,
            "cell": cell.cell,
            "setting": cell.setting,
            "timed_on": cell.timed_on,
            "metric": cell.metric,
            "unit": "percent" if metric_spec(cell.metric).is_percent else None,
            "mean": cell.mean,
            "sd": cell.sd,
            "n": cell.n,
            "other_statuses": cell.other_statuses,
        }
        for place, cell in enumerate(ranking, 1)
    ]


def draw_ranking(ranking: list[CellSummary]) -> RenderableType:
    """Return the ranking as a table."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from groupnorm_bench.compare.order import varying
    from groupnorm_bench.metrics import metric_spec

    if not ranking:
        return Text("no run has finished yet", style="dim")
    metric = ranking[0].metric
    names = varying(cell.setting for cell in ranking)
    spec = metric_spec(metric)
    unit = " %" if spec.is_percent else ""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("arm")
    for name in (*names, f"{metric}{unit}", "sd", "n", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for place, cell in enumerate(ranking[:_SHOWN], 1):
        table.add_row(
            str(place),
            cell.arm,
            *(setting_value(cell.setting.get(name)) for name in names),
            spec.text(cell.mean) or "-",
            spec.text(cell.sd) or "-",
            str(cell.n),
            ", ".join(f"{count} {status}" for status, count in cell.other_statuses.items()),
        )
    if len(ranking) <= _SHOWN:
        return table
    return Group(table, Text(f"... and {count(len(ranking) - _SHOWN, 'more cell')}", style="dim"))

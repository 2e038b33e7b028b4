"""What `compare` and `report` ask alike: which runs, chosen how, held against what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from groupnorm_bench.compare.rows import RunTable

Baseline = Annotated[
    str | None, typer.Option(help="Arm that the others are held against; batch by default.")
]
Metric = Annotated[str, typer.Option(help="Summary metric.")]
Where = Annotated[
    str | None, typer.Option(help="Only these runs, as 'batch_size<=32 and norm!=none'.")
]
Choose = Annotated[
    str | None,
    typer.Option(help="Settings to choose per arm on validation, as lr or num_groups,lr."),
]
Alpha = Annotated[float, typer.Option(help="False verdicts allowed over the family.")]
Margin = Annotated[
    float | None,
    typer.Option(help="Differences inside it are equal: points; default one standard error."),
]


def load_chosen(sources: list[str], where: str | None, choose: str | None) -> RunTable:
    """Return the runs asked for, of chosen settings only the cells that validate best.

    Raises:
        CompareError: a filter or a setting to choose makes no sense.
        RunFolderError, TrackingError: a source cannot be read.
    """
    from groupnorm_bench.compare.choice import choose as choose_cells
    from groupnorm_bench.compare.load import load_runs

    table = load_runs(sources, where)
    if choose is None:
        return table
    return choose_cells(table, [name.strip() for name in choose.split(",")])

"""What `compare` and `report` ask alike: which runs, chosen how, held against what."""

from __future__ import annotations

from typing import Annotated

import typer

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


def names_of(choose: str | None) -> list[str]:
    """Return the settings of `--choose lr,num_groups`."""
    return [] if choose is None else [name.strip() for name in choose.split(",")]

"""What `compare` and `report` ask alike: which runs, chosen how, held against what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.errors import CompareError

if TYPE_CHECKING:
    from groupnorm_bench.compare.foreign import Columns

Baseline = Annotated[
    str | None, typer.Option(help="Arm that the others are held against; batch by default.")
]
MetricName = Annotated[
    str | None,
    typer.Option(
        help="Summary metric.", show_default="test/accuracy", autocompletion=completing.metrics
    ),
]
Goal = Annotated[
    str | None,
    typer.Option(
        help="maximize or minimize the metric; of one gnbench does not know, its name tells.",
        show_default="by its name",
        autocompletion=completing.words(("maximize", "minimize")),
    ),
]
Where = Annotated[
    str | None, typer.Option(help="Only these runs, as 'batch_size<=32 and norm!=none'.")
]
Choose = Annotated[
    str | None,
    typer.Option(help="Settings to choose per arm on validation, as lr or num_groups,lr."),
]
ChooseSeeds = Annotated[
    str | None,
    typer.Option(help="Seeds to choose by, as 8-11 or 8,9: they are not reported."),
]
Alpha = Annotated[
    float | None,
    typer.Option(help="False verdicts allowed over the family.", show_default="0.05"),
]
Margin = Annotated[
    float | None,
    typer.Option(help="Differences inside it count for nothing: points. Without it, no `equal`."),
]
DecideOver = Annotated[
    str | None,
    typer.Option(
        help="each, mean or slope over the settings.",
        show_default="each",
        autocompletion=completing.words(("each", "mean", "slope")),
    ),
]
Planned = Annotated[
    bool,
    typer.Option("--planned", help="The seeds were fixed beforehand, this is the only look."),
]
AllPairs = Annotated[
    bool, typer.Option("--all-pairs", help="Every arm against every other, with letters.")
]
Arm = Annotated[
    str | None,
    typer.Option(
        help="What is compared: settings of runs, as optimizer, or columns of a table.",
        show_default="norm",
        metavar="NAMES",
    ),
]
SeedColumn = Annotated[
    str | None, typer.Option(help="Of a table: the column of seeds.", metavar="NAME")
]
SettingColumns = Annotated[
    str | None,
    typer.Option(help="Of a table: columns that runs must share to be compared.", metavar="NAMES"),
]


def columns_of(
    arm: str | None, seed: str | None, metric: str | None, setting: str | None
) -> Columns:
    """Return which column of a table is what; of runs, which settings make the arm."""
    from groupnorm_bench.compare.foreign import Columns

    return Columns(
        arm=tuple(names_of(arm)),
        seed=seed,
        metric=metric,
        setting=None if setting is None else tuple(filter(None, names_of(setting))),
    )


def seeds_of(text: str | None) -> list[int]:
    """Return the seeds of `--choose-seeds 8-11,20`.

    Raises:
        CompareError: they are not clear.
    """
    seeds: list[int] = []
    for part in (text or "").split(",") if text is not None else ():
        first, _, last = part.strip().partition("-")
        ends = (first, last or first)
        if not all(end.isdecimal() and len(end) <= 6 for end in ends) or int(ends[0]) > int(
            ends[1]
        ):
            shown = repr(text if len(text or "") <= 40 else f"{text:.40}...")
            raise CompareError(f"choose-seeds={shown} is not clear; write it as in 8-11 or 8,9")
        seeds += range(int(ends[0]), int(ends[1]) + 1)
    return seeds


def names_of(choose: str | None) -> list[str]:
    """Return the settings of `--choose lr,num_groups`."""
    return [] if choose is None else [name.strip() for name in choose.split(",")]

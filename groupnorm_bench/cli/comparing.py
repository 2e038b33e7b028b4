"""What `compare` and `report` ask alike: which runs, chosen how, held against what."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.errors import CompareError

if TYPE_CHECKING:
    from groupnorm_bench.compare.contrast import Rule
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """What was asked, each field by the option of its name."""

    baseline: Baseline = None
    metric: MetricName = None
    goal: Goal = None
    where: Where = None
    arm: Arm = None
    seed: SeedColumn = None
    setting: SettingColumns = None
    choose: Choose = None
    choose_seeds: ChooseSeeds = None
    alpha: Alpha = None
    margin: Margin = None
    decide: DecideOver = None
    planned: Planned = False

    @property
    def rule(self) -> Rule:
        return "planned" if self.planned else "anytime"

    def question(self) -> dict[str, Any]:
        """Return the fields of a `Question` that stand in place of the runs' own; None for none."""
        names = ("baseline", "metric", "goal", "alpha", "margin", "decide")
        return {name: getattr(self, name) for name in names}

    def choice(self) -> dict[str, Any]:
        """Return which runs, chosen how, as `chosen_runs` takes it.

        Raises:
            CompareError: the seeds to choose by are not clear.
        """
        return {
            "where": self.where,
            "choose": names_of(self.choose),
            "choose_seeds": seeds_of(self.choose_seeds),
            "columns": self._columns(),
        }

    def _columns(self) -> Columns:
        """Return which column of a table is what; of runs, which settings make the arm."""
        from groupnorm_bench.compare.foreign import Columns

        return Columns(
            arm=tuple(names_of(self.arm)),
            seed=self.seed,
            metric=self.metric,
            setting=None if self.setting is None else tuple(filter(None, names_of(self.setting))),
        )


def with_asking(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command's `asked` parameter an option for every field of `Asking`."""
    fields = inspect.signature(Asking, eval_str=True).parameters

    @functools.wraps(command)
    def wrapper(**options: Any) -> int | None:
        asked = Asking(**{name: options.pop(name) for name in fields})
        return command(asked=asked, **options)

    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(command, eval_str=True).parameters.values():
        parameters += fields.values() if own.name == "asked" else [own]
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=kind) for parameter in parameters]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


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

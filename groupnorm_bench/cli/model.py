"""`gnbench model`: a network's norm layers under some arms, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import AsJson, Threads, app, print_json
from groupnorm_bench.processors import give_torch_threads
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS

if TYPE_CHECKING:
    from groupnorm_bench.bench.arms import ArmSurvey

_NORMS = ("batch", "group")


@app.command("model")
def model_command(
    model: Annotated[
        str,
        typer.Argument(
            help="cnn, resnet20, torchvision:NAME, timm:NAME or package.module:make_model.",
            autocompletion=completing.models,
        ),
    ],
    norm: Annotated[
        list[str] | None,
        typer.Option(
            "--norm",
            help=f"A norm; repeat for more. {' and '.join(_NORMS)} if not given.",
            metavar="NAME",
            autocompletion=completing.norms,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups", "--num-groups", metavar="N", help="Number of groups; auto if not given."
        ),
    ] = None,
    group_size: Annotated[
        str | None,
        typer.Option("--group-size", metavar="N", help="Channels per group, instead of --groups."),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="Whose images and classes it is built for.",
            metavar="NAME",
            autocompletion=completing.data_sets,
        ),
    ] = "auto",
    batch_size: Annotated[str, typer.Option(metavar="N", help="Images per step.")] = "64",
    repeats: Annotated[
        int, typer.Option(min=0, max=1_000, help="Steps to time of each arm; 0 times none.")
    ] = 5,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show a network's norm layers under each norm, its size, and what a step takes on the CPU.

    Nothing is trained or kept. What does not fit is refused, as `train` and `sweep` would.
    """
    settings: dict[str, Any] = {
        "model": model, "num_groups": groups, "group_size": group_size,
        "dataset": dataset, "batch_size": batch_size, "device": "cpu",
    }  # fmt: skip
    settings = {name: value for name, value in settings.items() if value is not None}
    if not {"num_groups", "group_size"} & settings.keys():
        settings["num_groups"] = "auto"
    arms = {
        config.arm: config
        for name in norm or _NORMS
        for config in [TrainConfig.from_mapping({**settings, "norm": name})]
    }
    from groupnorm_bench.bench.arms import survey_arms

    give_torch_threads(threads)
    found = survey_arms(arms.values(), repeats)
    if as_json:
        print_json(_to_data(found))
        return
    from groupnorm_bench.cli.views.model import lines_of

    for line in lines_of(found):
        typer.echo(line)


def _to_data(arms: list[ArmSurvey]) -> dict[str, Any]:
    config, shape = arms[0].config, arms[0].image_shape
    return {
        "model": config.model,
        "image_shape": list(shape),
        "num_classes": arms[0].survey.output_shape[0],
        "batch_size": config.batch_size,
        "notes": list(arms[0].notes),
        "arms": [
            {
                "arm": arm.config.arm,
                **{n: v for n, v in arm.config.cell_settings.items() if n in ARM_SETTINGS},
                "parameters": arm.survey.parameters,
                "multiply_adds": arm.survey.multiply_adds,
                "step_ms": arm.milliseconds,
                "sites": [
                    {
                        "name": use.site.name,
                        "channels": use.site.num_channels,
                        "map": list(use.map_size),
                        "groups": use.num_groups,
                        "elements": use.elements,
                        "calls": use.calls,
                        "was": use.site.was,
                        "became": use.site.became,
                        "carried": list(use.site.carried),
                        "kept": use.site.kept,
                    }
                    for use in arm.survey.uses
                ],
            }
            for arm in arms
        ],
    }

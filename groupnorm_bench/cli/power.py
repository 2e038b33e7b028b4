"""`gnbench power`: how many seeds a sweep's question takes, before anything is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli.app import AsJson, DataDir, Quiet, app, print_drawn, print_json
from groupnorm_bench.cli.comparing import Planned
from groupnorm_bench.cli.settings import note_data_dir
from groupnorm_bench.cli.sweep import SweepFile, Workers
from groupnorm_bench.settings.config import TrainConfig

if TYPE_CHECKING:
    from groupnorm_bench.sweep.plan.describe import Cost


@app.command("power")
def power_command(
    context: typer.Context,
    file: SweepFile,
    difference: Annotated[
        float, typer.Option(help="The true difference to be seen, in points for accuracies.")
    ],
    sd: Annotated[
        float, typer.Option(help="Its standard deviation from one paired seed to the next.")
    ],
    planned: Planned = False,
    workers: Workers = "auto",
    data_dir: DataDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Simulate how many seeds a sweep's question takes, and how long that is on this machine.

    Nothing is trained but a few steps, to time them.
    """
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.sweep.file.shipped import find_sweep
    from groupnorm_bench.sweep.plan.power import plan_power
    from groupnorm_bench.sweep.session import Session, SweepOptions

    note = (lambda line: None) if quiet else say
    options = SweepOptions(data_dir=data_dir, workers=workers, wandb="disabled")
    session = Session(find_sweep(file), TrainConfig(), options, say=say, note=note)

    note_data_dir(context, session.datasets, note)

    def estimate() -> Cost | None:
        note("timing a few steps of each kind of run")
        return session.estimate()

    power = plan_power(session.plan, difference, sd, planned=planned, estimate=estimate)
    if as_json:
        print_json(power.to_data())
        return
    from groupnorm_bench.cli.views.power import draw_power

    print_drawn(draw_power(power, str(file)))

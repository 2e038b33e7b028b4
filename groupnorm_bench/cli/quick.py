"""`gnbench quick`: from nothing to a verdict and its page, in about a minute."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from groupnorm_bench.cli.app import DataDir, Quiet, app
from groupnorm_bench.cli.compare import print_comparison
from groupnorm_bench.cli.settings import note_data_dir
from groupnorm_bench.cli.sweep import raise_what_remains, run_watched
from groupnorm_bench.cli.train import WandbMode
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.signals import StopSignal

_OUT = Path("quick")


@app.command("quick")
def quick_command(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run folders.")] = _OUT,
    page: Annotated[Path, typer.Option("--page", help="The report to write.")] = Path("quick.html"),
    data_dir: DataDir = None,
    wandb: WandbMode = "auto",
    quiet: Quiet = False,
) -> None:
    """Compare none, batch and group norm on the bundled digits: a verdict in about a minute.

    It is `gnbench sweep quick`, `gnbench compare` and `gnbench report` in one: eight paired seeds,
    and more where these decide nothing. Typed again, it goes on, or tells the verdict anew.
    """
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.compare.ask import compare
    from groupnorm_bench.report.write import report
    from groupnorm_bench.sweep.file.shipped import find_sweep
    from groupnorm_bench.sweep.session import Session, SweepOptions
    from groupnorm_bench.tracking.options import Mode

    note = (lambda line: None) if quiet else say
    options = SweepOptions(runs=out, data_dir=data_dir, wandb=cast("Mode", wandb))
    session = Session(find_sweep("quick"), TrainConfig(), options, say=say, note=note)
    note_data_dir(context, session.datasets, note)
    session.open()
    with StopSignal() as stop:
        outcome = run_watched(session, stop, quiet)
        raise_what_remains(outcome, out, stop)
    print_comparison(compare(str(out)), "table", places=(str(out),))
    command = shlex.join(["gnbench", *sys.argv[1:]])
    written = report(str(out), page, data_dir=data_dir, command=command)
    if not quiet:
        typer.echo(
            f"\nthe page: {written.path}"
            "\nnext: gnbench sweep norm --dry-run   (more groups and batch sizes, longer training)"
        )

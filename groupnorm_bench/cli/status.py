"""`gnbench status`: what is finished, running, failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, AsJson, app, print_drawn, print_json
from groupnorm_bench.errors import ConfigError

if TYPE_CHECKING:
    from groupnorm_bench.sweep.status import RunsStatus

_EVERY_SECONDS = 2.0


@app.command("status")
def status_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUNS",
            help="Folders of run folders.",
            show_default="runs",
            autocompletion=completing.run_folders,
        ),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--runs", help="A line for each run.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what is finished, running and failed; also while a sweep runs, from any terminal."""
    from groupnorm_bench.sweep.status import read_status

    paths = runs or [DEFAULT_RUNS_DIR]
    if all_runs and (watch or as_json):
        raise ConfigError("--runs lists runs once, for a person; leave --watch and --json out")
    if watch and as_json:
        raise ConfigError("watch does not go with --json, which prints one document; drop one")
    if watch:
        _watch(paths)
    elif as_json:
        print_json(_as_data(read_status(paths)))
    else:
        from groupnorm_bench.cli.views.status import draw_status

        print_drawn(draw_status(read_status(paths), all_runs=all_runs))


def _as_data(status: RunsStatus) -> dict[str, object]:
    return {
        "runs": len(status.runs),
        "counts": status.counts,
        "unsettled": [
            run.to_data() for run in status.in_state("running", "interrupted", "failed", "diverged")
        ],
        "questions": status.questions,
        "problems": status.problems,
    }


def _watch(paths: list[Path]) -> None:
    """Redraw in place on a terminal; elsewhere print again whenever something has changed."""
    from rich.console import Console
    from rich.live import Live

    from groupnorm_bench.cli.views.status import counts_in_words, draw_status
    from groupnorm_bench.sweep.status import read_status

    console = Console()
    try:
        if not sys.stdout.isatty():
            shown = None
            while True:
                status = read_status(paths)
                if status.counts != shown:
                    shown = status.counts
                    console.print(counts_in_words(status), soft_wrap=True)
                time.sleep(_EVERY_SECONDS)
        with Live(draw_status(read_status(paths)), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_EVERY_SECONDS)
                live.update(draw_status(read_status(paths)), refresh=True)
    except KeyboardInterrupt:  # the one way to end it, so no failure
        return

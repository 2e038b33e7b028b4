"""`gnbench status`: what is finished, running, failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, AsJson, app, print_drawn, print_json
from groupnorm_bench.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from groupnorm_bench.sweep.status import RunState, Status

_EVERY_SECONDS = 2.0
_SHOWN = 10


@app.command("status")
def status_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUNS]...", help="Folders of run folders.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what is finished, running and failed; also while a sweep runs, from any terminal."""
    from groupnorm_bench.sweep.status import read_status

    paths = runs or [DEFAULT_RUNS_DIR]
    if watch and as_json:
        raise ConfigError("watch does not go with --json, which prints one document; drop one")
    if watch:
        _watch(paths)
    elif as_json:
        print_json(_as_data(read_status(paths)))
    else:
        print_drawn(draw_status(read_status(paths)))


def _as_data(status: Status) -> dict[str, object]:
    return {
        "runs": len(status.runs),
        "counts": status.counts,
        "unsettled": [
            run.to_data() for run in status.in_state("running", "interrupted", "failed", "diverged")
        ],
        "problems": status.problems,
    }


def _watch(paths: list[Path]) -> None:
    """Redraw in place on a terminal; elsewhere print again whenever something has changed."""
    from rich.console import Console
    from rich.live import Live

    from groupnorm_bench.sweep.status import read_status

    console = Console()
    try:
        if not sys.stdout.isatty():
            shown = None
            while True:
                status = read_status(paths)
                if status.counts != shown:
                    shown = status.counts
                    console.print(_counts(status), soft_wrap=True)
                time.sleep(_EVERY_SECONDS)
        with Live(draw_status(read_status(paths)), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_EVERY_SECONDS)
                live.update(draw_status(read_status(paths)), refresh=True)
    except KeyboardInterrupt:  # the one way to end it, so no failure
        return


def draw_status(status: Status) -> RenderableType:
    """Return the counts, the runs at work, and those that went wrong."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(_counts(status), style="bold")]
    running = status.in_state("running")
    if running:
        parts += [Text(), _running_table(running)]
    for run in status.in_state("failed", "diverged")[:_SHOWN]:
        error = run.result.summary.get("error") if run.result is not None else None
        parts.append(Text(f"{run.state}: {run.name}: {error or 'no reason given'}"))
    left_out = len(status.in_state("failed", "diverged")) - _SHOWN
    if left_out > 0:
        parts.append(Text(f"... and {left_out} more", style="dim"))
    parts += [Text(problem, style="yellow") for problem in status.problems]
    return Group(*parts)


def _counts(status: Status) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in status.counts.items())
    return f"{len(status.runs):,} runs" + (f": {counts}" if counts else "")


def _running_table(runs: list[RunState]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("running", no_wrap=True)
    table.add_column("epoch", justify="right")
    table.add_column("val/accuracy", justify="right")
    for run in runs:
        config = None if run.result is None else run.result.config
        epochs = "" if config is None or config.max_steps is not None else f"/{config.epochs}"
        accuracy = "-" if run.accuracy is None else f"{run.accuracy:.4f}"
        table.add_row(run.name, f"{run.epoch}{epochs}", accuracy)
    return table

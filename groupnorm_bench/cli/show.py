"""`gnbench show`: one run, as it lies in its folder."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, AsJson, app, print_json
from groupnorm_bench.errors import RunFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from groupnorm_bench.metrics import EpochRow
    from groupnorm_bench.runs import FoundRun, RunResult

_LOGGED = 5
"""Columns that show what a function of the user's own has logged."""


@app.command("show")
def show_command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, or its name (in `runs`), or how that begins.",
            autocompletion=completing.runs,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show one run: its settings, its epochs, what came out, where it ran."""
    found = _find(run)
    if as_json:
        result = found.result
        print_json(
            {
                "run": result.config.name,
                "run_dir": str(found.folder.path),
                "status": result.status,
                "config": result.config.to_dict(),
                "summary": result.summary,
                "history": result.history,
                "environment": result.environment,
                "wandb": result.wandb,
            }
        )
        return
    _print(found.result, found.folder.path)


def _find(run: str) -> FoundRun:
    """Return the run that is meant.

    Raises:
        RunFolderError: there is none, or several.
    """
    from groupnorm_bench.runs import find_runs

    if Path(run).is_dir():
        found, problems = find_runs([Path(run)])
        where = run
    else:
        found, problems = find_runs([DEFAULT_RUNS_DIR]) if DEFAULT_RUNS_DIR.is_dir() else ([], [])
        names = [one.result.config.name for one in found]
        named = [one for one in found if one.result.config.name == run]
        found = named or [one for one in found if one.result.config.name.startswith(run)]
        where = f"{DEFAULT_RUNS_DIR}/{run}"
        if not found and os.path.lexists(run):
            raise RunFolderError(f"run={run!r} is a file; name the folder of a run")
        if not found and names:
            close = difflib.get_close_matches(run, names, n=1, cutoff=0.4)
            remedy = f"did you mean {close[0]}?" if close else "see gnbench status --runs"
            raise RunFolderError(f"run={run!r} is not in {DEFAULT_RUNS_DIR}; {remedy}")
    if not found:
        raise RunFolderError(
            problems[0] if problems else f"{where} holds no run; see gnbench status"
        )
    if len(found) > 1:
        first = found[0].result.config.name
        raise RunFolderError(f"{run} may be any of {len(found)} runs; name one, as {first}")
    return found[0]


def _print(result: RunResult, folder: Path) -> None:
    from groupnorm_bench.metrics import metric_spec
    from groupnorm_bench.runs import TRIAL_CODE
    from groupnorm_bench.settings.own_config import OwnConfig
    from groupnorm_bench.wording import printable, setting_value

    def shown(name: str, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return printable(str(value))
        spec = metric_spec(name)
        return spec.text(float(value) * spec.factor) + (" %" if spec.is_percent else "")

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)  # null: it was not finite

    config = result.config
    typer.echo(f"{config.name}  {result.status}")
    live = config.cell_settings | {"seed": config.seed, "device": config.device}
    told = [f"{name}={setting_value(value)}" for name, value in live.items() if value is not None]
    typer.echo(f"  {'settings':<14}{', '.join(told)}")
    for name, value in result.summary.items():
        if name != "status":
            typer.echo(f"  {printable(name):<18}{shown(name, value)}")
    if isinstance(config, OwnConfig):
        _write_logged(result.history)
    elif result.history:
        typer.echo(
            f"\n{'epoch':>7}{'train/loss':>12}{'val/loss':>10}{'val/accuracy':>14}{'images/s':>10}"
        )
        for row in result.history:
            accuracy = row.get("val/accuracy")
            typer.echo(
                f"{number(row.get('epoch'), '.0f'):>7}"
                f"{number(row.get('train/loss'), '.4f'):>12}"
                f"{number(row.get('val/loss'), '.4f'):>10}"
                f"{'' if accuracy is None else shown('val/accuracy', accuracy):>14}"
                f"{number(row.get('perf/images_per_second'), ',.0f'):>10}"
            )
    origin = result.environment
    words = [str(origin[key]) for key in ("host", "device_name", "device") if origin.get(key)]
    versions = f"gnbench {origin.get('version', '?')}, torch {origin.get('torch', '?')}"
    versions += f", {origin[TRIAL_CODE]}" if origin.get(TRIAL_CODE) else ""
    lines: dict[str, object] = {"ran on": f"{', '.join(words) or 'unknown'}; {versions}"}
    lines |= {"started": origin.get("started"), "folder": folder, "W&B": result.wandb.get("url")}
    typer.echo()
    for name, line in lines.items():
        if line:
            typer.echo(f"  {name:<14}{printable(str(line))}")


def _write_logged(rows: Sequence[EpochRow]) -> None:
    """Write the rows that a function of the user's own has logged: its first few numbers."""
    from groupnorm_bench.wording import printable

    names = list(dict.fromkeys(name for row in rows for name in row if name != "epoch"))[:_LOGGED]
    if rows:
        heads = "".join(f"{printable(name, 24):>{_width(name)}}" for name in names)
        typer.echo(f"\n{'epoch':>7}{heads}")
    for row in rows:
        values = "".join(f"{_logged(name, row.get(name)):>{_width(name)}}" for name in names)
        typer.echo(f"{row['epoch']:>7.0f}{values}")


def _logged(name: str, value: float | None) -> str:
    from groupnorm_bench.metrics import metric_spec

    return "-" if value is None else metric_spec(name).shown(value)


def _width(name: str) -> int:
    return max(12, min(len(name), 24) + 2)

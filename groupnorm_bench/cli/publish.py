"""`gnbench publish`: the verdict as a W&B Report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, app, print_json
from groupnorm_bench.cli.train import Entity
from groupnorm_bench.cli.wandb import RunsDirs, drawn_of
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, require_names

_TITLE = "Which normalisation, and is the difference real?"


@app.command("publish")
def publish_command(
    runs: RunsDirs = None,
    project: Annotated[
        str, typer.Option(envvar="WANDB_PROJECT", show_envvar=False, help="W&B project.")
    ] = DEFAULT_PROJECT,
    entity: Entity = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Panels on the runs of the sweep of this name.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Its heading, by which it is found.")] = (
        _TITLE
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the spec as JSON; needs no login.")
    ] = False,
) -> None:
    """Write the W&B Report: verdicts in words, panels on the runs, provenance; typed again, it
    updates the same one."""
    from groupnorm_bench.report.write import report
    from groupnorm_bench.tracking import publish, workspace

    if not 0 < len(title.strip()) <= publish.MAX_TITLE:
        raise ConfigError(
            f"title={title[:40]!r} has {len(title)} characters; W&B takes 1 to {publish.MAX_TITLE}"
        )
    require_names(project, entity)
    workspace.require_text("title", title)
    workspace.require_text("suite", suite)
    workspace.require_package("gnbench publish")
    places: list[str | Path] = list(runs or [DEFAULT_RUNS_DIR])
    command = shlex.join(["gnbench", *sys.argv[1:]])
    written = report(places, None, output="md", command=command)
    text, drawn = written.text, drawn_of(written.content.comparison.metric, written.content.table)
    if dry_run:
        print_json(publish.spec_of(publish.build_report("", project, title, text, suite, drawn)))
        return
    owner = entity or workspace.default_entity()
    typer.echo(publish.save_report(owner, project, title, text, suite, drawn))

"""`gnbench sync`: what a person says to W&B outside of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli.app import DEFAULT_RUNS_DIR, AsJson, Quiet, app, print_json
from groupnorm_bench.errors import TrackingError

if TYPE_CHECKING:
    from groupnorm_bench.tracking.sync import SyncOutcome, Upload

RunsDirs = Annotated[
    list[Path] | None, typer.Argument(metavar="[RUNS]...", help="Folders of runs, or of one run.")
]
ProjectOverride = Annotated[
    str | None, typer.Option("--project", help="W&B project, instead of each run's own.")
]
EntityOverride = Annotated[
    str | None, typer.Option("--entity", help="W&B entity, instead of each run's own.")
]


@app.command("sync")
def sync_command(
    runs: RunsDirs = None,
    project: ProjectOverride = None,
    entity: EntityOverride = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be uploaded; ask W&B nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Upload runs that W&B does not have; those of one sweep become a W&B sweep."""
    from groupnorm_bench.progress import say
    from groupnorm_bench.results import find_runs
    from groupnorm_bench.tracking.sync import find_uploads, sync, unite_sweeps

    places = runs or [DEFAULT_RUNS_DIR]
    found, problems = find_runs(places)
    uploads, more_problems = find_uploads(found, ask=not dry_run)
    if not quiet:
        for line in problems + more_problems:
            say(line)
    if dry_run:
        _print_plan(uploads, as_json)
        return
    done = 0

    def on_uploaded(name: str) -> None:
        nonlocal done
        done += 1
        if not quiet:
            say(f"uploaded {done}/{len(uploads)}  {name}")

    outcome = sync(uploads, project=project, entity=entity, on_uploaded=on_uploaded)
    folders = [place for place in places if not (place / "result.json").exists()]
    unite_sweeps(found, folders, outcome, project=project, entity=entity, say=say)
    _print_outcome(outcome, as_json)
    if outcome.failed:
        name, reason = next(iter(outcome.failed.items()))
        raise TrackingError(
            f"{len(outcome.failed)} of {len(uploads)} runs were not uploaded ({name}: {reason}); "
            "type gnbench sync again"
        )


def _print_plan(uploads: list[Upload], as_json: bool) -> None:
    if as_json:
        print_json({"todo": [upload.name for upload in uploads]})
        return
    for upload in uploads:
        typer.echo(upload.name)
    typer.echo(f"{len(uploads)} runs to upload")


def _print_outcome(outcome: SyncOutcome, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "uploaded": outcome.uploaded,
                "failed": outcome.failed,
                "sweeps": outcome.sweeps,
                "grouped": outcome.grouped,
            }
        )
        return
    typer.echo(f"{len(outcome.uploaded)} runs uploaded")
    for url in outcome.sweeps:
        typer.echo(f"  sweep  {url}")
    for name in outcome.grouped:
        typer.echo(f"  group  {name}")

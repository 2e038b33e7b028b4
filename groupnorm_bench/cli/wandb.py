"""`gnbench agent`, `sync` and `dashboard`: what a person does with W&B outside of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import (
    DEFAULT_RUNS_DIR,
    MAX_THREADS,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
    WorkerThreads,
    app,
    print_json,
)
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.errors import CompareError, RunFolderError, RunsFailed, TrackingError
from groupnorm_bench.metrics import METRICS
from groupnorm_bench.tracking.options import require_names
from groupnorm_bench.wording import count, markdown

if TYPE_CHECKING:
    from groupnorm_bench.compare.notebook import Verdicts
    from groupnorm_bench.compare.rows import RunTable
    from groupnorm_bench.runs import RunResult
    from groupnorm_bench.tracking.agent_pool import SweepStatus
    from groupnorm_bench.tracking.sync import SyncOutcome
    from groupnorm_bench.tracking.workspace import PanelSubject

RunsDirs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUNS",
        help="Folders of runs, or of one run; packs.",
        show_default="runs",
        autocompletion=completing.run_folders,
    ),
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
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.runs import find_runs, is_pack
    from groupnorm_bench.tracking.sync import find_uploads, sync, unite_sweeps
    from groupnorm_bench.tracking.sync_packs import find_pack_uploads, find_packs, sync_packs

    require_names(project, entity)
    places = runs or [DEFAULT_RUNS_DIR]
    folders = [place for place in places if not is_pack(place)]
    found, problems = find_runs(folders)
    packs, of_packs = find_pack_uploads(find_packs(places), found)
    uploads, more_problems = find_uploads(found, ask=not dry_run)
    if not quiet:
        for line in problems + of_packs + more_problems:
            say(line)
    if dry_run:
        if packs and not quiet:
            say("runs of packs are listed though W&B may have them: it is not asked now")
        _print_plan(
            [u.name for u in uploads] + [n for pack in packs for n in pack.offline], as_json
        )
        return
    done = 0

    def on_uploaded(name: str) -> None:
        nonlocal done
        done += 1
        if not quiet:
            of = f"/{len(uploads)}" if done <= len(uploads) else ""  # the rest is found by asking
            say(f"uploaded {done}{of}  {name}")

    where = {"project": project, "entity": entity}
    outcome = sync(found, uploads, on_uploaded=on_uploaded, **where)
    runs_dirs = [folder for folder in folders if not (folder / "result.json").exists()]
    unite_sweeps(found, runs_dirs, outcome, say=say, **where)
    sync_packs(packs, outcome, on_uploaded=on_uploaded, say=say, **where)
    _print_outcome(outcome, as_json)
    if outcome.failed:
        name, reason = next(iter(outcome.failed.items()))
        every = len(found) + sum(len(pack.ids) + len(pack.clashes) for pack in packs)
        raise TrackingError(
            f"{len(outcome.failed)} of {count(every, 'run')} {'was' if every == 1 else 'were'} not "
            f"uploaded ({name}: {reason}); type gnbench sync again"
        )


def _print_plan(names: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"todo": names})
        return
    for name in names:
        typer.echo(name)
    typer.echo(f"{count(len(names), 'run')} to upload")


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
    typer.echo(f"{count(len(outcome.uploaded), 'run')} uploaded")
    for url in outcome.sweeps:
        typer.echo(f"  sweep  {url}")
    for name in outcome.grouped:
        typer.echo(f"  group  {name}")


@app.command("agent")
def agent_command(
    sweep: Annotated[str, typer.Argument(metavar="ENTITY/PROJECT/SWEEP", help="A W&B sweep.")],
    most: Annotated[
        int | None, typer.Option("--count", min=1, help="Runs that each worker does, at most.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Agents on this machine.")
    ] = 1,
    out: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = None,
    threads: WorkerThreads = 1,
    max_failures: Annotated[
        int, typer.Option("--max-failures", min=1, help="Stop after N failed runs in a row.")
    ] = 5,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Join a W&B sweep from this machine; Ctrl-C gives its runs back, to be done by others."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.signals import StopSignal
    from groupnorm_bench.sweep.executors.wandb.executor import ended_runs
    from groupnorm_bench.tracking.agent_pool import Agents, read_sweep, require_sweep

    joined = require_sweep(sweep)
    say(f"W&B sweep: {joined.url}")
    pool = Agents(
        joined.path,
        workers,
        runs_dir=out,
        data_dir=data_dir or default_data_dir(),
        threads=threads,
        max_failures=max_failures,
        count=most,
    )
    done: list[RunResult] = []
    with StopSignal() as stop:
        with pool as agents:
            for result in ended_runs(agents, joined, out, stop):
                done.append(result)
                if not quiet:
                    say(run_line(result))
            gave_up = agents.gave_up
        if stop():
            raise stop.stopped(
                f"{count(len(done), 'run')} safe in {out}, those under way have a checkpoint and "
                f"are given back to W&B; gnbench agent {joined.path} goes on"
            )
    _print_agent(read_sweep(joined.path), done, as_json)
    failed = [result for result in done if result.status in ("failed", "diverged")]
    if failed or gave_up:
        words = f"{count(len(failed), 'run')} failed or diverged"
        if gave_up:
            words = f"stopped after {count(max_failures, 'failed run')} in a row"
        raise RunsFailed(f"{words}; their tracebacks are in {out} and on {joined.url}")


def run_line(result: RunResult) -> str:
    """Return the line that tells of a run that ended."""
    accuracy = result.summary.get("val/accuracy")
    shown = METRICS["val/accuracy"].shown(accuracy) if isinstance(accuracy, float) else ""
    value = f"  val/accuracy {shown}" if shown else ""
    return f"{result.config.name}  {result.status}{value}"


def _print_agent(sweep: SweepStatus, done: list[RunResult], as_json: bool) -> None:
    failed = sum(result.status == "failed" for result in done)
    if as_json:
        print_json(
            {
                "sweep": sweep.path,
                "state": sweep.state.lower(),
                "runs": [result.config.name for result in done],
                "finished": len(done) - failed,
                "failed": failed,
                "sweep_runs": sweep.runs,
            }
        )
        return
    typer.echo(f"{count(len(done), 'run')} ended here, {failed} of them failed")
    typer.echo(
        f"the sweep is {sweep.state.lower()}: {count(sweep.count('finished'), 'run')} finished, "
        f"{sweep.count('failed', 'crashed', 'killed')} failed"
    )


@app.command("dashboard")
def dashboard_command(
    runs: RunsDirs = None,
    project: Annotated[
        str, typer.Option(envvar="WANDB_PROJECT", show_envvar=False, help="W&B project.")
    ] = "groupnorm-bench",
    entity: Annotated[
        str | None,
        typer.Option(envvar="WANDB_ENTITY", show_envvar=False, help="W&B entity; yours if none."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Only runs of the sweep of this name.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the spec as JSON; needs no login.")
    ] = False,
) -> None:
    """Build the W&B workspace that answers the question; typed again, it updates the same one."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.tracking import workspace as ws

    require_names(project, entity)
    ws.require_text("suite", suite)
    ws.require_package()
    verdicts = _verdicts(runs or [DEFAULT_RUNS_DIR])
    told = (
        (suite, _markdown(verdicts), drawn_of(verdicts.metric, verdicts.runs))
        if verdicts
        else (suite,)
    )
    if dry_run:
        print_json(ws.spec_of(ws.build_workspace(entity or "", project, *told)))
        return
    owner = entity or ws.default_entity()
    url = ws.save_workspace(ws.build_workspace(owner, project, *told))
    if verdicts is None:
        say("no verdict on it yet: gnbench dashboard RUNS")
    typer.echo(url)


def _verdicts(places: list[Path]) -> Verdicts | None:
    """Return the verdicts on the runs of folders, None where there are none to be had."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.compare.ask import compare

    try:
        return compare([str(place) for place in places])
    except (CompareError, RunFolderError) as error:
        say(f"no verdict: {error}")
        return None


def _markdown(verdicts: Verdicts) -> str:
    from groupnorm_bench.compare import render

    heads, rows = render.table_of(verdicts)
    lines = [markdown(render.headline(verdicts)), "", render.to_markdown(heads, rows), ""]
    lines += [f"- {markdown(contrast.sentence)}" for contrast in verdicts.contrasts]
    return "\n".join(lines)


def drawn_of(metric: str, table: RunTable) -> PanelSubject:
    """Return what panels on W&B draw of these runs."""
    from groupnorm_bench.compare.order import varying
    from groupnorm_bench.tracking.workspace import PanelSubject

    ours = table.is_of_networks
    swept = varying(row.setting for row in table.finished)
    if ours:
        swept = ("batch_size", *(name for name in swept if name != "batch_size"))
    rows = [row.history[-1] for row in table.finished if row.history]
    return PanelSubject.of(metric, swept, rows, ours)

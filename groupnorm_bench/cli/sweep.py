"""`gnbench sweep`: a file of settings, worked off."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

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
    print_drawn,
    print_json,
)
from groupnorm_bench.cli.settings import (
    SettingsCommand,
    note_data_dir,
    refuse_data_dir,
    with_settings,
)
from groupnorm_bench.cli.train import Entity, WandbMode
from groupnorm_bench.errors import ConfigError, RunsFailed
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import SETTINGS
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.signals import StopSignal
from groupnorm_bench.sweep.executors import AUTO_EXECUTOR, EXECUTORS
from groupnorm_bench.sweep.file.shipped import find_sweep, shipped_sweeps
from groupnorm_bench.sweep.file.spec import SweepSpec
from groupnorm_bench.sweep.file.typed import as_yaml, keep_typed, spec_of_text
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.cli.views.sweep import LineView
    from groupnorm_bench.sweep.scheduler import SweepEvent
    from groupnorm_bench.sweep.session import Session, SweepOutcome
    from groupnorm_bench.tracking.options import Mode

UNDECIDED = 5
"""Exit code where `max_seeds` came before every contrast was decided."""

_SWEEP_FILE = typer.Argument(
    metavar="FILE",
    help=f"A W&B sweep file, or the name of one of ours: {', '.join(shipped_sweeps())}.",
    autocompletion=completing.sweeps,
)
SweepFile = Annotated[Path, _SWEEP_FILE]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and its cost; run nothing.")
]
Seeds = Annotated[int | None, typer.Option("--seeds", help="Seeds 0 to N-1, not the file's.")]
RunCap = Annotated[int | None, typer.Option("--run-cap", help="The most runs, not the file's.")]
SearchSeed = Annotated[int, typer.Option("--search-seed", help="What random and bayes draw with.")]
ExecutorName = Annotated[
    str, typer.Option("--executor", help=f"{', '.join((AUTO_EXECUTOR, *EXECUTORS))}.")
]
Workers = Annotated[str, typer.Option("--workers", help="Worker processes: auto (cores), or N.")]
PerDevice = Annotated[
    int,
    typer.Option(
        "--workers-per-device", min=1, max=MAX_THREADS, help="Workers on each GPU, for small nets."
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run again what failed in an earlier call.")
]
MaxFailures = Annotated[
    int, typer.Option("--max-failures", min=1, help="Stop after N failed runs in a row.")
]
TrialTimeout = Annotated[
    float | None,
    typer.Option("--trial-timeout", min=0.1, help="Seconds after which a run counts as hung."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="The Ray cluster, or auto; else --executor ray starts one here.",
    ),
]
ShipWandbKey = Annotated[
    bool, typer.Option("--ship-wandb-key", help="Log the cluster's nodes in to W&B as you are.")
]
Slurm = Annotated[
    str,
    typer.Option(
        "--slurm",
        metavar="OPTIONS",
        help="Of sbatch: partition=gpu,gres=gpu:1,time=02:00:00.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Slurm tasks at a time.", show_default="8")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Start a very large plan without asking.")]
SweepProject = Annotated[
    str | None,
    typer.Option("--project", envvar="WANDB_PROJECT", help="W&B project.", show_envvar=False),
]


UntilDecided = Annotated[
    bool,
    typer.Option("--until-decided", help="Add seeds where the verdict is open; grids only."),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(min=1, help="The most seeds per arm of --until-decided.", show_default="40"),
]


@app.command("sweep", cls=SettingsCommand)
@with_settings
def sweep_command(
    context: typer.Context,
    config: TrainConfig,
    given: frozenset[str],
    lists: dict[str, list[str]],
    file: Annotated[Path | None, _SWEEP_FILE] = None,
    dry_run: DryRun = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Write the sweep of typed lists to this file."),
    ] = None,
    out: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = None,
    seeds: Seeds = None,
    run_cap: RunCap = None,
    search_seed: SearchSeed = 0,
    executor: ExecutorName = AUTO_EXECUTOR,
    workers: Workers = "auto",
    workers_per_device: PerDevice = 1,
    threads: WorkerThreads = 1,
    retry_failed: RetryFailed = False,
    max_failures: MaxFailures = 5,
    trial_timeout: TrialTimeout = None,
    ray_address: RayAddress = None,
    ship_wandb_key: ShipWandbKey = False,
    until_decided: UntilDecided = False,
    max_seeds: MaxSeeds = None,
    slurm: Slurm = "",
    jobs: Jobs = None,
    wandb: WandbMode = "auto",
    project: SweepProject = None,
    entity: Entity = None,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Plan a sweep, then train what is missing; typed again, it goes on. Settings given as
    options hold for every run of it; lists, as `--norm none,batch,group --batch-size 32,128`, make
    a sweep without a file."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.sweep.session import Session, SweepOptions

    spec = _sweep_of(file, lists, config, given, seeds, save, out)
    options = SweepOptions(
        runs=out,
        data_dir=data_dir,
        executor=executor,
        workers=workers,
        workers_per_device=workers_per_device,
        threads=threads,
        seeds=seeds if not lists else None,
        run_cap=run_cap,
        search_seed=search_seed,
        retry_failed=retry_failed,
        max_failures=max_failures,
        trial_timeout=trial_timeout,
        ray_address=ray_address,
        ship_wandb_key=ship_wandb_key,
        wandb=cast("Mode", wandb),
        project=project,
        entity=entity,
        given=given,
        until_decided=until_decided,
        max_seeds=max_seeds,
        slurm=slurm,
        jobs=jobs,
    )
    note = (lambda line: None) if quiet else say
    session = Session(spec, config, options, say=say, note=note)
    refuse_data_dir(context, session.plan.base)
    note_data_dir(context, session.datasets, note)
    if isinstance(spec, SweepSpec) and (save is not None or not dry_run):
        keep_typed(spec.path, as_yaml(lists, _fixed(config, given), seeds), is_ours=save is None)
    if dry_run:
        _print_plan(session, as_json, quiet)
        return 0
    if session.is_large and not yes:
        _confirm(session)
    session.open()
    with StopSignal() as stop:
        outcome = run_watched(session, stop, quiet)
        _print_outcome(outcome, out, as_json, quiet)
        raise_what_remains(outcome, out, stop)
    return UNDECIDED if outcome.standing and outcome.standing.open else 0


def _sweep_of(
    file: Path | None,
    lists: dict[str, list[str]],
    config: TrainConfig,
    given: frozenset[str],
    seeds: int | None,
    save: Path | None,
    out: Path,
) -> SweepSpec | Path:
    """Return the sweep file that is meant, or the sweep that lists make.

    Raises:
        ConfigError: there is neither a file nor a list, or both.
    """
    if file is not None and lists:
        name, values = next(iter(lists.items()))
        raise ConfigError(
            f"{name}={','.join(values)} is a list, which makes a sweep of its own beside {file}; "
            "leave one of the two out"
        )
    if save is not None and not lists:
        raise ConfigError("--save writes the sweep of typed lists, as --norm none,batch,group")
    if save is not None and save.exists():
        raise ConfigError(f"save={str(save)!r} is there already; name another file")
    if file is not None:
        return find_sweep(file)
    if not lists:
        raise ConfigError(
            "no sweep is named; name a file or one of ours, as gnbench sweep norm, or type lists, "
            "as --norm none,batch,group --batch-size 32,128"
        )
    if isinstance(config, OwnConfig):
        raise ConfigError(
            f"trial={config.trial!r} beside typed lists: nothing says by which metric the sweep "
            "goes; write a sweep file, with `metric: {name: dice, goal: maximize}`"
        )
    if seeds is not None and "seed" in lists:
        raise ConfigError(
            f"seeds={seeds} beside seed={','.join(lists['seed'])}: both say which; leave one out"
        )
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds={seeds} is too small; set seeds to 1 or more")
    text = as_yaml(lists, _fixed(config, given), seeds)
    return spec_of_text(text, save, out)


def _fixed(config: TrainConfig, given: frozenset[str]) -> dict[str, str]:
    values = config.to_dict()
    return {name: str(values[name]) for name in SETTINGS if name in given and name in values}


def _print_plan(session: Session, as_json: bool, quiet: bool) -> None:
    from groupnorm_bench.cli.views.waiting import Waiting
    from groupnorm_bench.sweep.plan.describe import plan_to_json

    line = "training some steps of each kind of run, to tell what it costs"
    with Waiting(line, quiet=quiet) as waiting:
        waiting.tell(line)  # off a terminal, too, it takes its seconds
        estimate = session.estimate()
    if as_json:
        tuning = None if session.tuning is None else (session.tuning, session.is_tuned)
        print_json(plan_to_json(session.plan, estimate, tuning))
        return
    from groupnorm_bench.cli.views.plan import draw_plan
    from groupnorm_bench.sweep.plan.tuning import describe_tuning

    first = [describe_tuning(session.plan, session.tuning)] if session.tuning else []
    print_drawn(draw_plan(session.plan, estimate, first))


def _confirm(session: Session) -> None:
    """Have a person agree to a very large plan.

    Raises:
        ConfigError: nobody is there to ask.
        Abort: they do not agree.
    """
    todo = session.num_todo
    if not sys.stdin.isatty():
        raise ConfigError(f"{todo:,} runs to do; type --yes to start so many, or --dry-run")
    estimate = session.estimate()
    hours = "" if estimate is None else f", about {estimate.total / 3600:,.1f} hours"
    typer.confirm(f"{todo:,} runs to do{hours}; start?", abort=True, err=True)


def run_watched(session: Session, stop: StopSignal, quiet: bool) -> SweepOutcome:
    """Work the plan off while a person watches."""
    from groupnorm_bench.cli.views.sweep import Board, make_view
    from groupnorm_bench.sweep.plan.pruner import metric_value

    plan, metric = session.plan, session.metric
    if not session.has_work:
        return session.run()
    tuning = session.tuning
    before = 0 if tuning is None else tuning.num_reused + tuning.num_failed
    apart = frozenset(() if tuning is None else tuning.seeds)  # no result of theirs is shown

    def total() -> int:
        return session.num_runs - plan.num_failed - before

    board = Board(
        total=total(),
        slots=session.slots,
        metric=metric.name,
        lower_is_better=metric.goal == "minimize",
        value=lambda result: None if result.seed in apart else metric_value(metric, result),
    )
    board.reuse(session.reused)
    with make_view(board, quiet=quiet) as view:

        def watch(event: SweepEvent) -> None:
            board.total = max(board.total, total())
            if session.deciding is not None:
                board.verdicts = session.deciding.judged.open
            board.hear(event)
            view.hear(event)

        def may_cancel(question: str) -> bool:
            return _agrees(question, stop, view)

        return session.run(watch=watch, should_stop=stop, may_cancel=may_cancel)


def _agrees(question: str, stop: StopSignal, view: LineView) -> bool:
    """Return whether jobs elsewhere are to end with this command; a person is asked.

    They end where nobody is there to be asked, but go on where the terminal has only closed.
    """
    if stop.received == signal.SIGHUP:
        return False
    if stop.received is None or not sys.stdin.isatty():
        return True
    try:
        with view.aside():
            return typer.confirm(question, default=True, err=True)
    except typer.Abort:  # Ctrl-C once more, or the end of the file
        return False


def _print_outcome(outcome: SweepOutcome, out: Path, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(_as_data(outcome))
        return
    from groupnorm_bench.cli.views.ranking import draw_ranking
    from groupnorm_bench.cli.views.sweep import clock
    from groupnorm_bench.metrics import metric_spec

    ranking = outcome.ranking()
    print_drawn(draw_ranking(ranking))
    mixed = [cell.cell for cell in ranking if "; " in cell.code]
    if mixed and not quiet:
        typer.echo(
            f"\nnote: several versions of gnbench or torch made the seeds of "
            f"{count(len(mixed), 'cell')};\ngnbench compare keeps them apart"
        )
    machines = sorted({cell.timed_on for cell in ranking})
    if len(machines) > 1 and metric_spec(ranking[0].metric).of_machine:
        typer.echo(
            f"\nnote: {ranking[0].metric} of {len(machines)} machines or numbers of threads "
            f"({'; '.join(machines)}) stands in one ranking:\nranks do not compare across them"
        )
    if outcome.closing:
        typer.echo("\n" + "\n".join(outcome.closing))
    if not quiet:
        typer.echo(
            f"\n{count(len(outcome.trained) + len(outcome.tuned), 'run')} trained in "
            f"{clock(outcome.seconds)}{_to_tune(outcome)}, "
            f"{_num_reused(outcome):,} reused, in {out}"
        )
        typer.echo(f"next: gnbench compare {out}   gnbench report {out}")


def _to_tune(outcome: SweepOutcome) -> str:
    return f" ({len(outcome.tuned):,} of them to tune)" if outcome.tuned else ""


def _num_reused(outcome: SweepOutcome) -> int:
    """Return how many results were not trained now; a folder may hold more than the plan asks."""
    return outcome.plan.num_reused + len(outcome.reused) - len(outcome.plan.settled)


def _as_data(outcome: SweepOutcome) -> dict[str, object]:
    from groupnorm_bench.cli.views.ranking import as_data

    plan = outcome.plan
    states = ("finished", "diverged", "pruned", "failed")
    return {
        "grid_points": plan.grid_points,
        "cells": plan.num_cells,
        "runs": outcome.num_runs,
        **_tuning_of(outcome),
        "reused": _num_reused(outcome),
        "failed_before": plan.num_failed,
        "todo": plan.num_todo,
        **{state: outcome.count(state) for state in states},
        "seconds": round(outcome.seconds, 2),
        "ranking": as_data(outcome.ranking()),
        **_verdicts_of(outcome),
        "failures": [
            {"run": failure.run.name, "reason": failure.reason} for failure in outcome.failures
        ],
    }


def _tuning_of(outcome: SweepOutcome) -> dict[str, object]:
    """Return what `--json` adds where the arms were tuned."""
    tuning = outcome.tuning
    if tuning is None:
        return {}
    told = {"runs": tuning.num_runs, "trained": len(outcome.tuned), "seeds": list(tuning.seeds)}
    return {"tuning": told | {"done": tuning.num_reused}}


def _verdicts_of(outcome: SweepOutcome) -> dict[str, object]:
    """Return what `--json` adds where the sweep was run until decided."""
    standing = outcome.standing
    if standing is None:
        return {}
    comparison = standing.comparison
    return {
        "decided": len(standing.decided),
        "undecided": len(standing.open),
        "contrasts": comparison.to_dict()["contrasts"] if comparison else [],
        "closing": list(outcome.closing),
    }


def raise_what_remains(outcome: SweepOutcome, out: Path, stop: StopSignal) -> None:
    """End with the exit code of what did not come to a good end.

    Raises:
        RunsFailed: some run failed or diverged.
        TrainingStopped: Ctrl-C or SIGTERM; the rest can be done by the same command.
    """
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.runs import RunFolder

    plan, results = outcome.plan, outcome.results
    settled = outcome.num_runs - outcome.num_left
    if stop() and outcome.stopped:
        raise stop.stopped(
            f"{settled:,} of {count(outcome.num_runs, 'run')} safe in {out}, those under way have "
            "a checkpoint; type the same command to go on"
        )
    failed = outcome.count("failed") + plan.num_failed
    failed += 0 if outcome.tuning is None else outcome.tuning.num_failed
    failed += sum(result.status == "failed" for result in outcome.tuned.values())
    diverged = sum(result.status == "diverged" for result in results)
    if not failed and not diverged:
        return
    words = f"{failed:,} of {count(outcome.num_runs, 'run')} failed and {diverged:,} diverged"
    if outcome.failures:
        first = outcome.failures[0]
        if outcome.gave_up:
            say(first.traceback or first.reason)
            words = f"stopped after {count(len(outcome.failures), 'failed run')} in a row; {words}"
        words += f"; see {RunFolder.of(out, first.run).traceback_path}"
    if failed:
        words += "; --retry-failed tries them again"
    raise RunsFailed(words)

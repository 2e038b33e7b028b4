"""`gnbench sweep`: a file of settings, worked off."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groupnorm_bench.cli.app import (
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
    app,
    default_data_dir,
    print_drawn,
    print_json,
)
from groupnorm_bench.cli.engines import (
    EXECUTORS,
    EngineOptions,
    check_executor,
    open_engine,
    source_of,
)
from groupnorm_bench.cli.settings import with_settings
from groupnorm_bench.cli.train import Entity, WandbMode, tracking_options
from groupnorm_bench.errors import ConfigError, RunFolderError, RunsFailed
from groupnorm_bench.settings.config import TrainConfig

if TYPE_CHECKING:
    from groupnorm_bench.runs import FoundRun, RunResult
    from groupnorm_bench.signals import StopSignal
    from groupnorm_bench.sweep.executors.protocol import Executor
    from groupnorm_bench.sweep.executors.wandb.local_sweep import LocalSweep
    from groupnorm_bench.sweep.file.spec import SweepSpec
    from groupnorm_bench.sweep.plan.describe import Cost
    from groupnorm_bench.sweep.plan.plan import Plan
    from groupnorm_bench.sweep.scheduler import Outcome

_ESTIMATED_RUNS = 500

SweepFile = Annotated[Path, typer.Argument(metavar="FILE", help="A W&B sweep file.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and its cost; run nothing.")
]
Seeds = Annotated[int | None, typer.Option("--seeds", help="Seeds 0 to N-1, not the file's.")]
RunCap = Annotated[int | None, typer.Option("--run-cap", help="The most runs, not the file's.")]
SearchSeed = Annotated[int, typer.Option("--search-seed", help="What random and bayes draw with.")]
ExecutorName = Annotated[str, typer.Option("--executor", help=f"{', '.join(EXECUTORS)}.")]
Workers = Annotated[str, typer.Option("--workers", help="Worker processes: auto (cores), or N.")]
PerDevice = Annotated[
    int, typer.Option("--workers-per-device", min=1, help="Workers on each GPU, for small nets.")
]
Threads = Annotated[
    int, typer.Option(min=1, help="Processor threads of each worker; results depend on it.")
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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Start a very large plan without asking.")]
SweepProject = Annotated[
    str | None,
    typer.Option("--project", envvar="WANDB_PROJECT", help="W&B project.", show_envvar=False),
]


@app.command("sweep")
@with_settings
def sweep_command(
    config: TrainConfig,
    file: SweepFile,
    dry_run: DryRun = False,
    out: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = None,
    seeds: Seeds = None,
    run_cap: RunCap = None,
    search_seed: SearchSeed = 0,
    executor: ExecutorName = "auto",
    workers: Workers = "auto",
    workers_per_device: PerDevice = 1,
    threads: Threads = 1,
    retry_failed: RetryFailed = False,
    max_failures: MaxFailures = 5,
    trial_timeout: TrialTimeout = None,
    wandb: WandbMode = "auto",
    project: SweepProject = None,
    entity: Entity = None,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Plan a sweep, then train what is missing; typed again, it goes on. Settings given as
    options hold for every run of it."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.datasets.load import resolve_dataset
    from groupnorm_bench.sweep.executors.local.devices import slots_for
    from groupnorm_bench.sweep.file.spec import read_spec
    from groupnorm_bench.sweep.plan.plan import build_plan

    check_executor(executor)
    devices, slots = slots_for(config.device, workers, workers_per_device)
    spec = read_spec(file)
    _check_base(config, spec)
    data_dir = data_dir or default_data_dir()
    options = tracking_options(
        wandb, project or spec.project or "groupnorm-bench", entity or spec.entity
    )
    found = _find(out, quiet=quiet)
    plan = build_plan(
        spec,
        base=config,
        seeds=seeds,
        run_cap=run_cap,
        search_seed=search_seed,
        found=found,
        retry_failed=retry_failed,
        resolve_dataset=lambda name: resolve_dataset(name, data_dir, say),
    )
    if dry_run:
        _print_plan(plan, _estimate(plan, data_dir, slots, threads), as_json)
        return
    if plan.is_large and not yes:
        _confirm(plan, lambda: _estimate(plan, data_dir, slots, threads))
    _make(out)
    if not quiet:
        say(_headline(plan))
    engine_options = EngineOptions(
        out=out,
        data_dir=data_dir,
        tracking=dataclasses.replace(options, suite=spec.name),
        slots=slots,
        threads=threads,
        devices=devices,
        trial_timeout=trial_timeout,
        max_failures=max_failures,
    )
    engine, shown = open_engine(executor, plan, engine_options, say)
    _work(plan, found, engine, shown, out, max_failures, as_json, quiet)


def _make(out: Path) -> None:
    """Make the folder of run folders now: one line, not a failure of every run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"out={out} cannot be made: {error.strerror}; choose another --out"
        ) from error


def _check_base(base: TrainConfig, spec: SweepSpec) -> None:
    """Refuse an option that the file would override."""
    for name in sorted(spec.settings):
        if getattr(base, name) != getattr(TrainConfig(), name):
            raise ConfigError(
                f"{name}={getattr(base, name)} is set by {spec.path} as well; leave out one of them"
            )
    if base.seed != TrainConfig().seed:
        raise ConfigError(f"seed={base.seed} does nothing in a sweep; use --seeds N")


def _find(out: Path, *, quiet: bool) -> list[FoundRun]:
    """Return the run folders at hand; say which could not be read."""
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.runs import find_runs

    if not out.exists():
        return []
    found, problems = find_runs([out])
    for problem in problems if not quiet else ():
        say(problem)
    return found


def _headline(plan: Plan) -> str:
    seeds = "seed" if len(plan.seeds) == 1 else "seeds"
    failed = f", {plan.num_failed:,} failed before (--retry-failed)" if plan.num_failed else ""
    return (
        f"{plan.spec.name}: {plan.num_cells:,} cells x {len(plan.seeds)} {seeds} = "
        f"{plan.num_runs:,} runs: {plan.num_reused:,} reused{failed}, {plan.num_todo:,} to do"
    )


def _estimate(plan: Plan, data_dir: Path, slots: int, threads: int) -> Cost | None:
    """Measure what the plan will take; None where nothing is to do."""
    from groupnorm_bench.sweep.plan.describe import cost_of, sample_todo

    sample = sample_todo(plan)
    if not sample:
        return None
    import torch

    from groupnorm_bench.datasets.load import load_dataset
    from groupnorm_bench.sweep.estimate import estimate_seconds

    torch.set_num_threads(threads)
    datasets = {name: load_dataset(name, data_dir) for name in {run.dataset for run in sample}}
    seconds = estimate_seconds(sample, datasets)
    return cost_of(plan, sample, seconds, min(slots, plan.num_todo))


def _print_plan(plan: Plan, estimate: Cost | None, as_json: bool) -> None:
    from groupnorm_bench.cli.views.plan import draw_plan
    from groupnorm_bench.sweep.plan.describe import plan_to_json

    if as_json:
        print_json(plan_to_json(plan, estimate))
        return
    print_drawn(draw_plan(plan, estimate))


def _confirm(plan: Plan, measure: Callable[[], Cost | None]) -> None:
    """Have a person agree to a very large plan.

    Raises:
        ConfigError: nobody is there to ask.
        Abort: they do not agree.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{plan.num_todo:,} runs to do; type --yes to start so many, or --dry-run"
        )
    estimate = measure()
    hours = "" if estimate is None else f", about {estimate.total / 3600:,.1f} hours"
    typer.confirm(f"{plan.num_todo:,} runs to do{hours}; start?", abort=True, err=True)


def _work(
    plan: Plan,
    found: list[FoundRun],
    engine: Executor,
    shown: LocalSweep | None,
    out: Path,
    max_failures: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Work the plan off and tell what came of it.

    Raises:
        RunsFailed: some run failed or diverged.
        TrainingStopped: Ctrl-C or SIGTERM; the rest can be done by the same command.
    """
    from groupnorm_bench.cli.views.sweep import Board, make_view
    from groupnorm_bench.signals import StopSignal
    from groupnorm_bench.sweep.file.spec import Metric
    from groupnorm_bench.sweep.plan.pruner import metric_value
    from groupnorm_bench.sweep.plan.sources import make_source
    from groupnorm_bench.sweep.scheduler import Outcome, Scheduler, SweepEvent

    metric = plan.spec.metric or Metric(name="val/accuracy", goal="maximize")
    reused = [run.result for run in found if run.result.config.name in plan.settled]
    board = Board(
        total=plan.num_runs - plan.num_failed,
        slots=engine.slots,
        metric=metric.name,
        lower_is_better=metric.goal == "minimize",
        value=lambda result: metric_value(metric, result),
    )
    board.reuse(reused)
    outcome, started = Outcome(), time.monotonic()
    with StopSignal() as stop:
        if plan.num_todo:
            with make_view(board, quiet=quiet) as view:

                def watch(event: SweepEvent) -> None:
                    board.hear(event)
                    view.hear(event)

                source = source_of(engine) or make_source(plan, found)
                outcome = Scheduler(
                    source, engine, out, should_stop=stop, max_failures=max_failures, watch=watch
                ).run()
                if shown is not None:
                    is_done = not (outcome.stopped or outcome.gave_up)
                    shown.end([*outcome.results, *outcome.reused], is_done=is_done)
        results = [*reused, *outcome.reused.values(), *outcome.results.values()]
        seconds = time.monotonic() - started
        _print_outcome(plan, outcome, results, metric.name, seconds, out, as_json, quiet)
        _raise_what_remains(plan, outcome, results, out, stop)


def _print_outcome(
    plan: Plan,
    outcome: Outcome,
    results: list[RunResult],
    metric: str,
    seconds: float,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    from groupnorm_bench.cli.views.ranking import as_data, draw_ranking, ranking_of

    ranking = ranking_of(results, metric)
    reused = plan.num_reused + len(outcome.reused)
    if as_json:
        states = ("finished", "diverged", "pruned", "failed")
        print_json(
            {
                "grid_points": plan.grid_points,
                "cells": plan.num_cells,
                "runs": plan.num_runs,
                "reused": reused,
                "failed_before": plan.num_failed,
                "todo": plan.num_todo,
            }
            | {state: outcome.count(state) for state in states}
            | {
                "seconds": round(seconds, 2),
                "ranking": as_data(ranking),
                "failures": [
                    {"run": failure.run.name, "reason": failure.reason}
                    for failure in outcome.failures
                ],
            }
        )
        return
    from groupnorm_bench.cli.views.sweep import clock

    print_drawn(draw_ranking(ranking))
    if not quiet:
        trained = len(outcome.results)
        typer.echo(f"\n{trained:,} runs trained in {clock(seconds)}, {reused:,} reused, in {out}")
        typer.echo(f"next: gnbench compare {out}   gnbench report {out}")


def _raise_what_remains(
    plan: Plan, outcome: Outcome, results: list[RunResult], out: Path, stop: StopSignal
) -> None:
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.runs import RunFolder

    settled = sum(result.status != "failed" for result in results)
    if stop() and outcome.stopped:
        raise stop.stopped(
            f"{settled:,} of {plan.num_runs:,} runs are safe in {out}, those under way have a "
            "checkpoint; type the same command to go on"
        )
    failed = outcome.count("failed") + plan.num_failed
    diverged = sum(result.status == "diverged" for result in results)
    if not failed and not diverged:
        return
    words = f"{failed:,} of {plan.num_runs:,} runs failed and {diverged:,} diverged"
    if outcome.failures:
        first = outcome.failures[0]
        if outcome.gave_up:
            say(first.traceback or first.reason)
            words = f"stopped after {len(outcome.failures)} failed runs in a row; {words}"
        words += f"; see {RunFolder.of(out, first.run).traceback_path}"
    if failed:
        words += "; --retry-failed tries them again"
    raise RunsFailed(words)

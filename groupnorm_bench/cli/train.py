"""`gnbench train`: one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from groupnorm_bench.cli import completing
from groupnorm_bench.cli.app import (
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
    Threads,
    app,
    print_json,
)
from groupnorm_bench.cli.settings import (
    SettingsCommand,
    note_data_dir,
    refuse_data_dir,
    with_settings,
)
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.errors import TrainingDiverged, TrainingStopped
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, TrackingOptions
from groupnorm_bench.wording import printable

if TYPE_CHECKING:
    from groupnorm_bench.cli.views.training import TrainProgress
    from groupnorm_bench.runs import RunFolder, RunResult
    from groupnorm_bench.signals import StopSignal
    from groupnorm_bench.tracking.options import Mode

WandbMode = Annotated[
    str,
    typer.Option(
        "--wandb",
        help="auto (online where logged in), online, offline, disabled.",
        metavar="MODE",
        autocompletion=completing.words(("auto", "online", "offline", "disabled")),
    ),
]
Project = Annotated[
    str, typer.Option(envvar="WANDB_PROJECT", help="W&B project.", show_envvar=False)
]
Entity = Annotated[
    str | None, typer.Option(envvar="WANDB_ENTITY", help="W&B entity.", show_envvar=False)
]


@app.command("train", cls=SettingsCommand)
@with_settings
def train_command(
    context: typer.Context,
    config: TrainConfig,
    out: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = None,
    wandb: WandbMode = "auto",
    project: Project = DEFAULT_PROJECT,
    entity: Entity = None,
    threads: Threads = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the settings as YAML; train nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train a finished run again.")] = False,
    suite: Annotated[str, typer.Option(hidden=True)] = "train",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one network, track it, and keep it in a run folder; typed again, it goes on or is
    done. With --trial a function of your own trains it."""
    refuse_data_dir(context, config)
    if show_config:
        _show_config(config, as_json)
        return
    from groupnorm_bench.cli.views.training import say
    from groupnorm_bench.signals import StopSignal
    from groupnorm_bench.tracking.variables import obeyed

    mode = cast("Mode", wandb)
    options = TrackingOptions(mode=mode, project=project, entity=entity, suite=suite)
    note = (lambda line: None) if quiet else say
    options = obeyed(options, note, runs_dir=out)
    if not isinstance(config, OwnConfig):
        note_data_dir(context, [config.dataset], note)
    with StopSignal(at_stake=False) as stop:
        result = _train(
            config, out, data_dir or default_data_dir(), options, threads, force, quiet, stop
        )
    _print(result, out, as_json, quiet)
    if result.status == "diverged":
        raise TrainingDiverged(f"diverged: {result.summary.get('error', 'it does not tell why')}")


def _show_config(config: TrainConfig, as_json: bool) -> None:
    """Print the settings as `--config` reads them; a remark tells what the norm does not read."""
    settings = {name: value for name, value in config.to_dict().items() if value is not None}
    if as_json:
        print_json({"run": config.name, "config": settings, "inert": sorted(config.inert)})
        return
    typer.echo(f"# {config.name}")
    for name, value in settings.items():
        remark = f"  # {config.arm} does not read it" if name in config.inert else ""
        typer.echo(f"{name}: {json.dumps(value)}{remark}")


def _train(
    config: TrainConfig,
    out: Path,
    data_dir: Path,
    options: TrackingOptions,
    threads: int | None,
    force: bool,
    quiet: bool,
    stop: StopSignal,
) -> RunResult:
    from groupnorm_bench.cli.views.training import TrainProgress, say
    from groupnorm_bench.datasets.load import resolve_dataset
    from groupnorm_bench.runs import RunFolder
    from groupnorm_bench.tracking.agent_run import answer_from_folder
    from groupnorm_bench.tracking.variables import under_agent

    is_own = isinstance(config, OwnConfig)
    what = config.trial if isinstance(config, OwnConfig) else f"batch size {config.batch_size}"
    title = f"gnbench train: {config.arm}, {what}, seed {config.seed}"
    with TrainProgress(title, 0 if is_own else config.batch_size, quiet=quiet) as progress:
        if not is_own:
            config = config.replace(dataset=resolve_dataset(config.dataset, data_dir, progress.say))
        folder = RunFolder.of(out, config)
        found = None if force else folder.read_settled()
        if found is None:
            try:
                return _train_on(config, out, data_dir, options, threads, force, stop, progress)
            except TrainingStopped as error:
                raise stop.stopped(f"{error}, {_what_is_kept(folder)}") from None
    folder.tidy_if_left()
    if not quiet:
        say(f"{config.name} was trained before; --force trains it again")
        if isinstance(config, OwnConfig):
            from groupnorm_bench.trial.own import of_other_code

            if line := of_other_code(config.trial, [found]):
                say(line)
    if under_agent():
        answer_from_folder(found, folder.path, options, say)
    return found


def _what_is_kept(folder: RunFolder) -> str:
    if folder.checkpoint_path.exists() or folder.own_checkpoint_dir.exists():
        return f"checkpoint in {folder.path}; type the same command to go on"
    return f"no checkpoint in {folder.path}; type the same command to start it again"


def _train_on(
    config: TrainConfig,
    out: Path,
    data_dir: Path,
    options: TrackingOptions,
    threads: int | None,
    force: bool,
    stop: StopSignal,
    progress: TrainProgress,
) -> RunResult:
    from groupnorm_bench.training.ahead import compile_ahead

    compile_ahead([config], progress.say)
    from groupnorm_bench.datasets.load import load_dataset
    from groupnorm_bench.processors import give_torch_threads
    from groupnorm_bench.training.hooks import Hooks
    from groupnorm_bench.trial import run_trial

    is_own = isinstance(config, OwnConfig)

    def on_start(total_steps: int) -> None:
        stop.at_stake = not is_own  # from here on there are steps to save
        progress.start(total_steps)

    def should_stop() -> bool:
        stop.at_stake = True  # a function that asks is one that can stop
        return stop()

    give_torch_threads(threads)
    return run_trial(
        config,
        runs_dir=out,
        dataset=None if is_own else load_dataset(config.dataset, data_dir, say=progress.say),
        tracking=options,
        force=force,
        hooks=Hooks(
            say=progress.say,
            note=progress.note,
            on_start=on_start,
            on_epoch=progress.on_epoch,
            on_step=progress.on_step,
            should_stop=should_stop if is_own else stop,
        ),
    )


def _print(result: RunResult, out: Path, as_json: bool, quiet: bool) -> None:
    from groupnorm_bench.runs import RunFolder

    folder = RunFolder.of(out, result.config).path
    if as_json:
        print_json(
            {
                "run": result.config.name,
                "run_dir": str(folder),
                "status": result.status,
                "config": result.config.to_dict(),
                "summary": result.summary,
            }
        )
        return
    typer.echo(f"{result.config.name}  {result.status}")
    if result.status == "finished":
        is_whole = all(isinstance(result.summary.get(name), int | float) for name in _TOLD)
        is_ours = is_whole and not isinstance(result.config, OwnConfig)
        show = _print_summary if is_ours else _print_own_summary
        show(result)
    if quiet:
        return
    typer.echo(f"  {'saved in':<15}{folder}")
    typer.echo(f"  {'see it':<15}gnbench report {out}")
    url, mode = result.wandb.get("url"), result.wandb.get("mode")
    if url:
        typer.echo(f"  {'W&B':<15}{url}")
    elif mode == "offline":
        typer.echo(f"  {'W&B':<15}offline: wandb leet {folder}/wandb, upload: gnbench sync {out}")


_TOLD = (
    *("test/accuracy", "val/accuracy", "val/accuracy_best", "val/best_epoch"),
    *("train_seconds", "images_per_second", "peak_memory_mb"),
)
"""What the summary of a network has; a trial's, or one that was read back, may lack of it."""


def _print_own_summary(result: RunResult) -> None:
    told = {printable(name): value for name, value in result.summary.items() if name != "status"}
    width = max(15, *(len(name) + 2 for name in told)) if told else 15
    for name, value in told.items():
        is_number = value is None or type(value) in (int, float)
        words = metric_spec(name).shown(value) if is_number else printable(str(value))
        typer.echo(f"  {name:<{width}}{words}")


def _print_summary(result: RunResult) -> None:
    from groupnorm_bench.metrics import METRICS

    summary = result.summary
    shown = {n: METRICS[n].shown(summary[n]) for n in summary if n in METRICS}
    typer.echo(f"  {'test/accuracy':<15}{shown['test/accuracy']}")
    typer.echo(
        f"  {'val/accuracy':<15}{shown['val/accuracy']}  "
        f"best {shown['val/accuracy_best']} in epoch {summary['val/best_epoch']}"
    )
    typer.echo(
        f"  {'training':<15}{summary['train_seconds']:.1f} s, "
        f"{summary['images_per_second']:,.0f} images/s, {summary['peak_memory_mb']:,.0f} MB"
    )

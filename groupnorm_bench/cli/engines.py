"""Which engine trains a sweep, and how it is built from the command's options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from groupnorm_bench.errors import ConfigError, TrackingError, nearest

if TYPE_CHECKING:
    from groupnorm_bench.sweep.executors.protocol import Executor
    from groupnorm_bench.sweep.executors.wandb.local_sweep import LocalSweep
    from groupnorm_bench.sweep.plan.plan import Plan
    from groupnorm_bench.sweep.plan.sources import Source
    from groupnorm_bench.tracking.run import Say, TrackingOptions

EXECUTORS = ("auto", "local", "wandb")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """What the command line says about how to train."""

    out: Path
    data_dir: Path
    tracking: TrackingOptions
    slots: int
    threads: int
    devices: tuple[str, ...]
    trial_timeout: float | None
    max_failures: int


def check_executor(name: str) -> None:
    """Refuse an unknown executor.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in EXECUTORS:
        raise ConfigError(f"executor={name!r} is unknown{nearest(name, EXECUTORS)}")


def open_engine(
    name: str, plan: Plan, options: EngineOptions, say: Say
) -> tuple[Executor, LocalSweep | None]:
    """Return the engine for a plan, and what has W&B show the sweep where our workers train it.

    Raises:
        TrackingError: W&B's agents were asked for by name, and cannot be had.
        RunFolderError: the sweep's record cannot be written.
    """
    if plan.num_todo:
        name, tracking = _resolve(name, options.tracking, say)
        options = dataclasses.replace(options, tracking=tracking)
    shown = _show_on_wandb(name, plan, options, say)
    if shown is not None:
        options = dataclasses.replace(options, tracking=shown.begin())
    return _build(name, plan, options, say), shown


def _resolve(name: str, tracking: TrackingOptions, say: Say) -> tuple[str, TrackingOptions]:
    """Return the executor, and the options with their mode resolved: W&B is asked once.

    `auto` is W&B's agents where W&B takes our key, else our own workers.

    Raises:
        TrackingError: W&B's agents were asked for by name, and cannot be had.
    """
    from groupnorm_bench.tracking.run import resolve_mode

    problems: list[str] = []
    mode = resolve_mode(tracking.mode, problems.append)
    if name == "wandb" and mode != "online":
        why = problems[0].partition(", keeping")[0] if problems else f"--wandb {mode}"
        raise TrackingError(f"executor=wandb needs W&B online ({why}); use --executor local")
    for line in problems:
        say(line)
    tracking = dataclasses.replace(tracking, mode=mode)
    if name == "auto":
        name = "wandb" if mode == "online" else "local"
    return name, tracking


def _build(name: str, plan: Plan, options: EngineOptions, say: Say) -> Executor:
    """Return the engine called `name`, ready to take a plan's runs."""
    slots = min(options.slots, max(plan.num_todo, 1))
    if name == "wandb":
        from groupnorm_bench.sweep.executors.wandb.executor import (
            AgentOptions,
            WandbExecutor,
            WandbSearch,
        )

        agents = AgentOptions(
            runs_dir=options.out,
            data_dir=options.data_dir,
            threads=options.threads,
            devices=options.devices,
            max_failures=options.max_failures,
        )
        engine = WandbExecutor if plan.spec.method == "grid" else WandbSearch
        return engine(plan, agents, options.tracking, slots, say)
    from groupnorm_bench.sweep.executors.local.executor import LocalExecutor

    return LocalExecutor(
        options.out,
        options={"data_dir": options.data_dir, "tracking": options.tracking},
        slots=slots,
        threads=options.threads,
        devices=options.devices,
        trial_timeout=options.trial_timeout,
    )


def _show_on_wandb(name: str, plan: Plan, options: EngineOptions, say: Say) -> LocalSweep | None:
    """Return what has W&B show a sweep of our own workers as one, now or after `gnbench sync`."""
    if name != "local" or not plan.num_todo or options.tracking.mode == "disabled":
        return None
    from groupnorm_bench.sweep.executors.wandb.local_sweep import LocalSweep

    return LocalSweep(plan, options.out, options.tracking, say)


def source_of(engine: Executor) -> Source | None:
    """Return the source of an engine that chooses the runs itself; None where the plan does."""
    from groupnorm_bench.sweep.executors.wandb.executor import NoSource, WandbSearch

    return NoSource() if isinstance(engine, WandbSearch) else None

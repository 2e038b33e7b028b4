"""The engines that train a sweep's runs: a table, and the protocol they keep. Loads light."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groupnorm_bench.sweep.executors.protocol import Executor
    from groupnorm_bench.sweep.plan.plan import Plan
    from groupnorm_bench.tracking.options import Say, TrackingOptions

AUTO_EXECUTOR = "auto"
"""W&B's agents where W&B takes our key, else our own workers."""

SHARED_TRIAL = "groupnorm_bench.sweep.executors.local.shared:run_shared_trial"
"""A training of ours, on data that its engine shares out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions:
    """What the Slurm engine must be told beside what every engine is."""

    sbatch: tuple[str, ...] = ()
    """Arguments of `sbatch`, as `--partition=gpu`."""
    workers: int = 1
    """Runs at a time within each task of the array."""
    may_cancel: Callable[[str], bool] = lambda question: True
    """Asked once stopped, whether what is in the queue is to end as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How a sweep's runs are to be trained, whichever engine does it."""

    runs_dir: Path
    data_dir: Path
    tracking: TrackingOptions
    """Its mode is resolved, not `auto`."""
    slots: int = 1
    """Runs at a time on this machine."""
    threads: int = 1
    """Processor threads of each run, whatever `slots`: results depend on the order of sums."""
    devices: tuple[str, ...] = ()
    """CUDA device per slot, repeated in turn; none on a machine without."""
    trial_timeout: float | None = None
    """Seconds after which a run is taken to hang."""
    max_failures: int = 5
    device: str = "auto"
    """The runs' `device` setting, for an engine that asks a cluster for GPUs."""
    per_device: int = 1
    """Runs on a GPU of a cluster at a time."""
    auto_slots: bool = False
    """Whether `slots` is only the most, and a cluster's size tells how many there are."""
    ray_address: str | None = None
    """Of a Ray cluster; a Ray of our own is started if None."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that go to a cluster's nodes, a W&B key among them where that was asked for."""
    trial: str = SHARED_TRIAL
    """`package.module:function` that trains a run; W&B's agents type `gnbench train` instead."""
    slurm: SlurmOptions | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorSpec:
    """An engine, as the rest knows it before it is loaded."""

    help: str
    home: str
    """`module:function` or `module:Class` under this package, called as `open` is."""
    needs_wandb: bool = False
    """Whether W&B hands out its runs: it must be online, and the engine makes the W&B sweep."""
    trains_here: bool = True
    """Whether its workers are processes of this machine, for which loops are compiled ahead."""

    def open(self, plan: Plan, options: EngineOptions, say: Say) -> Executor:
        """Return the engine, ready to take a plan's runs.

        Args:
            plan: what is to be trained.
            options: how.
            say: called with lines for the user.
        """
        module, _, function = self.home.partition(":")
        home = importlib.import_module(f"{__name__}.{module}")
        engine: Executor = getattr(home, function)(plan, options, say)
        return engine


EXECUTORS: dict[str, ExecutorSpec] = {
    "local": ExecutorSpec(
        help="worker processes on this machine", home="local.executor:LocalExecutor"
    ),
    "wandb": ExecutorSpec(
        help="W&B's agents, here and on machines that join",
        home="wandb.executor:open_wandb",
        needs_wandb=True,
    ),
    "ray": ExecutorSpec(help="a Ray cluster, or a Ray of our own", home="ray.executor:RayExecutor"),
    "slurm": ExecutorSpec(
        help="arrays of jobs on a Slurm cluster, by sbatch",
        home="slurm.executor:SlurmExecutor",
        trains_here=False,
    ),
}

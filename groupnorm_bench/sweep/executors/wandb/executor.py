"""W&B as the engine: the plan becomes a W&B sweep, and W&B's own agents train it here.

W&B decides which run comes next, and agents on other machines may take some of them. What became
of a run is read from its folder, or, where another machine has it, from W&B.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.runs import SETTLED, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EngineOptions
from groupnorm_bench.sweep.executors.local.executor import LocalExecutor
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Executor,
    Judge,
    Lost,
    RunStream,
    StopAsked,
    Stopped,
)
from groupnorm_bench.sweep.executors.wandb.local_sweep import record_of, wandb_config_of
from groupnorm_bench.sweep.executors.wandb.watch import FolderWatch, SweepWatch
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.sweep.plan.sources import Source
from groupnorm_bench.tracking.agent_pool import Agents, SweepGoneError, SweepStatus, read_sweep
from groupnorm_bench.tracking.login import require_login
from groupnorm_bench.tracking.options import Say, TrackingOptions
from groupnorm_bench.tracking.readback import read_wandb
from groupnorm_bench.tracking.sweeps import SweepRecord, known_record, make_sweep

_TICK = 0.3
"""Seconds between looks at the run folders."""


def open_sweep(
    fresh: SweepRecord, runs_dir: Path, tracking: TrackingOptions, say: Say
) -> SweepStatus:
    """Return the W&B sweep that an earlier call made of the same plan, or make it.

    One that was deleted or cancelled there is made anew.

    Raises:
        TrackingError: W&B refuses us or the sweep.
        RunFolderError: what is known of it cannot be written.
    """
    record = known_record(fresh, runs_dir, say)
    if record.wandb.get("sweep_id"):
        try:
            sweep = read_sweep(record.path_on_wandb)
        except SweepGoneError as error:
            say(f"{error} any more; making it anew")
        else:
            if sweep.state not in ("CANCELED", "CANCELLED"):
                record.write(runs_dir)  # the question may be another now
                return sweep
        record = fresh
    made = make_sweep(record, runs_dir, project=tracking.project, entity=tracking.entity)
    sweep = read_sweep(made.path_on_wandb)
    made.replace(wandb=made.wandb | {"url": sweep.url, "executor": "wandb"}).write(runs_dir)
    return sweep


def open_plan(plan: Plan, runs_dir: Path, tracking: TrackingOptions, say: Say) -> SweepStatus:
    """Return a plan's W&B sweep, made or found again; its address is said before all else.

    Raises:
        SweepError: the plan is too large for W&B.
        TrackingError: W&B refuses us or the sweep.
    """
    require_login()
    record = record_of(plan, wandb_config_of(plan))
    if plan.spec.method != "grid":
        record = record.replace(runs=())  # W&B chooses them
    sweep = open_sweep(record, runs_dir, tracking, say)
    say(f"W&B sweep: {sweep.url}")
    if sweep.is_open:
        say(f"join it from another machine: gnbench agent {sweep.path}")
    return sweep


def open_wandb(plan: Plan, options: EngineOptions, say: Say) -> Executor:
    """Return W&B as the engine: the entry `wandb` of `EXECUTORS`."""
    engine = WandbExecutor if plan.spec.method == "grid" else WandbSearch
    return engine(plan, options, say)


class _OnWandb:
    """A plan that W&B's agents train, one per slot.

    Args:
        plan: what to train; of a search, which runs those will be, W&B decides.
        options: how; its tracking names project and entity.
        say: told the sweep's address before anything else.
    """

    source: Source | None = None

    def __init__(self, plan: Plan, options: EngineOptions, say: Say) -> None:
        self.slots = options.slots
        self._plan, self._options, self._say = plan, options, say

    def _open(self) -> SweepStatus:
        return open_plan(self._plan, self._options.runs_dir, self._options.tracking, self._say)

    def _agents(self, path: str) -> Agents:
        options = self._options
        return Agents(
            path,
            self.slots,
            runs_dir=options.runs_dir,
            data_dir=options.data_dir,
            threads=options.threads,
            devices=options.devices,
            max_failures=options.max_failures,
        )


class WandbSearch(_OnWandb):
    """A random or bayes search that W&B makes, by its agents here; the file goes to W&B as it is.

    Args: see `_OnWandb`.
    """

    def __init__(self, plan: Plan, options: EngineOptions, say: Say) -> None:
        super().__init__(plan, options, say)
        self.source = NoSource()

    def submit(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """See `Executor.submit`; `runs` is empty, and what comes is what W&B chose."""
        sweep = self._open()
        if not sweep.is_open:
            raise TrackingError(
                f"sweep {sweep.path} is {sweep.state.lower()}; change the file's name for another"
            )
        runs_dir = self._options.runs_dir
        with self._agents(sweep.path) as agents:
            for result in ended_runs(agents, sweep, runs_dir, should_stop):
                seconds = float(result.summary.get("train_seconds", 0.0))
                if result.status == "failed":  # W&B does not try a proposal again
                    reason = str(result.summary.get("error", "failed"))
                    yield Lost(result.config, 0, reason, final=True)
                else:
                    yield Ended(result.config, 0, result, seconds)


class NoSource:
    """Where W&B chooses the runs, the scheduler has none to hand out."""

    def next(self) -> TrainConfig | None:
        return None

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        return False

    def done(self, config: TrainConfig, result: RunResult | None) -> None:
        return None


class WandbExecutor(_OnWandb):
    """Trains a grid's runs by W&B agents.

    A run that W&B has handed out and lost, as by a killed agent, it never hands out again: such
    runs are trained here, one by one, within the sweep, at its end.

    The sweep holds the runs that have a result as well, so that it is the same whenever it is
    made; W&B is answered for them from their folders. Seeds that are added until it is decided are
    in no grid: they are trained here as well, by all the slots, within the same sweep.

    Args: see `_OnWandb`.
    """

    def submit(self, runs: RunStream, judge: Judge, should_stop: StopAsked) -> Iterator[Event]:
        """See `Executor.submit`; W&B prunes by the sweep's own `early_terminate`, not `judge`."""
        todo = list(_until_none(runs))
        if not todo:
            return
        sweep = self._open()
        planned = [run for run in todo if run in self._plan]
        if not planned:  # seeds that were added until it is decided: W&B's grid has none of them
            runs, todo = itertools.chain(todo, runs), []
        elif sweep.is_open:
            watch = FolderWatch(self._options.runs_dir, todo)
            with self._agents(sweep.path) as agents:
                for _ in _until_ended(agents, should_stop):
                    yield from watch.news()
                _check_started(agents, sweep)
            yield from self._account(sweep, watch.open, should_stop)
        else:
            yield from (Lost(run, 0, f"sweep {sweep.path} is over") for run in todo)
        if not should_stop():
            yield from self._within(sweep).submit(runs, judge, should_stop)

    def _account(
        self, sweep: SweepStatus, left: Sequence[TrainConfig], should_stop: StopAsked
    ) -> Iterator[Event]:
        """Answer for the runs that have no result here once the agents are gone."""
        if not left:
            return
        elsewhere: dict[str, RunResult] = {}
        if not should_stop():
            results, _ = read_wandb(sweep.path)
            elsewhere = {r.config.name: r for r in results if r.status in SETTLED}
        for run in left:
            if run.name in elsewhere:
                yield Ended(run, 0, elsewhere[run.name], 0.0)
            elif should_stop():
                yield Stopped(run, 0)
            else:
                yield Lost(run, 0, "its W&B agent ended without it")

    def _within(self, sweep: SweepStatus) -> LocalExecutor:
        """Return workers of our own whose runs stand in a W&B sweep."""
        entity, project, sweep_id = sweep.path.split("/")
        tracking = dataclasses.replace(
            self._options.tracking, entity=entity, project=project, sweep_id=sweep_id
        )
        options = dataclasses.replace(self._options, tracking=tracking)
        return LocalExecutor(self._plan, options, self._say)


def _until_none(runs: RunStream) -> Iterator[TrainConfig]:
    for run in runs:
        if run is None:
            return
        yield run


def ended_runs(
    agents: Agents, sweep: SweepStatus, runs_dir: Path, should_stop: StopAsked
) -> Iterator[RunResult]:
    """Yield the result of each run that ends here, until the sweep has nothing more for agents.

    Args:
        agents: started.
        sweep: theirs.
        runs_dir: where their runs keep folders.
        should_stop: polled; once true, runs checkpoint, are given back to W&B, and agents end.

    Raises:
        TrackingError: W&B refused an agent.
    """
    watch = SweepWatch(runs_dir, sweep.path.rpartition("/")[2])
    for _ in _until_ended(agents, should_stop):
        yield from watch.news()
    _check_started(agents, sweep)


def _until_ended(agents: Agents, should_stop: StopAsked) -> Iterator[None]:
    """Yield a few times a second until all agents have ended, and once after; stop them if told."""
    told = False
    while agents.alive:
        if should_stop() and not told:
            told = True
            agents.stop()
        yield
        time.sleep(_TICK)
    yield


def _check_started(agents: Agents, sweep: SweepStatus) -> None:
    if agents.failed_to_start is not None:
        raise TrackingError(f"wandb agent: {agents.failed_to_start}; see {sweep.url}")

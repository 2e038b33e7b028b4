"""A sweep from its file to its outcome: plan, engine, scheduler. Draws nothing."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import ConfigError, RunFolderError, TrackingError, nearest
from groupnorm_bench.notebooks import Bar, html_table
from groupnorm_bench.runs import FoundRun, RunFolder, RunResult, find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import SETTINGS
from groupnorm_bench.settings.layers import with_trial
from groupnorm_bench.settings.own_config import TRIAL, OwnConfig
from groupnorm_bench.sweep.executors import (
    AUTO_EXECUTOR,
    EXECUTORS,
    EngineOptions,
    SlurmOptions,
)
from groupnorm_bench.sweep.executors.local.devices import MAX_WORKERS, slots_for
from groupnorm_bench.sweep.executors.protocol import Ended, StopAsked
from groupnorm_bench.sweep.executors.slurm.options import sbatch_options
from groupnorm_bench.sweep.file.override import override
from groupnorm_bench.sweep.file.shipped import find_sweep
from groupnorm_bench.sweep.file.spec import Metric, SweepSpec, read_spec
from groupnorm_bench.sweep.file.typed import keep_typed, mapping_as_yaml, spec_of_text
from groupnorm_bench.sweep.plan.batches import datasets_of
from groupnorm_bench.sweep.plan.deciding import (
    MOST_SEEDS,
    DecidingSource,
    Standing,
    asked_by,
    closing,
)
from groupnorm_bench.sweep.plan.describe import Cost, cost_of, headline, sample_todo, together
from groupnorm_bench.sweep.plan.plan import LARGE, Plan, build_plan
from groupnorm_bench.sweep.plan.pruner import metric_value
from groupnorm_bench.sweep.plan.sources import Source, make_source
from groupnorm_bench.sweep.plan.tuning import describe_tuning, tuned_plan, tuning_plan
from groupnorm_bench.sweep.scheduler import Failed, Reused, ScheduleOutcome, Scheduler, SweepEvent
from groupnorm_bench.tracking.login import login_variables
from groupnorm_bench.tracking.options import DEFAULT_PROJECT, Mode, Say, TrackingOptions
from groupnorm_bench.tracking.variables import obeyed
from groupnorm_bench.training.ahead import compile_ahead
from groupnorm_bench.wording import count, setting_value

if TYPE_CHECKING:
    from groupnorm_bench.compare.cells import CellSummary
    from groupnorm_bench.sweep.executors.protocol import Executor
    from groupnorm_bench.sweep.executors.wandb.local_sweep import LocalSweep

Watch = Callable[[SweepEvent], None]
JOBS = 8
"""Tasks of a Slurm array where nobody says how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOutcome:
    """What a sweep comes to. A notebook shows its ranking."""

    plan: Plan = dataclasses.field(repr=False)
    metric: Metric
    """What its cells are ranked by."""
    trained: dict[str, RunResult] = dataclasses.field(repr=False)
    """By run name: what this call trained, whatever its status."""
    reused: dict[str, RunResult] = dataclasses.field(repr=False)
    """By run name: results that were there before, or that a sweep beside this one trained."""
    failures: list[Failed]
    gave_up: bool
    """Too many failures in a row."""
    stopped: bool
    """Asked to stop before all was done."""
    seconds: float
    num_runs: int
    """Runs that were asked for: the plan's, or as many as it took to decide."""
    standing: Standing | None = None
    """How its question stands, where it was run until decided."""
    closing: tuple[str, ...] = ()
    """The verdicts in words, and what they cost, likewise."""
    tuning: Plan | None = None
    """The runs that tune the arms first, where the question has some; never among the results."""
    tuned: dict[str, RunResult] = dataclasses.field(default_factory=dict)
    """By run name: those of them that this call trained."""

    @property
    def results(self) -> list[RunResult]:
        """All results, the earlier ones first."""
        return [*self.reused.values(), *self.trained.values()]

    @property
    def num_left(self) -> int:
        """Runs without a result so far; `retry_failed` takes up those that failed."""
        tuned = self.tuning.num_reused if self.tuning else 0
        settled = sum(result.status != "failed" for result in self.results)
        return self.num_runs - tuned - settled

    def count(self, status: str) -> int:
        """Return how many of the runs trained now ended with `status`."""
        return sum(result.status == status for result in self.trained.values())

    def ranking(self) -> list[CellSummary]:
        """Return the cells by their mean over seeds, best first, never by their best seed.

        A metric that only epochs have, as `val/loss`, counts as it was in the last one; by
        `val/accuracy` where no run has the sweep's metric.
        """
        from groupnorm_bench.compare.cells import rank
        from groupnorm_bench.compare.rows import RunRow

        rows = [RunRow(result=_with_last(result, self.metric)) for result in self.results]
        has_metric = any(row.metric(self.metric.name) is not None for row in rows)
        return rank(rows, self.metric.name if has_metric else "val/accuracy")

    def _repr_html_(self) -> str:
        from groupnorm_bench.compare.order import varying
        from groupnorm_bench.metrics import metric_spec

        ranking = self.ranking()
        names = varying(cell.setting for cell in ranking)
        spec = metric_spec(ranking[0].metric if ranking else self.metric.name)
        heads = ["arm", *names, spec.title, "sd", "n"]
        rows: list[list[object]] = []
        for cell in ranking:
            values = [setting_value(cell.setting.get(name)) for name in names]
            rows.append([cell.arm, *values, spec.text(cell.mean), spec.text(cell.sd), cell.n])
        told = f"{count(len(self.trained), 'run')} trained, {len(self.reused):,} reused"
        return f"<p>{told}</p>\n{html_table(heads, rows, [spec.title, 'sd', 'n'])}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions:
    """What a person says of a sweep beside its file; see `sweep` for each."""

    runs: Path = Path("runs")
    data_dir: Path | None = None
    executor: str = AUTO_EXECUTOR
    workers: str = "auto"
    workers_per_device: int = 1
    threads: int = 1
    seeds: int | None = None
    run_cap: int | None = None
    search_seed: int = 0
    retry_failed: bool = False
    max_failures: int = 5
    trial_timeout: float | None = None
    ray_address: str | None = None
    ship_wandb_key: bool = False
    wandb: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    until_decided: bool = False
    max_seeds: int | None = None
    slurm: str = ""
    jobs: int | None = None
    given: frozenset[str] | None = None
    """The settings that were typed; those that differ from the defaults if None."""


class Session:
    """One call of a sweep: planned when made, then opened, then run.

    Args:
        spec: the sweep file.
        base: settings that the file does not name.
        options: see `SweepOptions`.
        say: called with lines that a person must see.
        note: called with lines that `--quiet` leaves out.

    Raises:
        ConfigError: an option or the file is not valid.
        RunFolderError: `runs` is no folder.
    """

    def __init__(
        self,
        spec: SweepSpec | Path,
        base: TrainConfig,
        options: SweepOptions,
        *,
        say: Say,
        note: Say,
    ) -> None:
        from groupnorm_bench.datasets.load import resolve_dataset
        from groupnorm_bench.datasets.place import default_data_dir

        names = (AUTO_EXECUTOR, *EXECUTORS)
        if options.executor not in names:
            raise ConfigError(
                f"executor={options.executor!r} is unknown{nearest(options.executor, names)}"
            )
        self._options, self._slurm = options, _slurm_of(options)
        self._address = _ray_address(options)
        self._auto_slots = self._address is not None and options.workers == "auto"
        self._devices, self._slots = self._slots_of(base.device)
        typed = base.trial if isinstance(base, OwnConfig) else None
        spec = spec if isinstance(spec, SweepSpec) else read_spec(spec, typed)
        given = _changed(base) if options.given is None else options.given
        if spec.trial is not None:
            given -= {TRIAL}
            base = with_trial(base, given, spec.trial)
        spec, replaced = override(spec, base, given)
        for line in replaced:
            note(line)
        self._say, self._note = say, note
        self._data_dir = data_dir = options.data_dir or default_data_dir()
        tracking = TrackingOptions(
            mode=options.wandb,
            project=options.project or spec.project or DEFAULT_PROJECT,
            entity=options.entity or spec.entity,
            suite=spec.name,
        )
        self._tracking = obeyed(tracking, note, runs_dir=None)
        self._found = _find(options.runs, note)
        is_tuned = spec.question is not None and spec.question.tune is not None
        self.plan = build_plan(
            spec,
            base=base,
            seeds=options.seeds,
            run_cap=options.run_cap,
            search_seed=options.search_seed,
            found=() if is_tuned else self._found,
            retry_failed=options.retry_failed,
            resolve_dataset=lambda name: resolve_dataset(name, data_dir, say),
        )
        self._untuned = self.plan
        self.tuning = self._plan_tuning() if is_tuned else None
        self.metric = self.plan.spec.metric or Metric(name="val/accuracy", goal="maximize")
        self.deciding = self._decide()
        if self.is_tuned:
            self._tune()
        self.reused = self._find_reused()
        most = max(self.plan.num_todo, 1 if self.deciding is None else self.plan.num_cells)
        self.slots = min(self._slots, max(most, self.tuning.num_todo if self.tuning else 0))
        self._executor = ""
        self._engine: Executor | None = None
        self._shown: LocalSweep | None = None
        self._may_cancel: Callable[[str], bool] = lambda question: True

    def _slots_of(self, device: str) -> tuple[tuple[str, ...], int]:
        """Return the GPUs of this machine to train on, and the number of runs at a time."""
        options = self._options
        if self._slurm is not None:
            return (), (options.jobs or JOBS) * self._slurm.workers
        return slots_for(
            device if self._address is None else "cpu",
            str(MAX_WORKERS) if self._auto_slots else options.workers,
            options.workers_per_device,
        )

    def _plan_tuning(self) -> Plan:
        retry = self._options.retry_failed
        return tuning_plan(self._untuned, self._found, retry_failed=retry)

    @property
    def is_tuned(self) -> bool:
        """Whether the plan's runs are the ones to train: no value of theirs is still open."""
        return self.tuning is None or self.tuning.num_reused == self.tuning.num_runs

    def _tune(self) -> list[str]:
        """Set each cell to the values that validated best; return a line for each."""
        if self.tuning is None:
            return []
        self.plan, lines = tuned_plan(
            self._untuned, self.tuning, self._found, retry_failed=self._options.retry_failed
        )
        self.deciding = self._decide()
        return lines

    def _decide(self) -> DecidingSource | None:
        """Return the source that adds seeds until it is decided, where that was asked for."""
        question = self.plan.spec.question
        if question is not None:
            asked_by(self.plan)  # refuses arms that are not there
        most = self._options.max_seeds
        if not (self._options.until_decided or (question and question.until_decided)):
            if most is not None:
                raise ConfigError(f"max_seeds={most} does nothing without --until-decided")
            return None
        if most is None:
            most = (question and question.max_seeds) or MOST_SEEDS
        return DecidingSource(self.plan, self._found if self.is_tuned else (), most)

    @property
    def has_work(self) -> bool:
        """Whether anything is left to train."""
        if self.tuning is not None and not self.is_tuned:
            return self.tuning.num_todo > 0
        return self.plan.num_todo > 0 if self.deciding is None else self.deciding.has_more

    @property
    def datasets(self) -> list[str]:
        """The data sets of its runs, by name; none of a trial, which has its own."""
        return [] if self.plan.spec.trial else datasets_of(self.plan.spec, self.plan.base)

    @property
    def num_todo(self) -> int:
        """Runs that are to be trained now, those that tune it as well."""
        return self.plan.num_todo + (self.tuning.num_todo if self.tuning else 0)

    @property
    def is_large(self) -> bool:
        """Whether a person should confirm it before it starts."""
        return self.num_todo > LARGE

    @property
    def num_runs(self) -> int:
        """Runs asked for so far: those that tune it as well, and those added until decided."""
        first = self.tuning.num_runs if self.tuning else 0
        added = self.deciding.num_asked if self.deciding else 0
        return first + max(self.plan.num_runs, added)

    def _find_reused(self) -> list[RunResult]:
        """Return the results that were there when this session was made."""
        if self.deciding is not None:
            return self.deciding.results
        settled = self.plan.settled
        return [run.result for run in self._found if run.result.config.name in settled]

    def estimate(self) -> Cost | None:
        """Measure what is to do will take, tuning too, in some seconds; None where nothing is."""
        plans = [self.plan] if self.tuning is None or self.is_tuned else [self.tuning, self.plan]
        total: Cost | None = None
        for plan in plans:
            cost = self._estimate(plan)
            total = together(total, cost) if total and cost else cost or total
        return total

    def _estimate(self, plan: Plan) -> Cost | None:
        sample = sample_todo(plan)
        if not sample or plan.spec.trial is not None:  # how long a function takes, nobody knows
            return None
        import torch

        from groupnorm_bench.datasets.load import load_dataset
        from groupnorm_bench.sweep.estimate import estimate_seconds

        torch.set_num_threads(self._options.threads)
        datasets = {
            name: load_dataset(name, self._data_dir) for name in {r.dataset for r in sample}
        }
        seconds = estimate_seconds(sample, datasets)
        known = 1 if self._auto_slots else self.slots  # a cluster's size is not known yet
        return cost_of(plan, sample, seconds, known)

    def open(self) -> None:
        """Make the folder of runs and the engine; W&B is asked here, and once.

        Raises:
            TrackingError: W&B's agents were asked for by name, and cannot be had.
            RunFolderError: the folder, or the sweep's record in it, cannot be written.
        """
        _make(self._options.runs)
        settled = {**self.plan.settled, **(self.tuning.settled if self.tuning else {})}
        for run in self._found:
            if run.result.config.name in settled:
                run.folder.tidy_if_left()
        if self.tuning is not None:
            self._note(describe_tuning(self._untuned, self.tuning))
        self._note(headline(self.plan))
        for line in self.plan.spec.notes:
            self._note(line)
        if self.plan.spec.trial is not None and self.reused:
            from groupnorm_bench.trial.own import of_other_code

            if line := of_other_code(self.plan.spec.trial, self.reused):
                self._say(line)
        from groupnorm_bench.sweep.executors.wandb.local_sweep import keep_question

        runs_dir = self._options.runs
        keep_question(self.plan, runs_dir, self._note, is_tuned=self.is_tuned)
        if self.tuning is not None and not self.is_tuned:
            keep_question(self.tuning, runs_dir, self._note)
        if not self.has_work:
            return
        self._executor, self._tracking = choose_executor(
            self._options.executor, self._tracking, self._say, self._note
        )
        self._begin(self.tuning if self.tuning is not None and not self.is_tuned else self.plan)

    def _begin(self, plan: Plan) -> None:
        """Make the engine of a plan, and its sweep where W&B is to show one."""
        from groupnorm_bench.sweep.executors.wandb.local_sweep import LocalSweep

        spec = EXECUTORS[self._executor]
        tracking = dataclasses.replace(self._tracking, suite=plan.spec.name)
        # Else whoever trains sees to it.
        if spec.trains_here and not spec.needs_wandb and self._address is None:
            compile_ahead(sample_todo(plan), self._say)
        if not spec.needs_wandb and tracking.mode != "disabled":
            self._shown = LocalSweep(plan, self._options.runs, tracking, self._say)
            tracking = self._shown.begin()
        options = EngineOptions(
            runs_dir=self._options.runs,
            data_dir=self._data_dir,
            tracking=tracking,
            slots=self.slots,
            threads=self._options.threads,
            devices=self._devices,
            trial_timeout=self._options.trial_timeout,
            max_failures=self._options.max_failures,
            device=plan.base.device,
            per_device=self._options.workers_per_device,
            auto_slots=self._auto_slots,
            ray_address=self._address,
            environment=self._shipped(),
            slurm=self._slurm
            and dataclasses.replace(
                self._slurm, may_cancel=lambda question: self._may_cancel(question)
            ),
        )
        self._engine = spec.open(plan, options, self._say)
        self.slots = self._engine.slots

    def _shipped(self) -> tuple[tuple[str, str], ...]:
        """Return the variables of a W&B login that go to a cluster's nodes, if any are to.

        Raises:
            TrackingError: they are to, and nobody is logged in here.
        """
        if not self._options.ship_wandb_key:
            return ()
        variables = login_variables()
        if self._tracking.mode != "online":  # by WANDB_MODE, or W&B is out of reach
            self._say(f"W&B is {self._tracking.mode}, so no key goes to the nodes")
            return ()
        return variables

    def run(
        self,
        *,
        watch: Watch = lambda event: None,
        should_stop: StopAsked = lambda: False,
        may_cancel: Callable[[str], bool] = lambda question: True,
    ) -> SweepOutcome:
        """Train what is missing, on the engine that `open` made; what tunes the arms first.

        Args:
            watch: told of everything as it happens.
            should_stop: polled; once true, runs under way checkpoint and stop.
            may_cancel: asked once stopped, whether jobs that could go on without this process, as
                Slurm's, are to end as well.
        """
        self._may_cancel = may_cancel
        started = time.monotonic()
        tuned = ScheduleOutcome()
        if self.tuning is not None and not self.is_tuned:
            tuned = self._work(make_source(self.tuning, self._found), watch, should_stop)
            self._settle_tuning(tuned)
        work = ScheduleOutcome()
        if self.is_tuned and not (tuned.stopped or tuned.gave_up):
            work = self._work(
                self.deciding or make_source(self.plan, self._found), watch, should_stop
            )
            if self._shown is None and self.deciding is not None:
                from groupnorm_bench.sweep.executors.wandb.local_sweep import add_runs

                names = [result.config.name for result in self.deciding.results]
                add_runs(self.plan, self._options.runs, names)
        before = {result.config.name: result for result in self.reused}
        stopped = tuned.stopped or work.stopped
        num_tuning = self.tuning.num_runs if self.tuning else 0
        return SweepOutcome(
            plan=self.plan,
            metric=self.metric,
            trained=work.results,
            reused=before | work.reused,
            failures=[*tuned.failures, *work.failures],
            gave_up=tuned.gave_up or work.gave_up,
            stopped=stopped,
            seconds=time.monotonic() - started,
            num_runs=self.num_runs,
            standing=self.deciding.standing if self.deciding else None,
            closing=(
                tuple(closing(self.deciding, num_tuning, stopped=stopped)) if self.deciding else ()
            ),
            tuning=self.tuning,
            tuned=tuned.results,
        )

    def _work(self, source: Source, watch: Watch, should_stop: StopAsked) -> ScheduleOutcome:
        """Work a source off, where there is an engine; tell W&B what its sweep came to."""
        if self._engine is None:
            return ScheduleOutcome()
        work = Scheduler(
            self._engine.source or source,
            self._engine,
            self._options.runs,
            should_stop=should_stop,
            max_failures=self._options.max_failures,
            watch=lambda event: self._tell(event, watch),
        ).run()
        if self._shown is not None:
            is_done = not (work.stopped or work.gave_up)
            added = source.results if isinstance(source, DecidingSource) else []
            names = [result.config.name for result in added]
            self._shown.end([*work.results, *work.reused, *names], is_done=is_done)
        return work

    def _settle_tuning(self, work: ScheduleOutcome) -> None:
        """Take what the tuning came to; where all of it is there, begin the runs at its values."""
        runs_dir = self._options.runs
        results = (*work.results.values(), *work.reused.values())  # some are on W&B alone
        here = [FoundRun(RunFolder.of(runs_dir, r.config), r) for r in results]
        names = {run.result.config.name for run in here}
        self._found = [run for run in self._found if run.result.config.name not in names] + here
        self.tuning = self._plan_tuning()
        self._engine = self._shown = None
        if not self.is_tuned or work.stopped or work.gave_up:
            return
        for line in self._tune():
            self._note(f"tuned {line}")
        self.reused = self._find_reused()
        from groupnorm_bench.sweep.executors.wandb.local_sweep import keep_question

        keep_question(self.plan, runs_dir, self._note)
        if self.has_work:
            self._begin(self.plan)

    def _tell(self, event: SweepEvent, watch: Watch) -> None:
        watch(event)
        if self.deciding is not None and isinstance(event, Ended | Reused):
            for line in self.deciding.news():
                self._note(line)


def sweep(
    spec_or_path: SweepSpec | Path | str | Mapping[str, Any],
    *,
    base: TrainConfig | None = None,
    runs: Path | str = "runs",
    say: Say = lambda line: print(line, file=sys.stderr),
    watch: Watch | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> SweepOutcome:
    """Run a sweep, or go on with it: train those of its runs that `runs` holds no result of.

    Args:
        spec_or_path: a W&B sweep file, the name of one of ours (`norm`), one that `read_spec` has
            read, or the mapping that `wandb.sweep` takes, which is kept as a file in `runs`.
        base: settings that the file does not name; the defaults if None.
        runs: folder of the run folders.
        say: called with lines that a person must see; stderr by default.
        watch: told of each event as it happens; a bar where a person watches if None.
        should_stop: polled; once true, runs under way checkpoint and stop.
        options: fields of `SweepOptions`: `seeds` and `run_cap` in place of the file's,
            `search_seed`, `executor` (a name in `EXECUTORS`, or `auto`), `workers`,
            `workers_per_device`, `threads` of each worker, `retry_failed`, `max_failures` in a
            row that end it, `trial_timeout` in seconds, `ray_address` of a cluster and
            `ship_wandb_key` to its nodes, `slurm` (options of `sbatch`) and `jobs` (tasks at a
            time) for that engine, `data_dir`, `wandb` (a mode), `project` and `entity`;
            `until_decided` and `max_seeds` to add seeds until each contrast is
            decided.

    Returns:
        all results, with what failed and what remains; runs that fail raise nothing here.

    Raises:
        ConfigError: an option or the file is not valid.
        TrackingError: W&B's agents were asked for by name, and cannot be had.
        RunFolderError: `runs` cannot be made or written.
    """
    unknown = options.keys() - {each.name for each in dataclasses.fields(SweepOptions)}
    if unknown:
        name = min(unknown)
        known = [each.name for each in dataclasses.fields(SweepOptions)]
        raise ConfigError(f"unknown option {name!r} of a sweep{nearest(name, known)}")
    spec = _spec_of(spec_or_path, Path(runs))
    session = Session(
        spec,
        base or TrainConfig(),
        SweepOptions(runs=Path(runs), **options),
        say=say,
        note=say,
    )
    session.open()
    if isinstance(spec_or_path, Mapping):
        keep_typed(session.plan.spec.path, mapping_as_yaml(spec_or_path))
    with Bar(f"{session.plan.spec.name}: run", shown=watch is None) as bar:
        return session.run(watch=watch or _Watched(session, bar), should_stop=should_stop)


def _spec_of(given: SweepSpec | Path | str | Mapping[str, Any], runs: Path) -> SweepSpec | Path:
    if isinstance(given, SweepSpec):
        return given
    if isinstance(given, Mapping):
        return spec_of_text(mapping_as_yaml(given), None, runs)
    return find_sweep(given)


class _Watched:
    """Counts what a session's events tell of, for a bar."""

    def __init__(self, session: Session, bar: Bar) -> None:
        self._session, self._bar = session, bar
        self._counts: dict[str, int] = {}
        if session.reused:
            self._count("reused", len(session.reused))

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, Ended):
            self._count(event.result.status)
        elif isinstance(event, Reused):
            self._count("reused")
        elif isinstance(event, Failed):
            self._count("failed")

    def _count(self, what: str, number: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + number
        words = ", ".join(f"{n:,} {word}" for word, n in self._counts.items())
        done = sum(self._counts.values())
        self._bar.tell(done, max(done, self._session.num_runs), words)


def choose_executor(
    name: str, tracking: TrackingOptions, say: Say, note: Say
) -> tuple[str, TrackingOptions]:
    """Return the executor, and the options with their mode resolved: W&B is asked once.

    `note` is told where there is no login and none was asked for, `say` of any other lack.

    Raises:
        TrackingError: it needs W&B online, and that cannot be had.
    """
    from groupnorm_bench.tracking.login import resolve_mode

    problems: list[str] = []
    hints: list[str] = []
    mode = resolve_mode(tracking.mode, problems.append, hints.append)
    if name != AUTO_EXECUTOR and EXECUTORS[name].needs_wandb and mode != "online":
        lines = problems + hints
        why = lines[0].partition(", keeping")[0] if lines else f"--wandb {mode}"
        raise TrackingError(f"executor={name} needs W&B online ({why}); use --executor local")
    for line in problems:
        say(line)
    for line in hints:
        note(line)
    if name == AUTO_EXECUTOR:
        name = "wandb" if mode == "online" else "local"
    return name, dataclasses.replace(tracking, mode=mode)


def _ray_address(options: SweepOptions) -> str | None:
    """Return the Ray cluster that is meant, as Ray's own RAY_ADDRESS too; None for none.

    Raises:
        ConfigError: an option for a cluster was given, and none is used.
    """
    is_ray = options.executor == "ray"
    address = options.ray_address or (os.environ.get("RAY_ADDRESS") if is_ray else None)
    if options.ray_address is not None and not is_ray:
        raise ConfigError(
            f"ray_address={options.ray_address!r} does nothing without --executor ray"
        )
    if options.ray_address is not None and not options.ray_address.strip():
        raise ConfigError(
            f"ray_address={options.ray_address!r} is empty; write HOST:PORT, or auto, or leave it "
            "out"
        )
    if options.ship_wandb_key and address is None:
        raise ConfigError(
            "ship_wandb_key is for the nodes of a cluster; add --executor ray --ray-address ADDRESS"
        )
    if options.ship_wandb_key and options.wandb in ("offline", "disabled"):
        raise ConfigError(
            f"ship_wandb_key does nothing with --wandb {options.wandb}; leave one of them out"
        )
    return address


def _slurm_of(options: SweepOptions) -> SlurmOptions | None:
    """Return what is said of Slurm, None where another engine trains.

    Raises:
        ConfigError: it does not parse, or nothing would come of it.
    """
    if options.executor != "slurm":
        for name, value in (("slurm", options.slurm), ("jobs", options.jobs)):
            if value:
                raise ConfigError(f"{name}={value} does nothing without --executor slurm")
        return None
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"jobs={options.jobs} is too small; set jobs to 1 or more")
    workers = str(options.workers_per_device) if options.workers == "auto" else options.workers
    _, number = slots_for("cpu", workers, 1)
    return SlurmOptions(sbatch=sbatch_options(options.slurm), workers=number)


def _with_last(result: RunResult, metric: Metric) -> RunResult:
    value = metric_value(metric, result)
    if value is None or metric.name in result.summary:
        return result
    return result.replace(summary={**result.summary, metric.name: value})


def _changed(base: TrainConfig) -> frozenset[str]:
    """Return the settings that are not at their default: from Python, those that were given."""
    if isinstance(base, OwnConfig):
        defaults: TrainConfig = OwnConfig(trial=base.trial)
        names = [name for name in base.to_dict() if name != TRIAL]
        return frozenset(name for name in names if base.value(name) != defaults.value(name))
    defaults = TrainConfig()
    return frozenset(name for name in SETTINGS if getattr(base, name) != getattr(defaults, name))


def _find(runs_dir: Path, note: Say) -> list[FoundRun]:
    """Return the run folders at hand; say which could not be read."""
    if not runs_dir.exists():
        _check_place(runs_dir)
        return []
    found, problems = find_runs([runs_dir])
    for problem in problems:
        note(problem)
    return found


def _check_place(runs_dir: Path) -> None:
    """Refuse a folder of run folders that can never be made, also of a plan alone."""
    nearest_there = next((p for p in (runs_dir, *runs_dir.parents) if os.path.lexists(p)), None)
    if nearest_there is not None and not nearest_there.is_dir():
        raise RunFolderError(
            f"out={runs_dir} cannot be made: {nearest_there} is no folder; choose another --out"
        )


def _make(runs_dir: Path) -> None:
    """Make the folder of run folders now: one line, not a failure of every run."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"out={runs_dir} cannot be made: {error.strerror}; choose another --out"
        ) from error

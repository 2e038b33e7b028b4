"""Cells chosen as results arrive, by Optuna's TPE.

What a search knows it reads from the run folders, so that it goes on where it was killed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.axes import Axis
from groupnorm_bench.sweep.plan.plan import Plan, draw_share
from groupnorm_bench.sweep.plan.pruner import Stopper, load_optuna, metric_value
from groupnorm_bench.sweep.plan.space import choose_cell, shares_of

if TYPE_CHECKING:
    import optuna

_ASKS = 30
"""Cells asked of TPE in a row, all known already, before one is drawn at random instead."""
_DRAWS = 1_000
"""Random draws in a row, all known already, before the space counts as used up."""
_EDGE = 1e-9
"""Quantiles stay this far from 0 and 1, where a normal distribution's are infinite."""


@dataclass(slots=True)
class _Cell:
    """A cell of a search: its runs, one a seed, and Optuna's trial of it while it is open."""

    config: TrainConfig
    waiting: set[int]
    results: list[RunResult] = field(default_factory=list)
    trial: optuna.Trial | None = None
    """None for a cell that TPE did not ask for: found, or drawn at random."""
    is_told: bool = False


class BayesSource:
    """Cells chosen by Optuna's TPE, ask and tell; a cell's value is its mean over the seeds.

    Define-by-run: settings that the chosen norm does not read are never suggested. A cell that is
    known already is not handed out again: TPE is told its value and asked for another.
    """

    def __init__(self, plan: Plan, watch: Stopper, results: Iterable[RunResult]) -> None:
        results = list(results)
        assert plan.spec.metric is not None, "the spec refuses bayes without a metric"
        self._optuna = load_optuna()
        self._plan, self._watch, self._metric = plan, watch, plan.spec.metric
        self._budget = plan.num_todo
        self._cells: dict[str, _Cell] = {}
        self._queue: deque[TrainConfig] = deque()
        # A sampler that starts anew with the old seed would ask for the old cells again.
        seed = plan.search_seed + len(results)
        self._draw = random.Random(seed)
        self._study = self._optuna.create_study(
            direction=self._metric.goal, sampler=self._optuna.samplers.TPESampler(seed=seed)
        )
        for result in results:
            self._cells.setdefault(result.cell, self._new_cell(result.config))
        for result in results:
            if result.config.name in plan.settled:
                self._take(result.config, result)
            elif result.config.name in plan.failed:
                self._take(result.config, None)
        for cell in self._cells.values():
            self._enqueue(cell)

    def next(self) -> TrainConfig | None:
        """Return the next run; None once the cap, the target or the space's end is reached."""
        if self._budget <= 0 or self._watch.is_target_reached:
            return None
        if not self._queue:
            cell = self._ask()
            if cell is None:
                self._budget = 0
                return None
            self._cells[cell.config.cell] = cell
            self._enqueue(cell)
        self._budget -= 1
        return self._queue.popleft()

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Return whether hyperband stops this run after this epoch."""
        return self._watch.report(config, row)

    def done(self, config: TrainConfig, result: RunResult | None) -> None:
        """Take a result; after a cell's last seed, TPE learns the mean."""
        self._watch.done(result)
        self._take(config, result)

    def _new_cell(self, config: TrainConfig, trial: optuna.Trial | None = None) -> _Cell:
        return _Cell(config=config, waiting=set(self._plan.seeds), trial=trial)

    def _enqueue(self, cell: _Cell) -> None:
        seeds = [seed for seed in self._plan.seeds if seed in cell.waiting]
        self._queue.extend(cell.config.replace(seed=seed) for seed in seeds)

    def _take(self, config: TrainConfig, result: RunResult | None) -> None:
        cell = self._cells[config.cell]
        cell.waiting.discard(config.seed)
        if result is not None:
            cell.results.append(result)
        if not cell.waiting and not cell.is_told:
            cell.is_told = True
            self._tell(cell)

    def _ask(self) -> _Cell | None:
        for _ in range(_ASKS):
            trial = self._study.ask()
            try:
                config = self._choose(lambda axis, trial=trial: _suggest(trial, axis))
            except ConfigError:
                # Pruned without a value ranks last: TPE learns to keep away.
                self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
                continue
            known = self._cells.get(config.cell)
            if known is None:
                return self._new_cell(config, trial)
            self._repeat(trial, known)
        for _ in range(_DRAWS):
            try:
                config = self._choose(lambda axis: draw_share(self._draw))
            except ConfigError:
                continue
            if config.cell not in self._cells:
                return self._new_cell(config)
        return None

    def _choose(self, share: Any) -> TrainConfig:
        config = choose_cell(self._plan.spec.axes, self._plan.base, share)
        return config.replace(seed=self._plan.seeds[0])

    def _repeat(self, trial: optuna.Trial, known: _Cell) -> None:
        """Answer a trial of a known cell; of one whose runs are not over, without a value."""
        state, value, _ = self._outcome(known)
        if known.waiting or state is not self._optuna.trial.TrialState.COMPLETE:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def _tell(self, cell: _Cell) -> None:
        state, value, rows = self._outcome(cell)
        if cell.trial is not None:
            for epoch, step_value in rows.items():
                cell.trial.report(step_value, epoch)
            self._study.tell(cell.trial, value, state=state)
            return
        shares = shares_of(self._plan.spec.axes, self._plan.base, cell.config) or {}
        axes = {axis.label: axis for axis in self._plan.spec.axes if not _is_constant(axis)}
        shares = {label: share for label, share in shares.items() if label in axes}
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=state,
                value=value,
                params={label: _parameter(axes[label], u) for label, u in shares.items()},
                distributions={label: _optuna_distribution(axes[label]) for label in shares},
                intermediate_values=rows,
            )
        )

    def _outcome(self, cell: _Cell) -> tuple[Any, float | None, dict[int, float]]:
        """Return a cell's trial state, its value, and, if it was pruned, its values by epoch."""
        states = self._optuna.trial.TrialState
        finished = [result for result in cell.results if result.status == "finished"]
        values = [metric_value(self._metric, result) for result in finished]
        numbers = [value for value in values if value is not None]
        if numbers:
            return states.COMPLETE, sum(numbers) / len(numbers), {}
        if not cell.results:
            return states.FAIL, None, {}
        rows = {
            int(row["epoch"]): row[self._metric.name]
            for result in cell.results
            if result.status == "pruned"
            for row in result.history
            if row.get(self._metric.name) is not None
        }
        return states.PRUNED, None, rows  # without rows: diverged, and ranked below all others


def _suggest(trial: optuna.Trial, axis: Axis) -> float:
    if _is_constant(axis):
        return 0.5
    if axis.distribution.values:
        count = len(axis.distribution.values)
        return (int(trial.suggest_categorical(axis.label, range(count))) + 0.5) / count
    return min(max(trial.suggest_float(axis.label, 0.0, 1.0), _EDGE), 1 - _EDGE)


def _parameter(axis: Axis, share: float) -> int | float:
    """Return the Optuna parameter that `_suggest` turns into this quantile."""
    if axis.distribution.values:
        count = len(axis.distribution.values)
        return min(int(share * count), count - 1)
    return share


def _optuna_distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    distributions = load_optuna().distributions
    if axis.distribution.values:
        return distributions.CategoricalDistribution(range(len(axis.distribution.values)))
    return distributions.FloatDistribution(0.0, 1.0)


def _is_constant(axis: Axis) -> bool:
    return len(axis.distribution.values) == 1

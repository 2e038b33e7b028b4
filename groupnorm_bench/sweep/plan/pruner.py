"""When a sweep stops early: a run by hyperband, all of it once its target is reached.

Optuna is loaded only by the sweeps that need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.spec import Hyperband, Metric


def metric_value(metric: Metric, result: RunResult) -> float | None:
    """Return a run's value of the metric: its summary's, else its last epoch's; None without."""
    last = result.history[-1] if result.history else {}
    value = result.summary.get(metric.name, last.get(metric.name))
    return value if isinstance(value, int | float) and math.isfinite(value) else None


class Stopper:
    """Watches runs for a sweep's target, and for those that hyperband stops."""

    def __init__(
        self, metric: Metric | None, bands: Hyperband | None, results: Iterable[RunResult]
    ) -> None:
        self._metric = metric
        self._pruner = Pruner(bands, metric) if bands is not None and metric is not None else None
        self.is_target_reached = False
        for result in results:
            for row in result.history:
                self.report(result.config, row)
            self.done(result)

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Take one epoch's row; return whether the run should stop here."""
        return self._pruner is not None and self._pruner.report(config, row)

    def done(self, result: RunResult | None) -> None:
        """Take a run's result."""
        if self._metric is None or result is None or result.status != "finished":
            return
        value = metric_value(self._metric, result)
        if value is not None and self._metric.is_reached(value):
            self.is_target_reached = True


class Pruner:
    """W&B's hyperband by Optuna's successive halving (asynchronous; Li et al. 2018, ASHA).

    W&B's hyperband is one bracket: at each band of epochs a run goes on if it is among the best
    1/eta of all that came that far. Optuna's `SuccessiveHalvingPruner` is the same rule with bands
    at eta**k, so it is told the number of the band; its `HyperbandPruner` would add brackets in
    which runs pass bands unjudged.
    """

    def __init__(self, bands: Hyperband, metric: Metric) -> None:
        optuna = load_optuna()
        self._metric, self._bands = metric, bands
        self._study = optuna.create_study(
            direction=metric.goal,
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=1, reduction_factor=bands.eta
            ),
        )
        self._trials: dict[str, Any] = {}
        self._judged: dict[str, int] = {}

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Take one epoch's row; return whether the run is to stop. A repeated epoch is ignored."""
        value, band = row.get(self._metric.name), self._bands.band(int(row["epoch"]))
        if value is None or band <= self._judged.get(config.name, 0):
            return False
        if config.name not in self._trials:
            self._trials[config.name] = self._study.ask()
        trial = self._trials[config.name]
        self._judged[config.name] = band
        trial.report(value, self._bands.eta ** (band - 1))
        return trial.should_prune()


def load_optuna() -> Any:
    """Return the package `optuna`, told to keep quiet."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

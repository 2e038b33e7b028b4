"""What the scheduler asks for work: a plan's runs in order, or a search's as results arrive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from groupnorm_bench.runs import FoundRun, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.plan.bayes import BayesSource
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.sweep.plan.pruner import Stopper


class Later:
    """No run now, but there may be one once a run under way has ended."""


LATER = Later()


class Source(Protocol):
    """Hands out runs and learns from them; one process and one thread call it.

    Each config handed out by `next` is given back once by `done`. A retry after a killed worker
    is the scheduler's affair: the same config, still not done.
    """

    def next(self) -> TrainConfig | Later | None:
        """Return the next run to start; LATER: ask again when a run has ended; None: no more."""
        ...

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Take one epoch's history row; return whether the run should stop here (`pruned`)."""
        ...

    def done(self, config: TrainConfig, result: RunResult | None) -> None:
        """Take a run's result; None where it ended without one."""
        ...


def make_source(plan: Plan, found: Iterable[FoundRun] = ()) -> Source:
    """Return where the scheduler gets this plan's runs from.

    Args:
        plan: the sweep.
        found: the run folders at hand, the same as the plan was built with; a search and a
            pruner learn from those whose runs are in the plan.
    """
    results = [run.result for run in found if run.result.config in plan]
    watch = Stopper(plan.spec.metric, plan.spec.early_terminate, results)
    return (
        BayesSource(plan, watch, results)
        if plan.spec.method == "bayes"
        else PlanSource(plan, watch)
    )


class PlanSource:
    """The runs of a grid or of a random search, in the plan's order."""

    def __init__(self, plan: Plan, watch: Stopper) -> None:
        self._todo, self._watch = plan.todo(), watch

    def next(self) -> TrainConfig | None:
        """Return the next run of the plan, or None after the last or once the target is met."""
        return None if self._watch.is_target_reached else next(self._todo, None)

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Return whether hyperband stops this run after this epoch."""
        return self._watch.report(config, row)

    def done(self, config: TrainConfig, result: RunResult | None) -> None:
        """Take a result."""
        self._watch.done(result)

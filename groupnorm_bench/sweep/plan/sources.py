"""What the scheduler asks for work: a plan's runs in order, or a search's as results arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig


class Source(Protocol):
    """Hands out runs and learns from them; one process and one thread call it.

    Each config handed out by `next` is given back once by `done`. A retry after a killed worker
    is the scheduler's affair: the same config, still not done.
    """

    def next(self) -> TrainConfig | None:
        """Return the next run to start, or None: no more will come."""
        ...

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Take one epoch's history row; return whether the run should stop here (`pruned`)."""
        ...

    def done(self, config: TrainConfig, result: RunResult | None) -> None:
        """Take a run's result; None where it ended without one."""
        ...

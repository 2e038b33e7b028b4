"""What a sweep can show before anything is spent: seeds to a decision, were the truth this."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.compare.measure import least_spread
from groupnorm_bench.compare.power import CAP, QUANTILES, PowerRule, SeedsNeeded, seeds_to_decide
from groupnorm_bench.compare.question import Question
from groupnorm_bench.datasets import DATASETS
from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.sweep.plan.describe import Cost, count_contrasts
from groupnorm_bench.sweep.plan.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPower:
    """Seeds per arm until a sweep's question is decided."""

    sweep: str
    metric: str
    difference: float
    """Of every contrast, in the metric's printed unit."""
    sd: float
    """Of one pair's difference around it."""
    rule: PowerRule
    contrasts: int
    cells: int
    one: SeedsNeeded
    """Until one contrast that was named beforehand is decided."""
    all: SeedsNeeded
    """Until every contrast is."""
    seconds_per_seed: float | None
    """By the clock, for one more seed of every cell; None where nothing is left to train."""

    def seconds(self, seeds: int) -> float | None:
        """Return the time that so many seeds of every cell take; None where that is not known."""
        if self.seconds_per_seed is None or seeds > CAP:
            return None
        return self.seconds_per_seed * seeds

    def to_data(self) -> dict[str, Any]:
        """Return the numbers as `--json` prints them; null for more seeds than `cap`."""
        data: dict[str, Any] = {
            "sweep": self.sweep,
            "metric": self.metric,
            "difference": self.difference,
            "sd": self.sd,
            "rule": "planned" if self.rule.planned else "anytime",
            "alpha": self.rule.alpha,
            "margin": self.rule.margin,
            "contrasts": self.contrasts,
            "cells": self.cells,
            "cap": CAP,
            "seconds_per_seed": self.seconds_per_seed,
        }
        for name, needed in (("one", self.one), ("all", self.all)):
            data[name] = [
                {
                    "share": share,
                    "seeds": seeds if seeds <= CAP else None,
                    "seconds": self.seconds(seeds),
                }
                for share, seeds in zip(QUANTILES, needed.counts, strict=True)
            ]
        return data


def plan_power(
    plan: Plan,
    difference: float,
    sd: float,
    *,
    planned: bool = False,
    estimate: Callable[[], Cost | None] = lambda: None,
) -> PlanPower:
    """Simulate how many seeds the plan's question takes, by the very rule that will decide it.

    Differences between paired seeds are drawn as normal, the same ones for every contrast but
    independent of each other; the correction over the family is that of the verdicts.

    Args:
        plan: a grid, with its question if it has one.
        difference: the true difference of each contrast, in the metric's printed unit (points);
            of the mean or the slope where the question decides by these.
        sd: of that difference from seed to seed.
        planned: by the paired t test at a number of seeds fixed beforehand.
        estimate: measures what the plan will take; called once the numbers make sense.

    Raises:
        ConfigError: a number makes no sense.
        SweepError: the plan has nothing to decide.
    """
    if not math.isfinite(difference):
        raise ConfigError(f"difference={difference} is not a number; try 0.2 (points)")
    if not (math.isfinite(sd) and sd > 0):
        raise ConfigError(f"sd={sd} is not above 0; try 0.3 (points, from seed to seed)")
    contrasts = count_contrasts(plan)
    if not contrasts:
        raise SweepError(
            f"{plan.spec.path} has no two arms to decide between; sweep norm in a grid"
        )
    question = plan.spec.question or Question()
    if difference == 0 and question.margin is None:
        raise ConfigError(
            "difference=0 is never decided without a margin, for nothing is called equal; write "
            f"`margin: 0.2` into the question of {plan.spec.path}"
        )
    dataset = DATASETS.get(plan.runs[0].dataset)
    rule = PowerRule(
        alpha=question.alpha,
        margin=question.margin,
        floor=least_spread(question.metric, dataset.counts.test if dataset else None),
        first_look=question.first_look,
        planned=planned,
    )
    cost = estimate()
    needed = seeds_to_decide(difference, sd, rule, contrasts=contrasts)
    return PlanPower(
        sweep=plan.spec.name,
        metric=question.metric,
        difference=difference,
        sd=sd,
        rule=rule,
        contrasts=contrasts,
        cells=plan.num_cells,
        one=needed["one"],
        all=needed["all"],
        seconds_per_seed=None if cost is None else cost.mean * plan.num_cells / cost.workers,
    )

"""A plan as data: what it will run, what it leaves out and why, what it will cost and can show."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.compare.anytime import fewest_pairs
from groupnorm_bench.compare.question import Question
from groupnorm_bench.compare.stats import smallest_p
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS
from groupnorm_bench.sweep.plan.plan import Plan, draw_share
from groupnorm_bench.sweep.plan.space import choose_cell
from groupnorm_bench.wording import count

LISTED_RUNS = 2_000
"""Runs that the JSON lists; a plan may have millions."""
_SAMPLE = 1_000
"""Runs of which a longer plan's time is estimated."""
_COUNTED_CELLS = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a plan will take. Seconds."""

    total: float
    """By the clock, with `workers` at work."""
    mean: float
    """Of one run."""
    workers: int
    run: Mapping[int, float]
    """Of one run, mean by batch size."""


def sample_todo(plan: Plan) -> list[TrainConfig]:
    """Return the runs to do; of a long plan evenly spaced ones, of a search random draws."""
    if plan.spec.method == "bayes":
        return _draws(plan, min(plan.num_todo, 50))
    stride = -(-plan.num_todo // _SAMPLE) or 1
    if stride == 1:
        return list(plan.todo())
    skipped = {**plan.settled, **plan.failed}
    spaced = (plan.runs[i] for i in range(0, plan.num_runs, stride))
    return [config for config in spaced if config.name not in skipped]


def _draws(plan: Plan, count: int) -> list[TrainConfig]:
    draw = random.Random(plan.search_seed)
    configs: list[TrainConfig] = []
    for _ in range(20 * count):
        if len(configs) == count:
            break
        try:
            configs.append(choose_cell(plan.spec.axes, plan.base, lambda axis: draw_share(draw)))
        except ConfigError:  # the search would draw again, too
            continue
    return configs


def cost_of(
    plan: Plan, sample: Sequence[TrainConfig], seconds: Sequence[float], workers: int
) -> Cost:
    """Return what the plan will cost, from the seconds that each run of `sample_todo` will take."""
    by_size: dict[int, list[float]] = defaultdict(list)
    for config, spent in zip(sample, seconds, strict=True):
        by_size[config.batch_size].append(spent)
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    longest = max(seconds, default=0.0)
    return Cost(
        total=max(mean * plan.num_todo / workers, longest),
        mean=mean,
        workers=workers,
        run={size: sum(spent) / len(spent) for size, spent in sorted(by_size.items())},
    )


def together(first: Cost, then: Cost | None) -> Cost:
    """Return what two plans cost, one after the other."""
    if then is None:
        return first
    return dataclasses.replace(then, total=first.total + then.total, run={**first.run, **then.run})


def count_contrasts(plan: Plan) -> int | None:
    """Return how many contrasts the plan asks for: each arm against one, at each setting.

    Of its question only the arms that it names, and one contrast an arm where it decides over the
    settings. None for a search, whose cells are not known, and for plans of over 5,000 cells.
    """
    if plan.spec.method == "bayes" or plan.num_cells > _COUNTED_CELLS:
        return None
    question = plan.spec.question or Question()
    cells = [plan.runs[i] for i in range(plan.num_cells)]
    arms_of = [question.arm_of(config) for config in cells]
    named = {arm for arm in arms_of if arm in (question.arms or ())}
    if question.arms is None:
        tuned = tuple(question.tune.settings) if question.tune else ()
        settings = {_setting(config, (*tuned, *question.arm), question.arm) for config in cells}
        contrasts = len(cells) - len(settings)
        arms = len(set(arms_of)) - 1
    else:
        contrasts, arms = sum(arm in named for arm in arms_of), len(named)
    return contrasts if question.decide == "each" else arms


def _setting(
    config: TrainConfig, apart: tuple[str, ...], arm: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    """Return what must agree for two arms to be compared, without what is set `apart`."""
    left_out = (*(ARM_SETTINGS if not arm or "norm" in arm else ()), *apart)
    return tuple((name, v) for name, v in config.cell_settings.items() if name not in left_out)


def seeds_needed(plan: Plan) -> int | None:
    """Return the fewest seeds with which a contrast of the plan can be decided.

    None where the plan has no contrast to decide.
    """
    contrasts = count_contrasts(plan)
    if not contrasts:
        return None
    question = plan.spec.question or Question()
    return fewest_pairs(question.alpha / contrasts, question.first_look)


def warnings(plan: Plan) -> list[str]:
    """Return what the plan cannot show, a line each."""
    needed = seeds_needed(plan)
    if needed is None or plan.complete_seeds >= needed:
        return []
    return [
        f"{count(plan.complete_seeds, 'seed')} can decide none of "
        f"{count(count_contrasts(plan) or 0, 'contrast')}: where differences are plain it takes "
        f"--seeds {needed}, where they are small many more"
    ]


def plan_to_json(
    plan: Plan, cost: Cost | None = None, tuning: tuple[Plan, bool] | None = None
) -> dict[str, Any]:
    """Return the plan as data: counts, reasons, and its runs, at most `LISTED_RUNS` of them.

    Args:
        plan: the sweep.
        cost: its own and its tuning's.
        tuning: the plan of the runs that tune it, and whether they are done: until then which
            runs the sweep has is not known, and none is listed.
    """
    contrasts = count_contrasts(plan)
    listed = min(len(plan.runs), LISTED_RUNS if tuning is None or tuning[1] else 0)
    return {
        "sweep": plan.spec.name,
        "method": plan.spec.method,
        "grid_points": plan.grid_points,
        "cells": plan.num_cells,
        "runs": plan.num_runs,
        "reused": plan.num_reused,
        "failed": plan.num_failed,
        "todo": plan.num_todo,
        "seeds": list(plan.seeds),
        "search_seed": plan.search_seed,
        "duplicates": [
            {"reason": reason, "points": points} for reason, points in plan.duplicates.items()
        ],
        "contrasts": contrasts,
        "smallest_p": smallest_p(plan.complete_seeds),
        "seeds_needed": seeds_needed(plan),
        "estimated_seconds": None if cost is None else cost.total,
        "workers": None if cost is None else cost.workers,
        "seconds_per_run": None if cost is None else dict(cost.run),
        **({} if tuning is None else {"tuning": _tuning_to_json(tuning[0])}),
        "notes": [*plan.notes, *warnings(plan)],
        "plan": [_run_to_json(plan, config) for config in itertools.islice(plan.runs, listed)],
        "plan_left_out": len(plan.runs) - listed,
    }


def _tuning_to_json(tuning: Plan) -> dict[str, Any]:
    return {
        "sweep": tuning.spec.name,
        "cells": tuning.num_cells,
        "seeds": list(tuning.seeds),
        "runs": tuning.num_runs,
        "reused": tuning.num_reused,
        "failed": tuning.num_failed,
        "todo": tuning.num_todo,
    }


def _run_to_json(plan: Plan, config: TrainConfig) -> dict[str, Any]:
    name = config.name
    state = "reused" if name in plan.settled else "failed" if name in plan.failed else "todo"
    return {
        "run": name,
        "arm": config.arm,
        "cell": config.cell,
        "seed": config.seed,
        "state": state,
        "settings": config.cell_settings,
    }


def headline(plan: Plan) -> str:
    """Return the line that a sweep begins with."""
    failed = f", {plan.num_failed:,} failed before (--retry-failed)" if plan.num_failed else ""
    cells, seeds = count(plan.num_cells, "cell"), count(len(plan.seeds), "seed")
    return (
        f"{plan.spec.name}: {cells} x {seeds} = {count(plan.num_runs, 'run')}: "
        f"{plan.num_reused:,} reused{failed}, {plan.num_todo:,} to do"
    )

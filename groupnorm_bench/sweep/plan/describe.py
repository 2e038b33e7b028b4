"""A plan in words and as data: what it will run, what it leaves out and why, what it can show."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from groupnorm_bench.compare.stats import EXACT_PAIRS, smallest_p
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.plan.plan import Plan, draw_share
from groupnorm_bench.sweep.plan.space import choose_cell

ALPHA = 0.05
LISTED_RUNS = 2_000
"""Runs that the JSON lists; a plan may have millions."""
_LISTED_CELLS = 40
_LISTED_SIZES = 6
_SAMPLE = 1_000
"""Runs of which a longer plan's time is estimated."""
_COUNTED_CELLS = 5_000
_ARM = ("norm", "num_groups", "group_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a plan will take. Seconds."""

    total: float
    """By the clock, with `workers` at work."""
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


def estimate_of(
    plan: Plan, sample: Sequence[TrainConfig], seconds: Sequence[float], workers: int
) -> Estimate:
    """Return the plan's estimate from the seconds that each run of `sample_todo` will take."""
    by_size: dict[int, list[float]] = defaultdict(list)
    for config, spent in zip(sample, seconds, strict=True):
        by_size[config.batch_size].append(spent)
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    longest = max(seconds, default=0.0)
    return Estimate(
        total=max(mean * plan.num_todo / workers, longest),
        workers=workers,
        run={size: sum(spent) / len(spent) for size, spent in sorted(by_size.items())},
    )


def count_contrasts(plan: Plan) -> int | None:
    """Return how many contrasts the plan's cells make: each arm against one, at each setting.

    None for a search, whose cells are not known, and for plans of over 5,000 cells.
    """
    if plan.spec.method == "bayes" or plan.num_cells > _COUNTED_CELLS:
        return None
    settings = {_setting(plan.runs[i]) for i in range(plan.num_cells)}
    return plan.num_cells - len(settings)


def _setting(config: TrainConfig) -> tuple[tuple[str, Any], ...]:
    live = config.cell_settings
    return tuple((name, value) for name, value in live.items() if name not in _ARM)


def seeds_needed(num_contrasts: int) -> int | None:
    """Return the fewest seeds with which one of so many contrasts can reach 0.05 after Holm.

    None where even the most seeds with an exact test cannot: above them p is sampled.
    """
    enough = (n for n in range(2, EXACT_PAIRS + 1) if smallest_p(n) * num_contrasts <= ALPHA)
    return next(enough, None)


def warnings(plan: Plan) -> list[str]:
    """Return what the plan cannot show, a line each."""
    contrasts = count_contrasts(plan)
    if not contrasts:
        return []
    seeds, needed = len(plan.seeds), seeds_needed(contrasts)
    reach = min(1.0, smallest_p(seeds) * contrasts)
    if reach <= ALPHA:
        return []
    remedy = f"--seeds {needed}" if needed else "fewer contrasts"
    return [
        f"{_count(seeds, 'seed')} cannot make any of {_count(contrasts, 'contrast')} significant: "
        f"the smallest p-value is {smallest_p(seeds):.2g}, {reach:.2g} after Holm's correction; "
        f"{remedy} could reach {ALPHA}"
    ]


def plan_to_json(plan: Plan, estimate: Estimate | None = None) -> dict[str, Any]:
    """Return the plan as data: counts, reasons, and its runs, at most `LISTED_RUNS` of them."""
    contrasts = count_contrasts(plan)
    listed = min(len(plan.runs), LISTED_RUNS)
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
        "smallest_p": smallest_p(len(plan.seeds)),
        "seeds_needed": seeds_needed(contrasts) if contrasts else None,
        "estimated_seconds": None if estimate is None else estimate.total,
        "workers": None if estimate is None else estimate.workers,
        "seconds_per_run": None if estimate is None else dict(estimate.run),
        "notes": [*plan.notes, *warnings(plan)],
        "plan": [_run_to_json(plan, config) for config in itertools.islice(plan.runs, listed)],
        "plan_left_out": len(plan.runs) - listed,
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


def describe_plan(plan: Plan, estimate: Estimate | None = None) -> RenderableType:
    """Return the plan for a person: its cells as a table, then a line on each thing to know."""
    parts: list[RenderableType] = []
    if len(plan.runs):
        parts.append(_cell_table(plan))
    parts.extend(Text(line) for line in _lines(plan, estimate))
    parts.extend(Text(f"note: {note}", style="yellow") for note in (*plan.notes, *warnings(plan)))
    return Group(*parts)


def _cell_table(plan: Plan) -> Table:
    shown = [plan.runs[i] for i in range(min(plan.num_cells, _LISTED_CELLS))]
    varied = _varied(shown)
    table = Table("arm", *varied, "to do", "done", title=f"{plan.spec.name}: {_title(plan)}")
    done, failed = Counter(plan.settled.values()), Counter(plan.failed.values())
    for position, config in enumerate(shown):
        live = config.cell_settings
        repeats = -(-(plan.num_runs - position) // plan.num_cells)  # a run_cap may cut some off
        todo = repeats - done[config.cell] - failed[config.cell]
        values = [_value(live.get(name)) for name in varied]
        table.add_row(config.arm, *values, str(todo), str(done[config.cell] or ""))
    if plan.num_cells > len(shown):
        table.add_row(f"and {plan.num_cells - len(shown):,} more", *[""] * (len(varied) + 2))
    return table


def _varied(configs: Sequence[TrainConfig]) -> list[str]:
    seen: dict[str, set[Any]] = defaultdict(set)
    for config in configs:
        for name, value in config.cell_settings.items():
            seen[name].add(value)
    varied = [name for name, values in seen.items() if len(values) > 1 and name not in _ARM]
    return varied or ["batch_size"]


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(plan: Plan) -> str:
    cells, seeds = _count(plan.num_cells, "cell"), _count(len(plan.seeds), "seed")
    return f"{cells} x {seeds} = {_count(plan.num_runs, 'run')}"


def _lines(plan: Plan, estimate: Estimate | None) -> Iterator[str]:
    if not len(plan.runs):
        yield f"{plan.spec.name}: {_title(plan)}"
    if plan.grid_points is not None:
        yield f"{_count(plan.grid_points, 'grid point')} in {plan.spec.path}"
    for reason, points in plan.duplicates.items():
        yield f"  {points:,} fewer: {reason}"
    yield f"seeds {_seeds(plan.seeds)}" + (
        "" if plan.spec.method == "grid" else f", search seed {plan.search_seed}"
    )
    failed = f", {plan.num_failed:,} failed before (--retry-failed)" if plan.num_failed else ""
    yield f"{plan.num_todo:,} to do, {plan.num_reused:,} reused{failed}"
    if estimate is not None and plan.num_todo:
        workers = _count(estimate.workers, "worker")
        yield f"about {duration(estimate.total)} with {workers}; a run takes {_each(estimate)}"
    seeds = _count(len(plan.seeds), "seed")
    yield f"smallest p-value that {seeds} can give: {smallest_p(len(plan.seeds)):.2g}"


def _each(estimate: Estimate) -> str:
    sizes = list(estimate.run)
    if len(sizes) > _LISTED_SIZES:
        sizes = [sizes[0], sizes[-1]]
    return ", ".join(f"{duration(estimate.run[n])} at batch size {n}" for n in sizes)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 8:
        return f"{seeds[0]}, {seeds[1]}, ... {seeds[-1]}"
    return ", ".join(map(str, seeds))


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: 40 s, 12 min, 3.5 h.

    >>> [duration(s) for s in (3.2, 75, 9000)]
    ['3.2 s', '75 s', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

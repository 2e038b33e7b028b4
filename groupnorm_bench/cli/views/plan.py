"""A plan for a person: its cells as a table, then a line on each thing to know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS
from groupnorm_bench.sweep.plan.describe import Cost, count_contrasts, seeds_needed, warnings
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.wording import count, duration, setting_value

_LISTED_CELLS = 40
_LISTED_SIZES = 6


def draw_plan(plan: Plan, cost: Cost | None = None, first: Sequence[str] = ()) -> RenderableType:
    """Return the plan for a person: its cells as a table, then a line on each thing to know.

    Args:
        plan: the sweep.
        cost: what it takes.
        first: lines on what goes before it.
    """
    parts: list[RenderableType] = []
    if len(plan.runs):
        parts.append(_cell_table(plan))
    parts.extend(Text(line) for line in (*first, *_lines(plan, cost)))
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
        values = [setting_value(live.get(name)) for name in varied]
        table.add_row(config.arm, *values, str(todo), str(done[config.cell] or ""))
    if plan.num_cells > len(shown):
        table.add_row(f"and {plan.num_cells - len(shown):,} more", *[""] * (len(varied) + 2))
    return table


def _varied(configs: Sequence[TrainConfig]) -> list[str]:
    seen: dict[str, set[Any]] = defaultdict(set)
    for config in configs:
        for name, value in config.cell_settings.items():
            seen[name].add(value)
    varied = [name for name, values in seen.items() if len(values) > 1 and name not in ARM_SETTINGS]
    return varied or ["batch_size"]


def _title(plan: Plan) -> str:
    cells, seeds = count(plan.num_cells, "cell"), count(len(plan.seeds), "seed")
    return f"{cells} x {seeds} = {count(plan.num_runs, 'run')}"


def _lines(plan: Plan, cost: Cost | None) -> Iterator[str]:
    if not len(plan.runs):
        yield f"{plan.spec.name}: {_title(plan)}"
    if plan.grid_points is not None:
        yield f"{count(plan.grid_points, 'grid point')} in {plan.spec.path}"
    for reason, points in plan.duplicates.items():
        yield f"  {points:,} fewer: {reason}"
    yield f"seeds {_seeds(plan.seeds)}" + (
        "" if plan.spec.method == "grid" else f", search seed {plan.search_seed}"
    )
    failed = f", {plan.num_failed:,} failed before (--retry-failed)" if plan.num_failed else ""
    yield f"{plan.num_todo:,} to do, {plan.num_reused:,} reused{failed}"
    if cost is not None and plan.num_todo:
        workers = count(cost.workers, "worker")
        yield f"about {duration(cost.total)} with {workers}; a run takes {_each(cost)}"
    needed = seeds_needed(plan)
    if needed is not None:
        contrasts = count(count_contrasts(plan) or 0, "contrast")
        yield f"{contrasts} to decide, with {count(needed, 'seed')} at the least"


def _each(cost: Cost) -> str:
    sizes = list(cost.run)
    if len(sizes) > _LISTED_SIZES:
        sizes = [sizes[0], sizes[-1]]
    return ", ".join(f"{duration(cost.run[n])} at batch size {n}" for n in sizes)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 8:
        return f"{seeds[0]}, {seeds[1]}, ... {seeds[-1]}"
    return ", ".join(map(str, seeds))

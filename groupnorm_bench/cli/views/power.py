"""Seeds to a decision for a person: a small table, the time, and the command that spends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from groupnorm_bench.compare.power import CAP, QUANTILES, SeedsNeeded
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.sweep.plan.power import PlanPower
from groupnorm_bench.wording import count, duration


def draw_power(power: PlanPower, file: str) -> RenderableType:
    """Return what `gnbench power` found, and what to type next."""
    spec = metric_spec(power.metric)
    unit = f" {spec.unit}" if spec.unit else ""
    how = "planned, one look" if power.rule.planned else "looked at after every seed"
    lines = [
        f"{power.sweep}: {count(power.contrasts, 'contrast')} in {power.metric}, {how}",
        f"were each difference {power.difference:+g}{unit}, with sd {power.sd:g} from one paired "
        "seed to the next:",
    ]
    return Group(*map(Text, lines), _table(power), *map(Text, _after(power, file)))


def _table(power: PlanPower) -> Table:
    table = Table("seeds until decided")
    for share in QUANTILES:
        table.add_column(f"{share:.0%} of the time", justify="right")
    table.add_row("one contrast, named before", *_cells(power.one))
    if power.contrasts > 1:
        table.add_row(f"all {power.contrasts}", *_cells(power.all))
    times = [power.seconds(seeds) for seeds in power.all.counts]
    if any(times):
        table.add_row("time for all, at most", *("" if t is None else duration(t) for t in times))
    return table


def _cells(needed: SeedsNeeded) -> list[str]:
    return [str(seeds) if seeds <= CAP else f"over {CAP:,}" for seeds in needed.counts]


def _after(power: PlanPower, file: str) -> Iterator[str]:
    if power.seconds_per_seed is not None:
        yield f"one seed is {count(power.cells, 'run')}, about {duration(power.seconds_per_seed)}"
    likely = power.all.high
    typed = shlex.quote(file)
    if likely > CAP:
        yield "too many; ask for a larger difference, fewer contrasts, or longer training"
    elif power.rule.planned:
        yield f"next: gnbench sweep {typed} --seeds {likely}, then gnbench compare --planned"
    else:
        yield f"next: gnbench sweep {typed} --until-decided --max-seeds {likely}"

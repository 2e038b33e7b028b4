"""What a person sees of the state of run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from groupnorm_bench.metrics import METRICS
from groupnorm_bench.sweep.status import RunsStatus, RunState
from groupnorm_bench.wording import count, printable

_SHOWN = 10


def draw_status(status: RunsStatus, *, all_runs: bool = False) -> RenderableType:
    """Return the counts, the runs at work, and those that went wrong; or a line for each run."""
    parts: list[RenderableType] = [Text(counts_in_words(status), style="bold")]
    if all_runs:
        parts += [Text(), _run_table(status.runs)] if status.runs else []
        parts += [Text(problem, style="yellow") for problem in status.problems]
        return Group(*parts)
    for name, question in status.questions.items():
        parts.append(Text(f"the question of {printable(name)}: {printable(json.dumps(question))}"))
    running = status.in_state("running")
    if running:
        parts += [Text(), _running_table(running)]
    for run in status.in_state("failed", "diverged")[:_SHOWN]:
        error = result.summary.get("error") if (result := run.read()) is not None else None
        parts.append(Text(f"{run.state}: {run.name}: {error or 'no reason given'}"))
    left_out = len(status.in_state("failed", "diverged")) - _SHOWN
    if left_out > 0:
        parts.append(Text(f"... and {left_out} more", style="dim"))
    parts += [Text(problem, style="yellow") for problem in status.problems]
    return Group(*parts)


def _run_table(runs: Sequence[RunState]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    for head in ("epoch", "val/accuracy"):
        table.add_column(head, justify="right", no_wrap=True)
    for run in runs:
        accuracy = METRICS["val/accuracy"].shown(run.accuracy) or "-"
        table.add_row(run.name, run.state, str(run.epoch), accuracy)
    return table


def counts_in_words(status: RunsStatus) -> str:
    """Return the one line that tells all: 72 runs: 70 finished, 2 running."""
    counts = ", ".join(f"{number:,} {state}" for state, number in status.counts.items())
    return count(len(status.runs), "run") + (f": {counts}" if counts else "")


def _running_table(runs: list[RunState]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("running", no_wrap=True)
    table.add_column("epoch", justify="right")
    table.add_column("val/accuracy", justify="right")
    for run in runs:
        config = None if run.result is None else run.result.config
        epochs = "" if config is None or config.max_steps is not None else f"/{config.epochs}"
        accuracy = METRICS["val/accuracy"].shown(run.accuracy) or "-"
        table.add_row(run.name, f"{run.epoch}{epochs}", accuracy)
    return table

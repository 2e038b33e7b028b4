"""`groupnorm_bench.compare(...)`: from where runs lie to verdicts, as `gnbench compare` does it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from groupnorm_bench.compare.choice import choose as choose_cells
from groupnorm_bench.compare.contrast import Comparison
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs

Runs = RunTable | str | Path | Sequence[str | Path]
"""Runs at hand, or where they lie: folders, or `ENTITY/PROJECT[/SWEEP]` on W&B."""


def compare(
    runs: Runs = "runs",
    *,
    baseline: str | None = None,
    metric: str = "test/accuracy",
    where: str | None = None,
    choose: Iterable[str] = (),
    alpha: float = 0.05,
    margin: float | None = None,
) -> Comparison:
    """Return which arm is better, by how much, and whether the difference is real.

    Args:
        runs: where they lie, or what `load_runs` returned.
        baseline: the arm that the others are held against; `batch` where there is one.
        metric: a summary metric.
        where: only the runs that this holds for, as `batch_size<=32 and norm!=none`.
        choose: settings to choose per arm on validation, as `["lr"]`.
        alpha: share of false verdicts allowed over the family.
        margin: differences inside it are equal, in the printed unit (points for accuracies).

    Raises:
        CompareError: there is nothing to compare, or an argument is not valid.
        RunFolderError, TrackingError: a source cannot be read.
    """
    table = chosen_runs(runs, where, choose)
    return compare_runs(table, baseline=baseline, metric=metric, alpha=alpha, margin=margin)


def chosen_runs(runs: Runs, where: str | None = None, choose: Iterable[str] = ()) -> RunTable:
    """Return the runs asked for, of chosen settings only the cells that validate best.

    Raises:
        CompareError: a filter or a setting to choose makes no sense, or nothing is left.
        RunFolderError, TrackingError: a source cannot be read.
    """
    if isinstance(runs, RunTable):
        table = runs if where is None else runs.where(where)
    else:
        table = load_runs([runs] if isinstance(runs, str | Path) else runs, where)
    names = tuple(choose)
    return choose_cells(table, names) if names else table

"""Choosing on validation: the best groups or lr per arm, so that test only reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from groupnorm_bench.compare.question import Tune
from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.settings.fields import ARM_SETTINGS, SETTINGS

_FLATTERS = (
    "chosen on the seeds that are reported, which flatters whoever had more to choose from: an arm "
    "with four values to try that is not better is called so in 8 % of cases by the planned t "
    "(2.5 would be right), in 2 % by the anytime rule (0.7); choose on others (--choose-seeds, or "
    "tune: in the sweep's question)"
)
_NOT_CHOSEN = ("norm", "seed", "device", "dataset")


def choose(
    table: RunTable,
    names: Iterable[str],
    metric: str = "val/accuracy",
    seeds: Collection[int] = (),
) -> RunTable:
    """Return only the cells that did best on validation, among the values of some settings.

    For each norm (each arm, unless its groups are to be chosen) and each setting of the rest, the
    values of `names` with the highest mean are kept, over the seeds that all candidates finished.
    A candidate with a diverged run loses to those without. The kept rows' settings leave `names`
    out, so that arms compare each at its own best.

    Args:
        table: the runs.
        names: settings to choose, as `lr` or `num_groups`.
        metric: the validation metric; larger is better.
        seeds: those to choose by, which are then not reported. Without them the choice is made on
            the seeds that are reported, which flatters whoever had more to choose from.

    Raises:
        CompareError: a name is no setting that can be chosen, or candidates share no seed.
    """
    if table.metric is not None:
        raise CompareError(
            "settings are chosen by scores on validation, which a table does not tell; leave "
            "--choose out, and name the runs to compare by --where"
        )
    names = tuple(dict.fromkeys(names))
    choosable = [name for name in SETTINGS if name not in _NOT_CHOSEN]
    for name in names:
        if name not in choosable:
            raise CompareError(f"choose={name!r} cannot be chosen{nearest(name, choosable)}")
    marked = [row.seen_as(chosen=names) for row in table.rows]
    tuning = [row for row in marked if not seeds or row.seed in seeds]
    if not tuning:
        numbers = ", ".join(map(str, seeds))
        raise CompareError(f"seeds={numbers} to choose by have no run; train them")
    groups: dict[str, dict[str, list[RunRow]]] = {}
    for row in tuning:
        group = groups.setdefault(_rest(row, names), {})
        group.setdefault(json.dumps([row.value(name) for name in names]), []).append(row)
    best = []
    for group in groups.values():
        candidates = list(group.values())
        best.append(candidates[choose_candidate(candidates, metric)])
    if seeds:
        cells = {(row.cell, row.code) for rows in best for row in rows}
        kept = [row for row in marked if row.seed not in seeds and (row.cell, row.code) in cells]
        return dataclasses.replace(table, rows=tuple(kept))
    kept = [row for rows in best for row in rows]
    is_choice = any(len(group) > 1 for group in groups.values())
    return dataclasses.replace(
        table,
        rows=tuple(kept),
        problems=(*table.problems, *([_FLATTERS] if is_choice else [])),
        chosen_on_reported=is_choice,
    )


def as_tuned(row: RunRow, tune: Tune) -> RunRow:
    """Return the row of an arm at its own best values: they do not make its setting."""
    names = tuple(tune.settings)
    return row.seen_as(chosen=names, called=tune.arm_of(row.config))


def _rest(row: RunRow, names: Sequence[str]) -> str:
    """Return the key of the rows among which the choice is made."""
    arm = {n: v for n, v in row.config.cell_settings.items() if n in ARM_SETTINGS}
    rest: dict[str, Any] = {n: v for n, v in (arm | row.setting).items() if n not in names}
    return json.dumps([rest, row.code], sort_keys=True)


def choose_candidate(candidates: Sequence[Sequence[RunRow]], metric: str) -> int:
    """Return which of some candidates, each a list of its runs, has the highest mean.

    Over the seeds that all of them finished; one with a diverged run loses to those without. The
    first wins a tie, and where none has finished a run.

    Raises:
        CompareError: they share no seed, or none tells the metric.
    """
    if len(candidates) == 1:
        return 0
    scores: list[dict[int, float]] = []
    for rows in candidates:
        finished = {row.seed: row.metric(metric) for row in rows if row.status == "finished"}
        scores.append({seed: value for seed, value in finished.items() if value is not None})
    steady = [not any(row.status == "diverged" for row in rows) for rows in candidates]
    running = [i for i, score in enumerate(scores) if score]
    running = [i for i in running if steady[i]] or running
    if not running:
        if any(row.status == "finished" for rows in candidates for row in rows):
            raise CompareError(
                f"no run of {candidates[0][0].arm} tells {metric}, by which settings are chosen; "
                "return it, or leave --choose out"
            )
        return 0
    seeds = set.intersection(*(set(scores[i]) for i in running))
    if not seeds:
        raise CompareError(
            f"no seed was finished by every candidate of {candidates[0][0].arm}, so none can be "
            "chosen; train the same seeds"
        )
    return max(running, key=lambda i: sum(scores[i][seed] for seed in seeds))

"""Tuning, fair and apart: each cell's best values of some settings, on seeds that are not reported.

Before a sweep's own runs, every cell is trained with each of the values that its arm may choose
from, an equal number for every arm, on the question's `tune: seeds`. What validates best is what
the arm is then run with. These runs are a sweep of their own, `NAME-tuning`, on any executor.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from groupnorm_bench.compare.choice import choose_candidate
from groupnorm_bench.compare.question import Tune
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.errors import CompareError, SweepError, nearest
from groupnorm_bench.runs import FoundRun, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.axes import on_base
from groupnorm_bench.sweep.file.question import question_path
from groupnorm_bench.sweep.plan.plan import Listed, Plan, Runs, with_found
from groupnorm_bench.wording import count, setting_value

TUNABLE = ("lr", "optimizer", "weight_decay", "schedule", "num_groups")
"""Settings that an arm may have its own best value of."""


def tuning_plan(plan: Plan, found: Iterable[FoundRun], *, retry_failed: bool = False) -> Plan:
    """Return the plan of the runs that tune another one: its cells by their candidates.

    Args:
        plan: a grid whose question has `tune`; its settings that are tuned stand for nothing yet.
        found: the run folders at hand.
        retry_failed: run again what failed before.

    Raises:
        SweepError: the sweep cannot be tuned so.
    """
    tune = tune_of(plan)
    _refuse(plan, tune)
    configs = [one for each in _candidates(plan, tune).values() for one in each]
    cells = Listed(configs)
    spec = dataclasses.replace(
        plan.spec,
        name=f"{plan.spec.name}-tuning",
        description=f"tunes {', '.join(tune.settings)} for {plan.spec.name}; never reported",
        seeds=tune.seeds,
        question=None,
        tunes=plan.spec.name,
    )
    runs = Runs(cells, tune.seeds, None)
    fresh = dataclasses.replace(
        plan,
        spec=spec,
        seeds=tune.seeds,
        grid_points=None,
        duplicates={},
        num_cells=cells.size,
        num_runs=len(runs),
        runs=runs,
        notes=(),
    )
    return with_found(fresh, found, retry_failed)


def tuned_plan(
    plan: Plan,
    tuning: Plan,
    found: Iterable[FoundRun],
    *,
    retry_failed: bool = False,
) -> tuple[Plan, list[str]]:
    """Return a plan with each cell at its best values, and a line for each on what they are.

    Args:
        plan: the grid as its file has it.
        tuning: what `tuning_plan` made of it; all its runs have a result.
        found: the run folders at hand.
        retry_failed: run again what failed before.

    Raises:
        SweepError: no candidate of some cell can be chosen.
    """
    tune = tune_of(plan)
    found = list(found)
    results: dict[str, list[RunResult]] = {}
    for run in found:
        if run.result.config.name in tuning.settled:
            results.setdefault(run.result.cell, []).append(run.result)
    chosen, lines = [], []
    for cell, candidates in _candidates(plan, tune).items():
        rows = [[RunRow(result=r) for r in results.get(one.cell, ())] for one in candidates]
        try:
            best = candidates[choose_candidate(rows, "val/accuracy")]
        except CompareError as error:
            raise SweepError(f"{cell.rpartition('-')[0]} cannot be tuned: {error}") from error
        chosen.append(best)
        told = [f"{name}={setting_value(getattr(best, name))}" for name in tune.settings_of(best)]
        lines.append(f"{tune.arm_of(best)} at batch_size={best.batch_size}: {', '.join(told)}")
    runs = Runs(Listed(chosen), plan.seeds, None)
    return with_found(dataclasses.replace(plan, runs=runs), found, retry_failed), lines


def tune_of(plan: Plan) -> Tune:
    """Return what a plan's question says of tuning.

    Raises:
        ValueError: it says nothing.
    """
    question = plan.spec.question
    if question is None or question.tune is None:
        raise ValueError("no tuning was asked for")
    return question.tune


def describe_tuning(plan: Plan, tuning: Plan) -> str:
    """Return a line on what it takes to tune a plan."""
    tune = tune_of(plan)
    each = tuning.num_cells // max(plan.num_cells, 1)
    seeds = ", ".join(map(str, tune.seeds))
    failed = f", {tuning.num_failed:,} failed before (--retry-failed)" if tuning.num_failed else ""
    return (
        f"tuning: {each} values of {', '.join(tune.settings)} for each cell, on seeds {seeds}, "
        f"which are never reported: {count(tuning.num_runs, 'run')}, {tuning.num_reused:,} "
        f"reused{failed}, {tuning.num_todo:,} to do"
    )


def _candidates(plan: Plan, tune: Tune) -> Mapping[str, Sequence[TrainConfig]]:
    """Return by the plan's cells what each may choose from, in the order of the question."""
    found = {}
    for place in range(plan.num_cells):
        config = plan.runs[place]
        values = tune.settings_of(config)
        found[config.cell] = [
            on_base(config, dict(zip(values, choice, strict=True)))
            for choice in itertools.product(*values.values())
        ]
    return found


def _refuse(plan: Plan, tune: Tune) -> None:
    spec = plan.spec
    where = question_path(spec.path)
    if spec.trial is not None:
        raise SweepError(
            f"{where}: tune chooses by val/accuracy, which {spec.trial} need not have; search for "
            "the values in a sweep of its own"
        )
    if spec.method != "grid" or spec.early_terminate is not None or spec.run_cap is not None:
        raise SweepError(
            f"{where}: tune needs method grid with neither early_terminate nor run_cap, so that "
            "every arm has as much to choose from; search for the values in a sweep of its own"
        )
    arms = list(dict.fromkeys(tune.arm_of(plan.runs[i]) for i in range(plan.num_cells)))
    for name, values in tune.settings.items():
        if name not in TUNABLE:
            raise SweepError(f"{where}: tune {name} cannot be tuned{nearest(name, TUNABLE)}")
        swept = next((axis for axis in spec.axes if name in axis.settings), None)
        if swept is not None and len(swept.distribution.values) > 1:
            raise SweepError(
                f"{where}: tune {name} is swept by {spec.path}; leave it out of one of the two"
            )
        for arm in values if isinstance(values, Mapping) else ():
            if arm not in arms:
                raise SweepError(
                    f"{where}: tune {name}: the sweep has no arm {arm!r}{nearest(arm, arms)}"
                )
    shared = sorted({*plan.seeds} & {*tune.seeds})
    if shared:
        raise SweepError(
            f"{where}: tune seeds={shared[0]} is a seed of the sweep's own runs; choose others, "
            "as [1000, 1001, 1002]"
        )
    sizes: dict[str, int] = {}
    for cell, each in _candidates(plan, tune).items():
        arm = tune.arm_of(each[0])
        distinct = len({one.cell for one in each})
        if distinct < len(each):
            raise SweepError(f"{where}: tune names a value twice for {cell.rpartition('-')[0]}")
        sizes[arm] = len(each)
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{arm} {size}" for arm, size in sizes.items())
        raise SweepError(
            f"{where}: tune gives arms unequal numbers of values to choose from ({told}), which "
            "favours the larger; list them by arm, as lr: {batch: [...], group: [...]}"
        )
    if set(sizes.values()) == {1}:
        raise SweepError(f"{where}: tune leaves every arm one value; list two or more")

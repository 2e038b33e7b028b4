"""`groupnorm_bench.compare(...)`: from where runs lie to verdicts, as `gnbench compare` does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.compare.choice import as_tuned
from groupnorm_bench.compare.choice import choose as choose_cells
from groupnorm_bench.compare.contrast import Comparison, Rule
from groupnorm_bench.compare.foreign import Columns
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.notebook import Verdicts
from groupnorm_bench.compare.question import Family, Question, Tune
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.errors import CompareError
from groupnorm_bench.runs import is_pack
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.tracking.sweeps import SweepRecord

RunSource = RunTable | str | Path | Sequence[str | Path]
"""Runs at hand, or where they lie: folders, or `ENTITY/PROJECT[/SWEEP]` on W&B."""


def compare(
    runs: RunSource = "runs",
    question: Question | None = None,
    *,
    where: str | None = None,
    choose: Iterable[str] = (),
    choose_seeds: Collection[int] = (),
    rule: Rule = "anytime",
    all_pairs: bool = False,
    columns: Columns | None = None,
    **asked: Any,
) -> Verdicts:
    """Return which arm is better, by how much, and whether the difference is real.

    A notebook shows the table, a console the same as text; `.contrasts` are the values,
    `.to_pandas()` has them as a table, `.plot()` draws them.

    Args:
        runs: where they lie, or what `load_runs` returned.
        question: what is asked; that of the sweep whose runs these are if None.
        where: only the runs that this holds for, as `batch_size<=32 and norm!=none`.
        choose: settings to choose per arm on validation, as `["lr"]`.
        choose_seeds: seeds to choose by, which are then not reported.
        rule: `anytime`, or `planned` for a number of seeds fixed beforehand.
        all_pairs: every arm against every other.
        columns: of a table of results, which column is what; of runs, which settings make the arm.
        asked: fields of `Question` in place of the question's, as `baseline` and `margin`.

    Raises:
        CompareError: there is nothing to compare, or an argument is not valid.
        RunFolderError, TrackingError: a source cannot be read.
    """
    columns = dataclasses.replace(columns or Columns(), metric=asked.get("metric"))
    table = chosen_runs(runs, where, choose, choose_seeds, columns)
    comparison = compare_table(table, runs, question, rule=rule, all_pairs=all_pairs, **asked)
    return Verdicts.of(comparison, table)


def compare_table(
    table: RunTable,
    runs: RunSource,
    question: Question | None = None,
    *,
    rule: Rule = "anytime",
    all_pairs: bool = False,
    details: bool = True,
    aggregates: bool = True,
    **asked: Any,
) -> Comparison:
    """Return the comparison of a table, as `compare` does, that was read from `runs`.

    `details` and `aggregates`: see `compare_runs`.
    """
    if question is None and table.metric is not None:
        question = Question(metric=table.metric)
    question, families = (question, ()) if question else asked_of(runs)
    armed = next((row.armed for row in table.rows if row.armed), ())
    if table.metric is None and question.arm != armed and (armed or not isinstance(runs, RunTable)):
        question, families = Question(metric=question.metric, goal=question.goal), ()
    asked = {name: value for name, value in asked.items() if value is not None}
    if "baseline" in asked and question.arms:
        question = question.replace(arms=tuple(a for a in question.arms if a != asked["baseline"]))
    how: dict[str, Any] = {"rule": rule, "all_pairs": all_pairs}
    how |= {"details": details, "aggregates": aggregates}
    return compare_runs(table, question, families=families, **how, **asked)


def asked_of(runs: RunSource) -> tuple[Question, tuple[Family, ...]]:
    """Return what the sweeps asked whose runs lie in folders: one question, and their families.

    Where they ask different questions, none of them is put.
    """
    records = [record for record in _records(runs) if not record.tunes]
    asked = [record.question for record in records if record.question]
    families = tuple(
        Family(
            name=record.name,
            runs=frozenset(record.runs),
            contrasts=record.contrasts,
            file=record.file,
        )
        for record in records
    )
    same = len(asked) == 1 or (asked and all(one == asked[0] for one in asked))
    return Question.from_mapping(asked[0]) if same else Question(), families


def _records(runs: RunSource) -> list[SweepRecord]:
    """Return what sweeps wrote down in the folders or packs; of runs at hand, nothing is known."""
    if isinstance(runs, RunTable):
        return []
    from groupnorm_bench.tracking.sweeps import find_records

    places = [Path(place) for place in ([runs] if isinstance(runs, str | Path) else runs)]
    kept = (place for place in places if place.is_dir() or is_pack(place))
    return [record for _, record in find_records(kept)[0]]


def _reported(table: RunTable, records: Sequence[SweepRecord]) -> RunTable:
    """Return the runs without those that tuned a sweep; its own ones as what it tuned them to.

    Raises:
        CompareError: nothing is left.
    """
    tuning = {name for record in records if record.tunes for name in record.runs}
    tunes = {
        name: Tune.from_mapping(record.question["tune"])
        for record in records
        if not record.tunes and record.question.get("tune")
        for name in record.runs
    }
    if not tuning and not tunes:
        return table
    rows = tuple(
        as_tuned(row, tunes[row.name]) if row.name in tunes else row
        for row in table.rows
        if row.name not in tuning
    )
    left_out = len(table.rows) - len(rows)
    if not rows:
        raise CompareError(
            f"all of {count(left_out, 'run')} tuned a sweep, and are never reported; go on"
        )
    told = [f"{count(left_out, 'run')} that tuned a sweep not reported"] if left_out else []
    return dataclasses.replace(table, rows=rows, problems=(*table.problems, *told))


def chosen_runs(
    runs: RunSource,
    where: str | None = None,
    choose: Iterable[str] = (),
    choose_seeds: Collection[int] = (),
    columns: Columns | None = None,
) -> RunTable:
    """Return the runs asked for, of chosen settings only the cells that validate best.

    Raises:
        CompareError: a filter or a setting to choose makes no sense, or nothing is left.
        RunFolderError, TrackingError: a source cannot be read.
    """
    if isinstance(runs, RunTable):
        table = runs if where is None else runs.where(where)
    else:
        places = [runs] if isinstance(runs, str | Path) else runs
        columns = columns or Columns()
        if not columns.arm and (arm := asked_of(runs)[0].arm):
            columns = dataclasses.replace(columns, arm=arm)
        table = _reported(load_runs(places, where, columns=columns), _records(runs))
    names = tuple(choose)
    if choose_seeds and not names:
        raise CompareError("seeds to choose by have no use without --choose; name a setting")
    return choose_cells(table, names, seeds=choose_seeds) if names else table

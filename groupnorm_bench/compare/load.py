"""Runs read from run folders and from W&B, merged into one table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from groupnorm_bench.compare.foreign import SUFFIXES, Columns, ToldRun, read_results, table_of_lines
from groupnorm_bench.compare.packed import packed_rows
from groupnorm_bench.compare.rows import RunRow, RunTable, armed_by
from groupnorm_bench.errors import CompareError, TrackingError, nearest
from groupnorm_bench.runs import Status, find_runs, is_pack, tell_of_packs
from groupnorm_bench.settings.fields import SETTINGS
from groupnorm_bench.wording import printable

_WANDB_PATH = re.compile(r"\w[\w.-]*/\w[\w.-]*(/(sweeps/)?\w+)?")


def load_runs(
    sources: str | Path | Sequence[str | Path] = "runs",
    where: str | None = None,
    *,
    columns: Columns | None = None,
) -> RunTable:
    """Read runs from folders (of runs, or of one run) and from W&B, merged into one table.

    Or from one table that another program left, or its W&B project: see `compare.foreign`.

    A folder reached twice counts once. Runs in every status are kept: see `RunTable.finished`.
    A notebook shows the table; `.to_pandas()` has a row for each run.

    Args:
        sources: a folder or pack, or several; or `ENTITY/PROJECT[/SWEEP]` on W&B, where no such
            path exists.
        where: a filter, as in `batch_size<=32 and norm!=none`.
        columns: of a table, which column is what; of runs, which settings make the arm.

    Raises:
        RunFolderError: a folder does not exist.
        TrackingError: W&B refused, or has no such project or sweep.
        CompareError: no run was found, a run is there twice, or `where` is not clear.
    """
    columns = columns or Columns()
    sources = [sources] if isinstance(sources, str | Path) else sources
    tables = [Path(source) for source in sources if Path(source).suffix.lower() in SUFFIXES]
    if tables and not any(path.is_dir() for path in tables):
        return _one_table(tables, sources, where, columns)
    rows: dict[str, RunRow] = {}
    every: list[RunRow] = []
    problems: list[str] = []
    for source in sources:
        if not Path(source).exists() and _WANDB_PATH.fullmatch(str(source)):
            found, bad, lines = _wandb_rows(str(source))
            if lines and not found and len(sources) == 1:
                return _checked(table_of_lines(str(source), lines, columns, where))
            bad += [f"{line.place}: gnbench did not make it; skipped" for line in lines]
        else:
            found, bad = _rows_here(Path(source))
        problems += bad
        if not rows and len(sources) == 1:  # nothing is reached twice
            every = found
            break
        for row in found:
            key = str(row.folder.path.resolve()) if row.folder else row.source
            rows.setdefault(key, row)
    places = [Path(source) for source in sources]
    problems = tell_of_packs(places, filter(is_pack, places)) + problems
    if columns.seed is not None or columns.setting is not None:
        raise CompareError("--seed and --setting name columns of a table; runs have theirs")
    told = dict.fromkeys(printable(problem) for problem in problems)
    table = RunTable(rows=tuple(every or rows.values()), problems=tuple(told))
    if not table.rows:
        named = ", ".join(map(str, sources)) or "no folder"
        why = "; ".join(table.problems[:2])
        if why:
            raise CompareError(f"{named} holds no runs to be read; {why}")
        raise CompareError(f"{named} holds no runs; train some: gnbench sweep")
    table = _armed(table, columns.arm)
    if where is not None:
        table = table.where(where)
    refuse_duplicates(table.rows)
    return table


def _rows_here(path: Path) -> tuple[list[RunRow], list[str]]:
    """Return the runs of a folder or a pack, and a line for each that could not be read."""
    if is_pack(path) and (packed := packed_rows(path)) is not None:
        return packed, []
    runs, problems = find_runs([path])
    rows = [
        RunRow(result=run.result, folder=run.folder, source=str(run.folder.path)) for run in runs
    ]
    return rows, problems


def _armed(table: RunTable, names: tuple[str, ...]) -> RunTable:
    """Return the runs with these settings as what makes an arm.

    Raises:
        CompareError: there is no such setting.
    """
    if not names or names == ("norm",):
        return table
    own = dict.fromkeys(name for row in table.rows for name in row.cell_config.cell_settings)
    known = [known for known in {**SETTINGS, **own} if known != "seed"]
    for name in names:
        if name not in known:
            raise CompareError(f"arm={name!r} is no setting of a run{nearest(name, known)}")
    return dataclasses.replace(table, rows=armed_by(table.rows, names))


def _one_table(
    tables: Sequence[Path], sources: Sequence[str | Path], where: str | None, columns: Columns
) -> RunTable:
    if len(sources) > 1:
        raise CompareError(f"{tables[0]} is a table of results; give it alone")
    return _checked(read_results(tables[0], columns, where))


def _checked(table: RunTable) -> RunTable:
    refuse_duplicates(table.rows)
    return table


def _wandb_rows(path: str) -> tuple[list[RunRow], list[str], list[ToldRun]]:
    """Return our runs, a line for each that could not be read, and those of other programs."""
    from groupnorm_bench.tracking.readback import read_project

    try:
        results, problems, others = read_project(path)
    except TrackingError as error:
        raise TrackingError(f"{path} is no folder here; as a W&B path: {error}") from error
    rows = [RunRow(result=r, source=str(r.wandb["url"])) for r in results]
    lines = [
        ToldRun(
            place=f"run {printable(run.name, 60)} ({run.path})",
            values={"name": run.name, "state": run.state} | dict(run.values),
            leave_out=f"leave it out: --where 'name!=\"{printable(run.name, 60)}\"'",
            status=_STATUSES.get(run.state, "failed"),
            url=run.url,
        )
        for run in others
    ]
    return rows, problems, lines


_STATUSES: dict[str, Status] = {
    "finished": "finished",
    "running": "interrupted",
    "pending": "interrupted",
}
"""Of W&B's states; one of another name failed, as `crashed` and `killed` did."""


def refuse_duplicates(rows: Sequence[RunRow]) -> None:
    """Refuse two results of one cell and seed by the same code: which of them counts?

    Raises:
        CompareError: there are such.
    """
    seen: dict[tuple[str, str], dict[int, RunRow]] = {}
    for row in rows:
        if row.status not in ("finished", "diverged"):
            continue
        of_cell = seen.setdefault((row.cell, row.code), {})
        other = of_cell.setdefault(row.seed, row)
        if other is not row:
            raise CompareError(
                f"seed={row.seed} of {row.cell} is there twice, in {other.source} and "
                f"{row.source}; give one of them"
            )

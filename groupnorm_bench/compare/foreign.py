"""Results that exist: a table of another program, as CSV, TSV, JSON lines or Parquet, or its runs
on W&B, by config and summary.

Which columns are the arm, the seed, the metric and the settings is told, or guessed where their
names are plain; the guess is shown.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.compare.where import Lookup, parse_where
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.files import read_bounded
from groupnorm_bench.metrics import PERCENT, metric_spec
from groupnorm_bench.runs import RunResult, Status
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.wording import count, printable

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MAX_BYTES = 2**30
_MAX_WORD = 300
"""Letters of an arm or a setting: cut, two of them could be one."""
_ARMS = ("arm", "norm", "norm_type", "norm_layer", "normalization", "normalisation", "method")
_SEEDS = ("seed", "random_seed", "run_seed", "repeat", "replicate")
_SETTINGS = (
    *("dataset", "data", "task", "model", "network", "architecture", "arch", "backbone"),
    *("batch_size", "lr", "learning_rate", "optimizer", "epochs", "num_groups", "resolution"),
)
_METRICS = (
    *(
        "test/accuracy",
        "test_accuracy",
        "test_acc",
        "accuracy",
        "acc",
        "dice",
        "miou",
        "iou",
        "map",
    ),
    *("auc", "f1", "score", "test/loss", "test_loss"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns of a table, or settings of our own runs, are what; None: to be guessed."""

    arm: tuple[str, ...] = ()
    seed: str | None = None
    metric: str | None = None
    setting: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ForeignRow(RunRow):
    """A run of another program: its result holds the metric, and nothing else is known of it."""

    told_arm: str
    told_seed: int
    told_setting: Mapping[str, Any]

    @property
    def arm(self) -> str:
        return self.told_arm

    @property
    def seed(self) -> int:
        return self.told_seed

    @property
    def setting(self) -> dict[str, Any]:
        return dict(self.told_setting)

    @property
    def told(self) -> dict[str, Any]:
        return {**self.told_setting, "seed": self.told_seed}

    @property
    def cell(self) -> str:
        return " ".join([self.told_arm, *(f"{k}={v}" for k, v in self.told_setting.items())])

    @property
    def name(self) -> str:
        return f"{self.cell} seed={self.told_seed}"

    @property
    def code(self) -> str:
        return ""

    @property
    def order(self) -> tuple[Any, ...]:
        return (self.position,)

    def value(self, name: str) -> Any:
        """Return what `--where` calls `name`: a column, or one of our own words."""
        if name in self.told_setting:
            return self.told_setting[name]
        own: dict[str, Any] = {"arm": self.arm, "seed": self.told_seed, "cell": self.cell}
        own |= {"name": self.name, "status": self.status}
        return own.get(name, self.result.summary.get(name))


class ToldRun(NamedTuple):
    """A run as another program told it."""

    place: str
    """For messages: a file and line, or a run of W&B's by name."""
    values: Mapping[str, Any]
    leave_out: str = "remove the row"
    """How the run is left out, for messages."""
    status: Status = "finished"
    url: str | None = None


def read_results(path: Path, columns: Columns | None = None, where: str | None = None) -> RunTable:
    """Read a table of results.

    Args:
        path: CSV, TSV, JSON lines or Parquet, by its suffix; a head of names, then a row a run.
        columns: which column is what; see `Columns`.
        where: a filter by any column, applied before a row is looked at.

    Returns:
        the runs, with a line on what was guessed among its `problems`, and its `metric`. A metric
        that is `nan` is a run that was lost.

    Raises:
        CompareError: the file cannot be read; a column is not there, or not told by its name; a
            value is missing, of another kind, or a run is there twice. With the row.
    """
    lines = [ToldRun(f"{path}:{number}", row) for number, row in _rows_of(path)]
    if not lines:
        raise CompareError(f"{path} holds no rows; write a head of names, then a row a run")
    return table_of_lines(str(path), lines, columns, where)


def table_of_lines(
    path: str, lines: Sequence[ToldRun], columns: Columns | None = None, where: str | None = None
) -> RunTable:
    """Return runs that another program told of, as `read_results` does.

    Args:
        path: where they were, for messages.
        lines: at least one.
        columns: which name is what.
        where: a filter by any name of the lines.

    Raises:
        CompareError: see `read_results`.
    """
    columns = columns or Columns()
    names = list(dict.fromkeys(name for line in lines for name in line.values))
    arm = columns.arm or (_guess(path, names, _ARMS, "arm"),)
    if where is not None:
        lines = _filtered(lines, names, arm, where)
    rows = [line.values for line in lines if line.status == "finished"]
    if not rows:
        raise CompareError(f"{path} has no finished run; there is nothing to compare")
    seed = columns.seed or _guess(path, names, _SEEDS, "seed")
    metric = columns.metric or _guess_metric(path, names, rows, (*arm, seed))
    setting = columns.setting
    if setting is None:
        setting = tuple(
            n for n in names if n.lower() in _SETTINGS and n not in (*arm, seed, metric)
        )
    named = (*arm, seed, metric, *setting)
    for place, name in enumerate(named):
        if name not in names:
            raise CompareError(f"{path} has no column {name!r}{nearest(name, names)}")
        if name in named[:place]:
            raise CompareError(
                f"{path}: column {name!r} is taken for two things, and can be one of arm, seed, "
                "metric and setting"
            )
    numeric = {name for name in setting if all(_is_finite(row.get(name)) for row in rows)}
    found: list[RunRow] = []
    problems: list[str] = []
    arms: dict[str, int] = {}
    for line in lines:
        missing = [name for name in (*arm, seed, *setting) if _is_missing(line, name)]
        if missing and line.status != "finished":
            problems.append(f"{line.place}: {line.status}, and has no {missing[0]}; skipped")
            continue
        told = _arm_of(line, arm)
        status, summary = _outcome(line, metric)
        found.append(
            ForeignRow(
                result=RunResult(
                    config=_NO_CONFIG,
                    status=status,
                    summary=summary,
                    wandb={} if line.url is None else {"url": line.url},
                ),
                source=line.place,
                armed=arm,
                told_arm=told,
                told_seed=_seed(line, seed),
                told_setting={
                    name: float(line.values[name])
                    if name in numeric and _is_finite(line.values[name])
                    else _text(line, name)
                    for name in setting
                },
                position=arms.setdefault(told, len(arms)),
            )
        )
    rest = [name for name in names if name not in (*arm, seed, metric, *setting)]
    return RunTable(
        rows=tuple(_as_fractions(found, metric)),
        problems=(*problems, _told(path, columns, arm, seed, metric, setting, rest)),
        metric=metric,
    )


def _filtered(
    lines: Sequence[ToldRun], names: Sequence[str], arm: Sequence[str], where: str
) -> list[ToldRun]:
    """Return the lines that a filter holds for; text that is a number counts as one."""
    keeps = parse_where(where, {*names, "arm"})

    def reader(line: ToldRun) -> Lookup:
        def told(name: str) -> Any:
            if name == "arm" and "arm" not in names:
                return _arm_of(line, arm)
            value = line.values.get(name)
            return float(value) if value is not None and _is_number(value) else value

        return told

    kept = [line for line in lines if keeps(reader(line))]
    if not kept:
        raise CompareError(f"where={where!r} leaves no run of {len(lines)}; loosen it")
    return kept


def _arm_of(line: ToldRun, arm: Sequence[str]) -> str:
    parts = [_text(line, name) for name in arm]
    return parts[0] if len(arm) == 1 else ", ".join(map("=".join, zip(arm, parts, strict=True)))


def _outcome(line: ToldRun, metric: str) -> tuple[Status, dict[str, Any]]:
    if line.status != "finished":
        return line.status, {}
    score = _score(line, metric)
    return ("diverged", {}) if math.isnan(score) else ("finished", {metric: score})


_NO_CONFIG = TrainConfig()


def _rows_of(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows, each with its line (of Parquet its number, from 1)."""
    if path.suffix.lower() == ".parquet":
        return list(enumerate(_parquet(path), start=1))
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise CompareError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CompareError(f"{path}:{line} is not UTF-8; save the file as UTF-8") from error
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return list(_json_lines(path, text))
    return list(_csv(path, text))


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=head.count) if path.suffix.lower() == ".csv" else "\t"
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise CompareError(f"{path}:1 has the column {twice!r} twice; rename one")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise CompareError(
                    f"{path}:{reader.line_num} has {count(len(cells), 'cell')} under "
                    f"{count(len(names), 'name')}"
                )
            yield reader.line_num, dict(zip(names, map(str.strip, cells), strict=True))
    except csv.Error as error:
        raise CompareError(f"{path}:{reader.line_num} is not CSV: {error}") from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # JSON's words may hold others
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CompareError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise CompareError(f'{path}:{number} is no object; write {{"norm": ...}} a line')
        yield number, row


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        remedy = "pip install pyarrow, or save it as CSV"
        raise CompareError(f"{path} is Parquet, which pyarrow reads: {remedy}") from error
    try:
        return list(parquet.read_table(io.BytesIO(read_bounded(path, MAX_BYTES))).to_pylist())
    except (OSError, ArrowException) as error:
        why = getattr(error, "strerror", None) or printable(str(error))
        raise CompareError(f"{path} cannot be read as Parquet: {why}") from error


def _guess(path: str, names: Sequence[str], known: Iterable[str], what: str) -> str:
    by_name = {name.lower(): name for name in reversed(names)}
    found = next((by_name[name] for name in known if name in by_name), None)
    if found is None:
        raise CompareError(f"{path}: which column is the {what}? --{what} one of {_listed(names)}")
    return found


def _guess_metric(
    path: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    taken: Sequence[str],
) -> str:
    by_name = {name.lower(): name for name in reversed(names) if name not in taken}
    known = next((by_name[name] for name in _METRICS if name in by_name), None)
    if known is not None:
        return known
    rest = [n for n in names if n not in taken and n.lower() not in _SETTINGS]
    numbers = [n for n in rest if all(_is_number(row.get(n)) for row in rows)]
    if len(numbers) != 1:
        raise CompareError(f"{path}: which column is the metric? --metric one of {_listed(names)}")
    return numbers[0]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 40) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _told(
    path: str,
    columns: Columns,
    arm: tuple[str, ...],
    seed: str,
    metric: str,
    setting: tuple[str, ...],
    rest: list[str],
) -> str:
    """Say what was taken for what."""
    guessed = not (columns.arm and columns.seed and columns.metric and columns.setting is not None)
    parts = [f"arm {', '.join(arm)}", f"seed {seed}", f"metric {metric}"]
    parts += [f"setting {', '.join(setting)}"] if setting else []
    left = f"; left out: {_listed(rest)}" if rest else ""
    how = "guessed by its names" if guessed else "as told"
    return f"{path}, {how}: {'; '.join(parts)}{left}"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or value is None or value == "":
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(float(value))


def _is_missing(line: ToldRun, name: str) -> bool:
    return line.values.get(name) in (None, "")


def _text(line: ToldRun, name: str) -> str:
    if _is_missing(line, name):
        raise CompareError(f"{line.place} has no {name}; fill it in, or {line.leave_out}")
    text = str(line.values[name])
    if len(text) > _MAX_WORD:
        raise CompareError(
            f"{line.place} {name}={printable(text, 60)!r} has {len(text):,} letters; {_MAX_WORD} "
            "are the most"
        )
    return printable(text)


def _score(line: ToldRun, name: str) -> float:
    if _is_missing(line, name):
        raise CompareError(
            f"{line.place} has no {name}; {line.leave_out}, or write nan for a lost run"
        )
    value = line.values[name]
    if not _is_number(value) or math.isinf(float(value)):
        raise CompareError(f"{line.place} {name}={printable(repr(value), 60)} is not a number")
    return float(value)


def _seed(line: ToldRun, name: str) -> int:
    value = line.values.get(name)
    number = float(value) if value is not None and _is_number(value) else math.nan
    if not (number.is_integer() and abs(number) < 2**53):
        raise CompareError(
            f"{line.place} {name}={printable(repr(value), 60)} is not a whole number"
        )
    return int(number)


def _as_fractions(rows: list[RunRow], metric: str) -> list[RunRow]:
    """Divide accuracies that are per cent by 100: ours are fractions."""
    if not metric_spec(metric).is_percent:
        return rows
    having = [row for row in rows if row.result.summary]
    values = [row.result.summary[metric] for row in having]
    for row, value in zip(having, values, strict=True):
        if abs(value) > PERCENT:
            raise CompareError(
                f"{row.source} {metric}={value:g} is neither a fraction nor per cent"
            )
    if max(values, default=0) > 1:
        for row in rows:
            if row.result.summary:
                row.result.summary[metric] /= PERCENT
    return rows

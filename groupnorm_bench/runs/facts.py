"""The few facts of many runs that verdicts rest on, column by column: read without the documents.

A pack holds them beside its results, made from these as they were put in: `facts_of` says what of a
result is a fact, and `check` holds the columns to a result once more.
"""

from __future__ import annotations

import bisect
import functools
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from groupnorm_bench.errors import ConfigError, RunFolderError
from groupnorm_bench.runs.result import STATUSES, TRIAL_CODE, RunResult
from groupnorm_bench.settings.config import TrainConfig, run_name
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.wording import count

PART = 10_000
"""Runs to a part: so many are read, or written, at once."""
ENVIRONMENT = ("version", "commit", "torch", "python", "host", "device_name", "device", "platform")
"""What a run tells of where it was computed and is a fact; `threads` is one more."""
PER_RUN = ("command", "started")
"""Told as well, but differing from run to run, so that they are decoded only where asked for."""
COUNTS = ("epochs", "first_images", "last_images", "last_accuracy")
MAX_PART = 2**26
"""Bytes of a part, before it is compressed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is a fact of one run."""

    settings: str
    """All but the seed, as JSON."""
    seed: int
    status: str
    environment: str
    """As JSON."""
    later: tuple[str, ...]
    """Each of `PER_RUN` as JSON."""
    counts: tuple[float, ...]
    """Epochs done, images seen after the first and the last, the last `val/accuracy`; NaN where
    nothing tells."""
    summary: dict[str, Any]
    """Numbers, and None for what is none; what is of another kind is an `...`."""


class PartOfFacts:
    """Facts that become one part of a pack: not too many, nor too much to be read back."""

    def __init__(self) -> None:
        self.runs: list[Facts] = []
        self._names: set[str] = set()
        self._texts = 0

    def add(self, facts: Facts) -> bool:
        """Add those of a run; return whether the part is full."""
        self.runs.append(facts)
        new = facts.summary.keys() - self._names
        self._names |= new
        self._texts += sum(map(len, (facts.settings, facts.environment, *facts.later, *new)))
        numbers = 8 * len(self.runs) * (len(self._names) + len(COUNTS) + 6)
        return (
            len(self.runs) >= PART or self._texts + 16 * len(self._names) + numbers > MAX_PART / 2
        )


def facts_of(result: RunResult) -> Facts:
    """Return the facts of a result."""
    settings = result.config.to_dict()
    seed = settings.pop("seed")
    told = result.environment
    environment = {name: told.get(name) for name in (*ENVIRONMENT, "threads")}
    if told.get(TRIAL_CODE):
        environment[TRIAL_CODE] = told[TRIAL_CODE]
    history = result.history
    ends = (history[0], history[-1]) if history else ({}, {})
    counts = (
        float(len(history)),
        *(_number(row.get("images_seen")) for row in ends),
        _number(ends[1].get("val/accuracy")),
    )
    return Facts(
        settings=_json(settings),
        seed=seed,
        status=result.status,
        environment=_json(environment),
        later=tuple(_json(told.get(name)) for name in PER_RUN),
        counts=counts,
        summary={name: _plain(value) for name, value in result.summary.items()},
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _number(value: Any) -> float:
    """Return a finite number of a row; NaN for what is none."""
    plain = _plain(value)
    return math.nan if plain is None or plain is ... else float(plain)


def _plain(value: Any) -> Any:
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    return value if type(value) is int and abs(value) <= 2**53 else ...


@dataclass
class _Codes:
    """Texts as numbers, by first appearance."""

    texts: dict[str, int] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.numbers.append(self.texts.setdefault(text, len(self.texts)))


def encoded(runs: Sequence[Facts]) -> bytes:
    """Return a part: a line of JSON that says what follows, one of `PER_RUN`, then the columns.

    All of it is compressed; a column is the little-endian numbers of its runs.
    """
    codes = {"settings": _Codes(), "status": _Codes(), "environment": _Codes()}
    later = {name: _Codes() for name in PER_RUN}
    for run in runs:
        for name, each in codes.items():
            each.add(getattr(run, name))
        for each, text in zip(later.values(), run.later, strict=True):
            each.add(text)
    names = list(dict.fromkeys(name for run in runs for name in run.summary))
    columns: list[npt.NDArray[Any]] = [np.array([run.seed for run in runs], dtype="<u4")]
    every = (*codes.values(), *later.values())
    columns += [np.array(each.numbers, dtype="<i4") for each in every]
    columns += [
        np.array(column, dtype="<f8") for column in zip(*(run.counts for run in runs), strict=True)
    ]
    kinds = {}
    for name in names:
        values = [run.summary.get(name) for run in runs]
        kinds[name] = _kind(values)
        numbers = [math.nan if value is None or value is ... else value for value in values]
        columns.append(np.array(numbers, dtype="<f8"))
    head = {
        "runs": len(runs),
        "texts": {name: list(each.texts) for name, each in codes.items()},
        "summary": kinds,
    }
    lines = _json(head), _json([list(each.texts) for each in later.values()])
    table = b"".join(column.tobytes() for column in columns)
    return zlib.compress(b"%b\n%b\n%b" % (*(line.encode() for line in lines), table), 3)


def _kind(values: Iterable[Any]) -> str:
    """Return whether a column is of `int`, `float`, or of what the document must tell."""
    found = {type(value) for value in values if value is not None}
    if not found:
        return "none"
    return found.pop().__name__ if found in ({int}, {float}) else "other"


class _Later:
    """What differs from run to run, decoded part by part as it is asked for."""

    def __init__(
        self,
        lines: Sequence[bytes],
        numbers: npt.NDArray[np.int32],
        order: npt.NDArray[np.int64],
        starts: Sequence[int],
    ) -> None:
        self._lines = lines
        self._numbers = numbers  # [PER_RUN, runs], in the order of the parts
        self._order = order
        self._starts = starts
        self._texts: dict[int, list[list[str]]] = {}

    def texts(self, at: int) -> tuple[str, ...]:
        """Return each of `PER_RUN` of a run, as JSON.

        Raises:
            RunFolderError: a stranger's pack has none.
        """
        place = int(self._order[at])
        part = bisect.bisect_right(self._starts, place) - 1
        numbers = self._numbers[:, place]
        try:
            if part not in self._texts:
                self._texts[part] = orjson.loads(self._lines[part])
            return tuple(texts[i] for texts, i in zip(self._texts[part], numbers, strict=True))
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise RunFolderError(f"its columns are not readable: {error}") from error


@dataclass(frozen=True, kw_only=True)
class FactColumns:
    """The facts of many runs. Each array or list has an entry a run, shape [runs]."""

    configs: Sequence[TrainConfig]
    """The distinct ones, at seed 0."""
    config_of: Sequence[int]
    seeds: Sequence[int]
    statuses: Sequence[str]
    environments: Sequence[dict[str, Any]]
    environment_of: Sequence[int]
    later: _Later
    counts: dict[str, npt.NDArray[np.float64]]
    summary: dict[str, tuple[npt.NDArray[np.float64], str]]
    """Numbers, NaN where a run has none, and their kind."""

    def __len__(self) -> int:
        return len(self.seeds)

    @functools.cached_property
    def stems(self) -> Sequence[tuple[str, str]]:
        """What stands before and after the seed in the name of a run, by config."""
        ends = (run_name(config.cell, 0) for config in self.configs)
        return [tuple(name.rsplit("-s0-", 1)) for name in ends]  # type: ignore[misc]

    def name(self, at: int) -> str:
        """Return the name of a run."""
        stem, digest = self.stems[self.config_of[at]]
        return f"{stem}-s{self.seeds[at]}-{digest}"

    @functools.cached_property
    def _lists(self) -> dict[str, list[float | None]]:
        return {}

    def numbers(self, name: str) -> list[float | None]:
        """Return a summary metric of every run; None where one has none."""
        if name not in self._lists:
            values, _ = self.summary.get(name, (None, ""))
            found: list[float | None] = [None] * len(self)
            if values is not None:
                found = [None if v != v else v for v in values.tolist()]
            self._lists[name] = found
        return self._lists[name]

    @functools.cached_property
    def seconds_per_epoch(self) -> list[float | None]:
        """Training time of a pass over the data, as `compare.rows.RunRow` reckons it."""
        epochs, first, last = (self.counts[name] for name in COUNTS[:3])
        seconds = self.summary["train_seconds"][0] if "train_seconds" in self.summary else None
        if seconds is None:
            return [None] * len(self)
        with np.errstate(divide="ignore", invalid="ignore"):
            told = (first != 0) & (last != 0) & ~np.isnan(first) & ~np.isnan(last)
            values = np.where(told, seconds * first / last, seconds / epochs)
        known = ~np.isnan(seconds) & (epochs > 0)
        return [v if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]

    def environment(self, at: int) -> dict[str, Any]:
        """Return where a run ran, with its command and its start."""
        texts = zip(PER_RUN, self.later.texts(at), strict=True)
        try:
            told = {name: orjson.loads(text) for name, text in texts}
        except ValueError as error:
            raise RunFolderError(f"its columns are not readable: {error}") from error
        return self.environments[self.environment_of[at]] | told

    def differs(self, at: int, result: RunResult) -> bool:
        """Return whether the columns say of a run what its result does not."""
        config = self.configs[self.config_of[at]].replace(seed=int(self.seeds[at]))
        if (config, self.statuses[at]) != (result.config, result.status):
            return True
        told = facts_of(result)
        if self.later.texts(at) != told.later:
            return True
        if _json(self.environments[self.environment_of[at]]) != told.environment:
            return True
        counts = [self.counts[name][at] for name in COUNTS]
        if not np.array_equal(counts, told.counts, equal_nan=True):
            return True
        for name in {*self.summary, *told.summary}:
            here = told.summary.get(name)
            number = math.nan if here is None or here is ... else float(here)
            values, kind = self.summary.get(name, (None, "other"))
            there = math.nan if values is None else float(values[at])
            if (there == there or number == number) and there != number:
                return True
            if here is not None and type(here).__name__ not in kind and "other" not in kind:
                return True
        return False


def decoded(parts: Iterable[bytes], order: npt.NDArray[np.int64]) -> FactColumns:
    """Return the columns of parts, one after another, put into an order.

    Args:
        parts: what `encoded` gave.
        order: which run of the parts is the first, the second, ...; shape [runs].

    Raises:
        RunFolderError: a part is no part, or the parts have another number of runs.
    """
    try:
        return _joined([_split(part) for part in parts], order)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error) as error:
        raise RunFolderError(f"its columns are not readable: {error}") from error
    except ConfigError as error:
        raise RunFolderError(f"has a config of another version: {error}") from error


def _split(part: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    inflater = zlib.decompressobj()
    whole = inflater.decompress(part, MAX_PART)
    if not inflater.eof:
        raise ValueError(f"longer than {MAX_PART:,} bytes or cut short")
    head, later, table = whole.split(b"\n", 2)
    return orjson.loads(head), later, table


class _Reader:
    """Reads one column after another."""

    def __init__(self, table: bytes, runs: int) -> None:
        self._table, self._runs, self._at = table, runs, 0

    def column(self, kind: str) -> npt.NDArray[Any]:
        values = np.frombuffer(self._table, dtype=kind, count=self._runs, offset=self._at)
        self._at += values.nbytes
        return values

    def end(self) -> None:
        if self._at != len(self._table):
            raise ValueError("a part is longer than it says")


_CODED = ("settings", "status", "environment")


def _joined(
    parts: Sequence[tuple[dict[str, Any], bytes, bytes]], order: npt.NDArray[np.int64]
) -> FactColumns:
    sizes = [head["runs"] for head, _, _ in parts]
    runs = sum(sizes)
    if runs != len(order):
        raise ValueError(f"they are of {count(runs, 'run')}, and there are {len(order)}")
    kinds: dict[str, set[str]] = {}
    for head, _, _ in parts:
        for name, kind in head["summary"].items():
            kinds.setdefault(name, set()).update({kind} - {"none"})
    texts: dict[str, dict[str, int]] = {name: {} for name in _CODED}
    seeds = np.empty(runs, dtype=np.int64)
    codes = {name: np.empty(runs, dtype=np.int64) for name in _CODED}
    later = np.empty((len(PER_RUN), runs), dtype=np.int32)
    counts = {name: np.empty(runs) for name in COUNTS}
    summary = {name: np.full(runs, np.nan) for name in kinds}
    starts = np.cumsum([0, *sizes]).tolist()
    for (head, _, table), start, size in zip(parts, starts, sizes, strict=False):
        here, reader = slice(start, start + size), _Reader(table, size)
        seeds[here] = reader.column("<u4")
        for name, known in texts.items():
            found = [known.setdefault(str(text), len(known)) for text in head["texts"][name]]
            codes[name][here] = np.array(found, dtype=np.int64)[reader.column("<i4")]
        for numbers in later:
            numbers[here] = reader.column("<i4")
        for name in COUNTS:
            counts[name][here] = reader.column("<f8")
        for name in head["summary"]:
            summary[name][here] = reader.column("<f8")
        reader.end()
    if not all(0 <= epochs < 2**53 for epochs in counts["epochs"].tolist()):
        raise ValueError("one has no number of epochs")
    statuses = list(texts["status"])
    if not STATUSES.issuperset(statuses):
        raise ValueError(f"one has the unknown status {statuses}")
    configs = [orjson.loads(text) for text in texts["settings"]]
    return FactColumns(
        configs=[make_config([config | {"seed": 0}]) for config in configs],
        config_of=codes["settings"][order].tolist(),
        seeds=seeds[order].tolist(),
        statuses=[statuses[i] for i in codes["status"][order].tolist()],
        environments=[dict(orjson.loads(text)) for text in texts["environment"]],
        environment_of=codes["environment"][order].tolist(),
        later=_Later([line for _, line, _ in parts], later, order, starts),
        counts={name: numbers[order] for name, numbers in counts.items()},
        summary={
            name: (numbers[order], "/".join(sorted(kinds[name])) or "none")
            for name, numbers in summary.items()
        },
    )

"""Rows of a pack: a million runs at hand without a million documents.

A row knows its place among the pack's facts, and what it shares with the other runs of its cell;
its result and its hits are read where they are asked for, and not kept.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.order import setting_key
from groupnorm_bench.compare.rows import (
    OF_ENVIRONMENTS,
    OF_ROWS,
    RunRow,
    code_of,
    device_of,
    threads_of,
    timed_on,
)
from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.metrics import EpochRow, metric_spec
from groupnorm_bench.runs import FactColumns, PackedRuns, RunFolder, RunResult, packed_facts
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import SETTINGS


def packed_rows(path: Path) -> list[RunRow] | None:
    """Return a row for each run of a pack, by name.

    Returns:
        None for a pack of the first format, which has no facts: read its documents.

    Raises:
        RunFolderError: it is no pack, or damaged, or its facts are not those of its results.
    """
    runs, columns = packed_facts(path)
    if columns is None:
        return None
    pack = _SharedByPack(runs, columns)
    cells = [_SharedByCell(pack, config) for config in columns.configs]
    return [PackedRow(cells[i], at) for at, i in enumerate(columns.config_of)]


class _SharedByPack:
    """What the rows of one pack share: lists with an entry a run."""

    def __init__(self, runs: PackedRuns, columns: FactColumns) -> None:
        self.runs = runs
        self.columns = columns
        self.statuses = columns.statuses
        self.machines: list[tuple[str, str]] = []
        """The device, and what times depend on."""
        self.seeds = columns.seeds
        told = columns.environments
        codes, threads = [code_of(each) for each in told], [threads_of(each) for each in told]
        self.codes = [codes[i] for i in columns.environment_of]
        self.threads = [threads[i] for i in columns.environment_of]
        machines: dict[tuple[int, str], tuple[str, str]] = {}
        asked = [config.device for config in columns.configs]
        for at in zip(columns.environment_of, columns.config_of, strict=True):
            key = at[0], asked[at[1]]
            if key not in machines:
                where = told[at[0]], columns.configs[at[1]]
                machines[key] = device_of(*where), timed_on(*where)
            self.machines.append(machines[key])
        self.summary_keys = tuple(columns.summary)
        self._printed: dict[str, list[float | None]] = {}

    def printed(self, name: str) -> list[float | None]:
        """Return a summary metric of every run in the unit that people read."""
        if name not in self._printed:
            factor = metric_spec(name).factor
            numbers = self.columns.numbers(name)
            self._printed[name] = [None if n is None else n * factor for n in numbers]
        return self._printed[name]


class _SharedByCell:
    """What the rows of one cell share, as they are seen."""

    def __init__(self, pack: _SharedByPack, config: TrainConfig, **seen: Any) -> None:
        self.pack = pack
        self.config = config
        self.seen = seen
        self._others: dict[str, _SharedByCell] = {}

    @functools.cached_property
    def row(self) -> RunRow:
        """A run of the cell, to ask what all of them answer alike."""
        return RunRow(result=RunResult(config=self.config, status="finished"), **self.seen)

    @functools.cached_property
    def order(self) -> tuple[Any, ...]:
        return self.row.order

    @functools.cached_property
    def key(self) -> str:
        return setting_key(self.row.setting)

    @functools.cached_property
    def inert(self) -> frozenset[str]:
        return self.config.inert

    @functools.cached_property
    def images(self) -> dict[str, int | None]:
        """What the data set tells of how many images there are, by part."""
        return {part: self.row.num_images(part) for part in ("val", "test")}

    def seen_as(self, **seen: Any) -> _SharedByCell:
        """Return the cell as seen otherwise; the same one each time."""
        key = repr(seen)
        if key not in self._others:
            self._others[key] = _SharedByCell(self.pack, self.config, **self.seen | seen)
        return self._others[key]


class PackedRow(RunRow):
    """A run of a pack."""

    __slots__ = ("_at", "_cell")
    _at: int
    _cell: _SharedByCell

    def __init__(self, cell: _SharedByCell, at: int) -> None:
        object.__setattr__(self, "_cell", cell)
        object.__setattr__(self, "_at", at)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedRow) and (self._cell, self._at) == (other._cell, other._at)

    def __hash__(self) -> int:
        return hash((id(self._cell), self._at))

    def seen_as(self, **seen: Any) -> RunRow:
        return PackedRow(self._cell.seen_as(**seen), self._at)

    def whole(self) -> RunRow:
        seen = self._cell.seen
        return RunRow(result=self.result, folder=self.folder, source=self.source, **seen)

    @property
    def folder(self) -> RunFolder:
        return self._cell.pack.runs[self._at]

    @property
    def source(self) -> str:
        return str(self.folder.path)

    @property
    def chosen(self) -> tuple[str, ...]:
        return self._cell.row.chosen

    @property
    def called(self) -> str:
        return self._cell.row.called

    @property
    def position(self) -> int:
        return self._cell.row.position

    @property
    def armed(self) -> tuple[str, ...]:
        return self._cell.row.armed

    @property
    def result(self) -> RunResult:
        found = self.folder.read()
        if found is None:
            raise RunFolderError(f"{self.source} has no result; take another copy of the pack")
        return found

    @property
    def config(self) -> TrainConfig:
        config = copy.copy(self._cell.config)  # valid at one seed, it is so at another
        object.__setattr__(config, "seed", self.seed)
        return config

    @property
    def cell_config(self) -> TrainConfig:
        return self._cell.config

    @property
    def norm(self) -> str:
        return self._cell.config.norm

    @property
    def arm(self) -> str:
        return self._cell.row.arm

    @property
    def order(self) -> tuple[Any, ...]:
        return self._cell.order

    @property
    def cell(self) -> str:
        return self._cell.row.cell

    @property
    def name(self) -> str:
        return self._cell.pack.runs.names[self._at]

    @property
    def setting(self) -> dict[str, Any]:
        return self._cell.row.setting

    @property
    def setting_key(self) -> str:
        return self._cell.key

    @property
    def seed(self) -> int:
        return self._cell.pack.seeds[self._at]

    @property
    def status(self) -> str:
        return self._cell.pack.statuses[self._at]

    @property
    def code(self) -> str:
        return self._cell.pack.codes[self._at]

    @property
    def threads(self) -> int | None:
        return self._cell.pack.threads[self._at]

    @property
    def device(self) -> str:
        return self._cell.pack.machines[self._at][0]

    @property
    def timed_on(self) -> str:
        return self._cell.pack.machines[self._at][1]

    @property
    def history(self) -> list[EpochRow]:
        return self.result.history

    @property
    def environment(self) -> dict[str, Any]:
        return self._cell.pack.columns.environment(self._at)

    @property
    def summary_keys(self) -> Sequence[str]:
        return self._cell.pack.summary_keys

    def metric(self, name: str) -> float | None:
        return self._cell.pack.columns.numbers(name)[self._at]

    def printed(self, name: str) -> float | None:
        return self._cell.pack.printed(name)[self._at]

    @property
    def seconds_per_epoch(self) -> float | None:
        return self._cell.pack.columns.seconds_per_epoch[self._at]

    def value(self, name: str) -> Any:
        columns = self._cell.pack.columns
        if name in OF_ROWS or name == "seed":
            return getattr(self, name)
        if name in OF_ENVIRONMENTS:
            return columns.environments[columns.environment_of[self._at]].get(name)
        if name in SETTINGS:
            return None if name in self._cell.inert else self._cell.config.value(name)
        if name in (live := self._cell.config.cell_settings):
            return live[name]
        kind = columns.summary[name][1] if name in columns.summary else "none"
        if kind not in ("int", "float", "none"):
            return self.result.summary.get(name)
        number = columns.numbers(name)[self._at]
        return int(number) if number is not None and kind == "int" else number

    def num_images(self, part: str) -> int | None:
        told = self.metric(f"{part}/num_images")
        if told is not None and told > 0 and told.is_integer():
            return int(told)
        if part == "test" and (hits := self.hits()) is not None:
            return len(hits)
        return self._cell.images.get(part)

    def hits(self) -> npt.NDArray[np.bool_] | None:
        told = self.metric("test/num_images")
        images = int(told) if told is not None and told > 0 and told.is_integer() else None
        return self._read_hits(images)

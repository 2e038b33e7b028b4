"""The distinct cells of a grid, counted without being built: a product of independent blocks.

Settings that make each other inert (`num_groups` under a norm without groups) lie in one block,
whose combinations are tried one by one; blocks do not know of each other. So a grid of a million
points costs as much as its blocks, and the cell at any position is built when it is asked for.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import ARM_SETTINGS, LINKS, NEUTRAL, PLAIN
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.file.axes import Axis, on_base

MAX_BLOCK = 100_000
_NOT_OWN = (*ARM_SETTINGS, "device")
"""What means the same in a training function of the user's own as everywhere."""

Assignment = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A block of one plain setting: its distinct values."""

    setting: str
    values: Sequence[Any]
    points: int
    repeats: Mapping[str, int]
    """Why points of the block are not cells, and how many."""

    @property
    def size(self) -> int:
        return len(self.values)

    def __getitem__(self, position: int) -> Assignment:
        return {self.setting: self.values[position]}

    def find(self, live: Mapping[str, Any]) -> int | None:
        """Return where a config with these live settings lies in the block, if it does."""
        value = live[self.setting]
        if isinstance(self.values, range):  # which `in` would walk for all but an int
            if value is None or value != int(value):
                return None
            value = int(value)
        return self.values.index(value) if value in self.values else None


@dataclass(frozen=True, slots=True)
class Combinations:
    """A block of linked settings: its distinct combinations."""

    settings: tuple[str, ...]
    rows: Sequence[Assignment]
    positions: Mapping[tuple[Any, ...], int]
    points: int
    repeats: Mapping[str, int]

    @property
    def size(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Assignment:
        return self.rows[position]

    def find(self, live: Mapping[str, Any]) -> int | None:
        """Return where a config with these live settings lies in the block, if it does."""
        return self.positions.get(_key(self.settings, live))


def _key(settings: Iterable[str], live: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((name, live[name]) for name in settings if name in live)


class Grid:
    """Every distinct cell of some axes, arms varying fastest.

    Raises:
        SweepError: some combination is not valid; the message has the `file:line` of its axis.
    """

    def __init__(self, axes: Sequence[Axis], base: TrainConfig) -> None:
        self.base = base
        swept = {name for axis in axes for name in axis.settings}
        groups = sorted(
            _joined(axes), key=lambda group: bool(set(ARM_SETTINGS) & set(_settings(group)))
        )
        self.blocks = [_block(group, base, swept) for group in groups]
        self.points = math.prod(block.points for block in self.blocks)
        self.size = math.prod(block.size for block in self.blocks)
        if not isinstance(base, OwnConfig):
            self._check_smallest_batch(groups)
            self._check_models(groups)

    def run(self, position: int, seed: int) -> TrainConfig:
        """Build the run of the cell at `position`, 0 to `size` - 1, with this seed."""
        settings: Assignment = {"seed": seed}
        for block in reversed(self.blocks):
            position, place = divmod(position, block.size)
            settings.update(block[place])
        return on_base(self.base, settings)

    def find(self, config: TrainConfig) -> int | None:
        """Return the position of the cell that `config` belongs to, if it is in the grid."""
        live = config.cell_settings
        position = 0
        for block in self.blocks:
            try:
                place = block.find(live)
            except KeyError:  # the block's setting does nothing in this config
                return None
            if place is None:
                return None
            position = position * block.size + place
        return position if self.run(position, 0).cell_settings == live else None

    def duplicates(self) -> dict[str, int]:
        """Return why points are not cells, and how many points: in all `points - size`."""
        reasons: Counter[str] = Counter()
        for index, block in enumerate(self.blocks):
            others = math.prod(b.size for b in self.blocks[:index])
            others *= math.prod(b.points for b in self.blocks[index + 1 :])
            for reason, count in block.repeats.items():
                reasons[reason] += count * others
        return dict(reasons.most_common())

    def _by_setting(
        self, groups: Sequence[Sequence[Axis]]
    ) -> dict[str, tuple[Axis, Line | Combinations]]:
        return {
            name: (axis, block)
            for group, block in zip(groups, self.blocks, strict=True)
            for axis in group
            for name in axis.settings
        }

    def _check_models(self, groups: Sequence[Sequence[Axis]]) -> None:
        """Check what blocks cannot see: each network under each arm (`TrainConfig._check_norm`)."""
        by_setting = self._by_setting(groups)
        if "model" not in by_setting:
            return
        axis, models = by_setting["model"]
        arms = {id(block): block for n, (_, block) in by_setting.items() if n in ARM_SETTINGS}
        others = [block for block in arms.values() if block is not models]
        batch = {"batch_size": NEUTRAL["batch_size"]}
        for parts in itertools.product(*([b[i] for i in range(b.size)] for b in (models, *others))):
            _build(self.base, functools.reduce(operator.or_, parts, batch), axis)

    def _check_smallest_batch(self, groups: Sequence[Sequence[Axis]]) -> None:
        """Check what blocks cannot see: batch norms need two images (`TrainConfig._check_norm`)."""
        by_setting = self._by_setting(groups)
        if "batch_size" not in by_setting:
            return
        axis, sizes = by_setting["batch_size"]
        smallest = min(
            (sizes[i] for i in _ends(sizes)), key=lambda a: a.get("batch_size", math.inf)
        )
        arms = by_setting["norm"][1] if "norm" in by_setting else None
        for arm in [arms[i] for i in range(arms.size)] if arms is not None else [{}]:
            if arms is not sizes:
                _build(self.base, {**smallest, **arm}, axis)


def _ends(block: Line | Combinations) -> Iterable[int]:
    """Return positions among which each setting's least value lies: a range's are its ends."""
    if isinstance(block, Line) and isinstance(block.values, range):
        return (0, block.size - 1)
    return range(block.size)


def _settings(group: Sequence[Axis]) -> tuple[str, ...]:
    return tuple(name for axis in group for name in axis.settings)


def _joined(axes: Sequence[Axis]) -> list[list[Axis]]:
    """Group the axes whose settings are linked, in the order of their first axis."""
    groups: list[tuple[set[int], list[Axis]]] = []
    for axis in axes:
        links = {i for i, link in enumerate(LINKS) if set(link) & set(axis.settings)}
        touching = [group for group in groups if group[0] & links]
        merged = (
            links.union(*(group[0] for group in touching)),
            [member for group in touching for member in group[1]] + [axis],
        )
        place = groups.index(touching[0]) if touching else len(groups)
        groups = [group for group in groups if group not in touching]
        groups.insert(place, merged)
    return [members for _, members in groups]


def _block(group: Sequence[Axis], base: TrainConfig, swept: set[str]) -> Line | Combinations:
    [axis] = group if len(group) == 1 else [None]
    is_own = isinstance(base, OwnConfig) and axis is not None and axis.setting not in _NOT_OWN
    if axis is not None and (axis.setting in PLAIN or (is_own and axis.setting is not None)):
        return _line(axis)
    return _combinations(group, _without(base, swept - set(_settings(group))))


def _without(base: TrainConfig, swept: set[str]) -> TrainConfig:
    """Return the base with what other blocks sweep set to values that suit every block."""
    return base.replace(**{name: value for name, value in NEUTRAL.items() if name in swept})


def _line(axis: Axis) -> Line:
    assert axis.setting is not None
    values = axis.distribution.grid_values()
    assert values is not None, "the spec refuses a grid over a range"
    if not isinstance(values, range):
        checked = [axis.assignment(value)[axis.setting] for value in values]
        values = tuple(dict.fromkeys(checked))
        twice = len(checked) - len(values)
        repeats = {f"{axis.label} lists a value twice": twice} if twice else {}
        return Line(axis.setting, values, len(checked), repeats)
    return Line(axis.setting, values, len(values), {})


def _combinations(group: Sequence[Axis], base: TrainConfig) -> Combinations:
    lists = [axis.distribution.grid_values() or () for axis in group]
    points = math.prod(len(values) for values in lists)
    if points > MAX_BLOCK:
        names = ", ".join(axis.label for axis in group)
        raise SweepError(
            f"{group[0].where} {names} make {points:,} combinations; {MAX_BLOCK:,} is the most"
        )
    choices = [
        [axis.assignment(value) for value in values]
        for axis, values in zip(group, lists, strict=True)
    ]
    settings = _settings(group)
    rows: list[Assignment] = []
    positions: dict[tuple[Any, ...], int] = {}
    repeats: Counter[str] = Counter()
    for parts in itertools.product(*choices):
        row: Assignment = {}
        for part in parts:
            row.update(part)
        config = _build(base, row, group[-1])
        key = _key(settings, config.cell_settings)
        if key in positions:
            repeats[_why(rows[positions[key]], row, config)] += 1
        else:
            positions[key] = len(rows)
            rows.append(row)
    return Combinations(settings, rows, positions, points, dict(repeats))


def _why(first: Assignment, second: Assignment, config: TrainConfig) -> str:
    """Say why two combinations of a block are one cell."""
    differing = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if not differing:
        return f"{', '.join(first)}: the same values are listed twice"
    if differing == ["device"]:
        return "device is recorded, and no part of a cell"
    gates = [link[0] for link in LINKS if set(link[1:]) & set(differing)]
    gate = ", ".join(f"{name}={config.value(name)}" for name in gates)
    return f"{gate} does not read {', '.join(differing)}"


def _build(base: TrainConfig, settings: Assignment, axis: Axis) -> TrainConfig:
    try:
        return on_base(base, settings)
    except ConfigError as error:
        raise SweepError(f"{axis.where} {error}") from error

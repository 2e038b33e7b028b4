"""The plan: every run a sweep stands for, in order, and what of it the run folders already hold.

Runs come seed by seed, and within a seed arm by arm: stopped half-way, a sweep has complete pairs.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.runs import SETTLED, FoundRun
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.file.axes import seeds_from_count
from groupnorm_bench.sweep.file.spec import SweepSpec
from groupnorm_bench.sweep.plan.batches import check_batches
from groupnorm_bench.sweep.plan.grid import Grid
from groupnorm_bench.sweep.plan.networks import check_networks, check_trial
from groupnorm_bench.sweep.plan.space import choose_cell, resolved, shares_of

LARGE = 1_000
"""A plan with more runs to do than this is confirmed before it starts."""
MAX_POINTS = 10**9
_DRAWS_PER_CELL = 1_000
"""Draws in a row without a new cell before a random search says that it has them all."""


class Cells(Protocol):
    """The distinct cells of a plan, each with a position."""

    @property
    def size(self) -> int: ...
    def run(self, position: int, seed: int) -> TrainConfig: ...
    def find(self, config: TrainConfig) -> int | None: ...


class Picked:
    """Some cells of a grid, in the order in which a random search drew them."""

    def __init__(self, grid: Grid, chosen: Sequence[int]) -> None:
        self._grid, self._chosen = grid, chosen
        self._positions = {place: i for i, place in enumerate(chosen)}

    @property
    def size(self) -> int:
        return len(self._chosen)

    def run(self, position: int, seed: int) -> TrainConfig:
        """Build the run of the cell drawn at `position`, with this seed."""
        return self._grid.run(self._chosen[position], seed)

    def find(self, config: TrainConfig) -> int | None:
        """Return the position of the cell that `config` belongs to, if it was drawn."""
        place = self._grid.find(config)
        return None if place is None else self._positions.get(place)


class Listed:
    """Cells drawn one by one from ranges."""

    def __init__(self, configs: Sequence[TrainConfig]) -> None:
        self._configs = configs
        self._positions = {config.cell: i for i, config in enumerate(configs)}

    @property
    def size(self) -> int:
        return len(self._configs)

    def run(self, position: int, seed: int) -> TrainConfig:
        """Return the run of the cell at `position`, with this seed."""
        return self._configs[position].replace(seed=seed)

    def find(self, config: TrainConfig) -> int | None:
        """Return the position of the cell that `config` belongs to, if it is listed."""
        return self._positions.get(config.cell)


class Runs(Sequence[TrainConfig]):
    """Cells x seeds, seeds outermost, cut off at a cap; each run is built when asked for."""

    def __init__(self, cells: Cells, seeds: Sequence[int], cap: int | None) -> None:
        self._cells, self._seeds = cells, seeds
        self._length = min(cells.size * len(seeds), math.inf if cap is None else cap)

    def __len__(self) -> int:
        return int(self._length)

    @overload
    def __getitem__(self, index: int) -> TrainConfig: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrainConfig]: ...
    def __getitem__(self, index: int | slice) -> TrainConfig | Sequence[TrainConfig]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        repeat, position = divmod(index % len(self), self._cells.size)
        return self._cells.run(position, self._seeds[repeat])

    def __contains__(self, config: object) -> bool:
        if not isinstance(config, TrainConfig) or config.seed not in self._seeds:
            return False
        position = self._cells.find(config)
        if position is None:
            return False
        return self._seeds.index(config.seed) * self._cells.size + position < len(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a sweep will do, known before anything is spent."""

    spec: SweepSpec
    base: TrainConfig
    """Settings that the sweep does not name."""
    seeds: tuple[int, ...]
    search_seed: int
    """What random and bayes draw with; the same seed draws the same cells."""
    grid_points: int | None
    """Points of the file's grid, as W&B counts them, times seeds; None where it has no end."""
    duplicates: Mapping[str, int]
    """Why points of the grid are not runs of their own, and how many."""
    num_cells: int
    num_runs: int
    runs: Sequence[TrainConfig]
    """Lazy: iterate, do not copy. Empty for bayes, which chooses as results arrive."""
    settled: Mapping[str, str] = field(repr=False)
    """Its runs whose folders hold a result: name to cell."""
    failed: Mapping[str, str] = field(repr=False)
    """Its runs that failed before and are left alone: name to cell."""
    notes: tuple[str, ...] = ()
    """What a person should know of how it came about, a line each."""

    @property
    def num_reused(self) -> int:
        return min(len(self.settled), self.num_runs)

    @property
    def num_failed(self) -> int:
        return min(len(self.failed), self.num_runs - self.num_reused)

    @property
    def num_todo(self) -> int:
        return self.num_runs - self.num_reused - self.num_failed

    @property
    def complete_seeds(self) -> int:
        """Seeds that every cell is run with; a run_cap may leave fewer than there are."""
        return min(len(self.seeds), self.num_runs // max(self.num_cells, 1))

    @property
    def is_large(self) -> bool:
        """Whether a person should confirm it before it starts."""
        return self.num_todo > LARGE

    def todo(self) -> Iterator[TrainConfig]:
        """Yield the runs to do, in order; none for bayes, whose source chooses them."""
        skipped = {**self.settled, **self.failed}
        for config in self.runs:
            if not skipped or config.name not in skipped:
                yield config

    def __contains__(self, config: TrainConfig) -> bool:
        """Return whether this run is one the sweep asks for, or for bayes one it could choose."""
        if self.spec.method == "bayes":
            if config.seed not in self.seeds:
                return False
            return shares_of(self.spec.axes, self.base, config) is not None
        return config in self.runs


def build_plan(
    spec: SweepSpec,
    *,
    base: TrainConfig | None = None,
    seeds: int | None = None,
    run_cap: int | None = None,
    search_seed: int = 0,
    found: Iterable[FoundRun] = (),
    retry_failed: bool = False,
    resolve_dataset: Callable[[str], str] = str,
) -> Plan:
    """Plan a sweep.

    Args:
        spec: the sweep file.
        base: settings that the file does not name; the defaults if None.
        seeds: how many, in place of the file's; 0 to `seeds` - 1.
        run_cap: the most runs, in place of the file's.
        search_seed: what random and bayes draw with.
        found: the run folders at hand; those of this plan's runs are not run again.
        retry_failed: run again what failed before.
        resolve_dataset: turns "auto" into the data set it stands for here.

    Raises:
        SweepError: a point of it is not valid, or it has no end.
    """
    base = TrainConfig() if base is None else base
    if spec.trial is not None:
        if not isinstance(base, OwnConfig):
            base = OwnConfig(trial=spec.trial)
    elif (
        "dataset" not in spec.settings
    ):  # else nothing reads the base's, and asking may take seconds
        base = base.replace(dataset=resolve_dataset(base.dataset))
    repeats = spec.seeds if seeds is None else seeds_from_count(seeds)
    cap = spec.run_cap if run_cap is None else run_cap
    if cap is not None and cap < 1:
        raise SweepError(f"run_cap={cap} is not a number of runs; use 1 or more")
    if spec.trial is None:
        axes = tuple(resolved(axis, resolve_dataset) for axis in spec.axes)
        spec = dataclasses.replace(spec, axes=axes)
    shape = _SHAPES[spec.method](spec, base, repeats, cap, search_seed)
    shape["notes"] = (*spec.notes, *shape.get("notes", ()))
    plan = Plan(
        spec=spec,
        base=base,
        seeds=repeats,
        search_seed=search_seed,
        settled={},
        failed={},
        **shape,
    )
    plan = with_found(plan, found, retry_failed)
    if plan.num_todo:  # a result is read without the module of its norm
        if spec.trial is not None:
            check_trial(spec)
        else:
            check_networks(spec, base)
            is_cut = spec.method == "grid" and cap is not None
            check_batches(spec, base, plan.runs if is_cut else None)
    return plan


def with_found(plan: Plan, found: Iterable[FoundRun], retry_failed: bool) -> Plan:
    """Return the plan knowing which of its runs have a result, and which failed before."""
    names: dict[str, dict[str, str]] = {"settled": {}, "failed": {}}
    for config, status in ((run.result.config, run.result.status) for run in found):
        kind = "settled" if status in SETTLED else status
        if kind in names and config in plan:
            names[kind][config.name] = config.cell
    failed = {} if retry_failed else names["failed"]
    for name in names["settled"]:
        failed.pop(name, None)
    return dataclasses.replace(plan, settled=names["settled"], failed=failed)


def _grid(
    spec: SweepSpec,
    base: TrainConfig,
    seeds: tuple[int, ...],
    cap: int | None,
    search_seed: int,
) -> dict[str, Any]:
    grid = Grid(spec.axes, base)
    points = grid.points * len(seeds)
    if points > MAX_POINTS:
        raise SweepError(
            f"{spec.path} is a grid of {points:.3g} points; {MAX_POINTS:,} is the most: thin its "
            "lists, or use method random with a run_cap"
        )
    return _shape(
        grid,
        seeds,
        cap,
        grid_points=points,
        duplicates={why: count * len(seeds) for why, count in grid.duplicates().items()},
        notes=_what_is_cut(grid.size, len(seeds), cap),
    )


def _what_is_cut(cells: int, seeds: int, cap: int | None) -> tuple[str, ...]:
    if cap is None or cap >= cells * seeds:
        return ()
    kept = f"{cap // cells:,} of {seeds:,} seeds" if cap >= cells else f"{cap:,} of {cells:,} cells"
    left_out = f"{cells * seeds - cap:,} of {cells * seeds:,} runs"
    return (f"run_cap={cap} leaves {left_out} out; complete are {kept}",)


def _random(
    spec: SweepSpec,
    base: TrainConfig,
    seeds: tuple[int, ...],
    cap: int | None,
    search_seed: int,
) -> dict[str, Any]:
    draw = random.Random(search_seed)
    wanted = None if cap is None else math.ceil(cap / len(seeds))
    cells: Cells
    if all(axis.distribution.is_finite for axis in spec.axes):
        grid = Grid(spec.axes, base)
        count = grid.size if wanted is None else min(wanted, grid.size)
        if count * len(seeds) > MAX_POINTS:
            raise SweepError(f"{spec.path} has {grid.size:.3g} cells to draw from; add a run_cap")
        cells = Picked(grid, _sample(draw, grid.size, count))
        return _shape(cells, seeds, cap, grid_points=grid.points * len(seeds))
    if wanted is None:
        raise SweepError(
            f"{spec.path} draws from a range and has no run_cap, so it never ends; "
            "add `run_cap: 50`"
        )
    cells = Listed(_draw_cells(spec, base, wanted, draw))
    notes: tuple[str, ...] = ()
    if cells.size < wanted:
        notes = (f"only {cells.size} distinct cells were found for a run_cap of {cap}",)
    return _shape(cells, seeds, cap, notes=notes)


def _bayes(
    spec: SweepSpec,
    base: TrainConfig,
    seeds: tuple[int, ...],
    cap: int | None,
    search_seed: int,
) -> dict[str, Any]:
    if cap is None:
        raise SweepError(
            f"{spec.path} has method bayes and no run_cap, so it never ends; add `run_cap: 50`"
        )
    if all(axis.distribution.is_finite for axis in spec.axes):
        Grid(spec.axes, base)  # refuses, before anything runs, what cannot be built
    return {
        "grid_points": None,
        "duplicates": {},
        "num_cells": math.ceil(cap / len(seeds)),
        "num_runs": cap,
        "runs": (),
        "notes": ("bayes chooses its cells as results arrive",),
    }


_SHAPES = {"grid": _grid, "random": _random, "bayes": _bayes}


def _shape(
    cells: Cells,
    seeds: tuple[int, ...],
    cap: int | None,
    *,
    grid_points: int | None = None,
    duplicates: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    runs = Runs(cells, seeds, cap)
    return {
        "grid_points": grid_points,
        "duplicates": duplicates or {},
        "num_cells": min(cells.size, len(runs)),
        "num_runs": len(runs),
        "runs": runs,
        "notes": notes,
    }


def _sample(draw: random.Random, size: int, count: int) -> list[int]:
    """Draw `count` distinct positions below `size`, which may be beyond what `range` takes."""
    if 2 * count >= size:
        return draw.sample(range(size), count)
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        chosen[draw.randrange(size)] = None
    return list(chosen)


def draw_share(draw: random.Random) -> float:
    """Draw a number between 0 and 1, both excluded, as quantiles of unbounded kinds need."""
    return (draw.getrandbits(52) + 0.5) / 2**52


def _draw_cells(
    spec: SweepSpec,
    base: TrainConfig,
    count: int,
    draw: random.Random,
) -> list[TrainConfig]:
    """Draw distinct cells; a draw that no config can be built from is drawn again."""
    cells: dict[str, TrainConfig] = {}
    problem: ConfigError | None = None
    misses = 0
    while len(cells) < count and misses < _DRAWS_PER_CELL:
        try:
            config = choose_cell(spec.axes, base, lambda axis: draw_share(draw))
        except ConfigError as error:
            problem, misses = error, misses + 1
            continue
        misses = misses + 1 if config.cell in cells else 0
        cells.setdefault(config.cell, config)
    if not cells and problem is not None:
        raise SweepError(f"{spec.path}: none of {misses} draws is valid: {problem}") from problem
    return list(cells.values())

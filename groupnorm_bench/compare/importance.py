"""Which setting matters: variance shares of the design, and the numbers that W&B shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.errors import CompareError
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.settings.fields import ARM_SETTINGS
from groupnorm_bench.wording import count

MOST_CELLS = 1_000
"""More of them take minutes, and gigabytes."""
FEWEST_SEEDS = 3
"""Under this many seeds per cell the residual, the yardstick of all shares, is too uncertain."""
_RESAMPLES = 1_000
TREES = 200
_SEED = 20180613
GROUPS = "groups within norm"
SEED = "seed (residual)"

_Columns = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A source's share of the variance of a metric over all runs, as a fraction."""

    source: str
    share: float
    ci_low: float | None
    """Percentile bootstrap over seeds; None where the design is too thin."""
    ci_high: float | None
    expected_by_chance: float
    """What a source without any effect would show on average, from the spread over seeds."""
    degrees: int


@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceShares:
    """Shares that sum to 1, largest first, with the residual last."""

    metric: str
    shares: tuple[Share, ...]
    n_cells: int
    n_seeds: int
    balanced: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForestImportance:
    """What W&B's importance panel shows of one config column."""

    column: str
    importance: float
    """Mean decrease in impurity of a random forest; all columns sum to 1."""
    correlation: float | None
    """Pearson's, with the metric; None for a column without spread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """The forest's importances, largest first, and what to hold against them."""

    metric: str
    columns: tuple[ForestImportance, ...]
    notes: tuple[str, ...]


def variance_shares(
    rows: Iterable[RunRow], metric: str = "test/accuracy", alpha: float = 0.05
) -> VarianceShares:
    """Return what share of the metric's variance each setting explains, and the seed.

    Sums of squares of the factorial design: main effects, groups nested inside the norms that
    have them, norm x batch size, all other interactions together, and the residual, which is the
    spread over seeds within cells. In a balanced design they are orthogonal, so no order matters.

    Args:
        rows: runs; only finished ones with the metric, and only seeds that every cell has, count.
        metric: a summary metric.
        alpha: 1 minus the confidence of the bootstrap over seeds.

    Raises:
        CompareError: fewer than two cells share a seed, or there are more than `MOST_CELLS`.
    """
    firsts, values = _balanced_values(rows, metric)
    if len(firsts) > MOST_CELLS:
        raise CompareError(
            f"{len(firsts):,} cells are more than the {MOST_CELLS:,} of which shares are reckoned; "
            "narrow them by --where"
        )
    n_cells, n_seeds = values.shape
    bases = _bases(_terms(firsts), n_cells)
    shares = _shares(values, bases)
    degrees = [basis.shape[1] for _, basis in bases] + [n_cells * (n_seeds - 1)]
    chance = shares[-1] / degrees[-1] if degrees[-1] else 0.0
    thin = n_seeds < FEWEST_SEEDS
    low, high = (None, None) if thin else _bootstrap(values, bases, alpha)
    found = [
        Share(
            source=name,
            share=float(shares[i]),
            ci_low=None if low is None else float(low[i]),
            ci_high=None if high is None else float(high[i]),
            expected_by_chance=float(chance * degrees[i]),
            degrees=degrees[i],
        )
        for i, name in enumerate([*(name for name, _ in bases), SEED])
    ]
    balanced = _is_factorial(firsts)
    return VarianceShares(
        metric=metric,
        shares=(*sorted(found[:-1], key=lambda share: -share.share), found[-1]),
        n_cells=n_cells,
        n_seeds=n_seeds,
        balanced=balanced,
        notes=tuple(_thinness(n_seeds, balanced)),
    )


def _thinness(n_seeds: int, balanced: bool) -> list[str]:
    notes = []
    if n_seeds < FEWEST_SEEDS:
        notes.append(
            f"too thin: {count(n_seeds, 'seed')} in every cell, and it takes {FEWEST_SEEDS} "
            "to tell settings from seeds"
        )
    if not balanced:
        notes.append(
            "too thin: not every combination of settings was run, so the shares depend on the "
            "order of the settings"
        )
    return notes


def _balanced_values(rows: Iterable[RunRow], metric: str) -> tuple[list[RunRow], _Columns]:
    """Return a row of each cell, and the values [cells, seeds] over the seeds they all have."""
    cells: dict[str, dict[int, RunRow]] = {}
    for row in rows:
        if row.status == "finished" and row.metric(metric) is not None:
            cells.setdefault(row.cell, {})[row.seed] = row
    shared = (
        sorted(set.intersection(*(set(by_seed) for by_seed in cells.values()))) if cells else []
    )
    if len(cells) < 2 or not shared:
        raise CompareError(
            f"{count(len(cells), 'cell')} with {count(len(shared), 'finished seed')} in common; "
            "importance takes 2 cells with a seed in common: gnbench sweep"
        )
    values = np.array(
        [[by_seed[seed].printed(metric) for seed in shared] for by_seed in cells.values()],
        dtype=float,
    )
    return [by_seed[shared[0]] for by_seed in cells.values()], values


def _factors(firsts: Sequence[RunRow]) -> dict[str, list[Any]]:
    """Return the settings that vary over the cells, by name: norm first, groups left out."""
    settings = [dict([row.factor]) | row.setting for row in firsts]
    names = dict.fromkeys(name for setting in settings for name in setting)
    columns = {name: [setting.get(name) for setting in settings] for name in names}
    return {n: c for n, c in columns.items() if len({str(value) for value in c}) > 1}


def _terms(firsts: Sequence[RunRow]) -> list[tuple[str, list[Any]]]:
    """Return each source's name and the label of every cell in it, in the order they enter."""
    factors = _factors(firsts)
    terms: list[tuple[str, list[Any]]] = list(factors.items())
    arms = [row.arm for row in firsts]
    if len(set(arms)) > len({row.factor for row in firsts}):
        terms.insert(1 if "norm" in factors else 0, (GROUPS, arms))
    if "norm" in factors and "batch_size" in factors:
        pairs = list(zip(factors["norm"], factors["batch_size"], strict=True))
        terms.append(("norm x batch_size", pairs))
    terms.append(("other interactions", list(range(len(firsts)))))
    return terms


def _bases(terms: list[tuple[str, list[Any]]], n_cells: int) -> list[tuple[str, _Columns]]:
    """Return an orthonormal basis [cells, degrees] of what each term adds to those before it."""
    known = np.full((n_cells, 1), n_cells**-0.5)
    bases = []
    for name, labels in terms:
        levels = {str(label): i for i, label in enumerate(dict.fromkeys(map(str, labels)))}
        dummies = np.zeros((n_cells, len(levels)))
        dummies[np.arange(n_cells), [levels[str(label)] for label in labels]] = 1.0
        new = dummies - known @ (known.T @ dummies)
        left, sizes, _ = np.linalg.svd(new, full_matrices=False)
        basis = left[:, sizes > 1e-9]
        if basis.shape[1]:
            bases.append((name, basis))
            known = np.hstack([known, basis])
    return bases


def _shares(
    values: _Columns, bases: list[tuple[str, _Columns]], residual_factor: float = 1.0
) -> _Columns:
    """Return each term's share of the total sum of squares, and the residual's at the end."""
    n_seeds = values.shape[1]
    means = values.mean(axis=1)
    squares = [n_seeds * float(((basis.T @ means) ** 2).sum()) for _, basis in bases]
    squares.append(residual_factor * float(((values - means[:, None]) ** 2).sum()))
    total = sum(squares)
    if total <= 1e-24 * float((values**2).sum()):  # all equal, but for rounding
        return np.zeros(len(squares))
    return np.array(squares) / total


def _bootstrap(
    values: _Columns, bases: list[tuple[str, _Columns]], alpha: float
) -> tuple[_Columns, _Columns]:
    rng = np.random.default_rng(_SEED)
    n_seeds = values.shape[1]
    factor = n_seeds / (n_seeds - 1)  # seeds drawn twice make the residual smaller by this much
    draws = np.array(
        [
            _shares(values[:, rng.integers(0, n_seeds, n_seeds)], bases, factor)
            for _ in range(_RESAMPLES)
        ]
    )
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2], axis=0)
    return low, high


def _is_factorial(firsts: Sequence[RunRow]) -> bool:
    """Return whether every arm was run at every combination of the other settings' values."""
    kind = firsts[0].factor[0]
    factors = {name: values for name, values in _factors(firsts).items() if name != kind}
    expected = len({row.arm for row in firsts})
    for values in factors.values():
        expected *= len({str(value) for value in values})
    return expected == len(firsts)


def forest_importance(rows: Iterable[RunRow], metric: str = "test/accuracy") -> Forest:
    """Return a random forest's importances and the linear correlations, as W&B's panel has them.

    Columns are the settings that vary; a word becomes one column per value, and a number that an
    arm does not have (groups) is 0, as in W&B.

    Args:
        rows: runs; only finished ones with the metric count.
        metric: a summary metric.

    Raises:
        CompareError: no setting varies.
    """
    from sklearn.ensemble import RandomForestRegressor

    kept = [row for row in rows if row.status == "finished" and row.metric(metric) is not None]
    columns = _forest_columns(kept)
    if not columns:
        raise CompareError("no setting varies over the finished runs, so none has importance")
    target = np.array([row.printed(metric) for row in kept], dtype=float)
    matrix = np.array(list(columns.values()), dtype=float).T  # [runs, columns]
    forest = RandomForestRegressor(n_estimators=TREES, random_state=_SEED, n_jobs=1)
    forest.fit(matrix, target)
    found = [
        ForestImportance(
            column=name,
            importance=float(forest.feature_importances_[i]),
            correlation=_correlation(matrix[:, i], target),
        )
        for i, name in enumerate(columns)
    ]
    found.sort(key=lambda column: -column.importance)
    notes = ["no error bars, and columns that go together share their importance by chance"]
    if len(kept) < 10 * len(columns):
        notes.append(f"too thin: {count(len(kept), 'run')} for {count(len(columns), 'column')}")
    if not metric_spec(metric).larger_is_better:
        notes.append("a positive correlation is a worse value of this metric")
    return Forest(metric=metric, columns=tuple(found), notes=tuple(notes))


def _forest_columns(rows: Sequence[RunRow]) -> dict[str, list[float]]:
    kind = rows[0].factor[0] if rows else "norm"
    own = ARM_SETTINGS[1:] if kind == "norm" else ()
    names = dict.fromkeys([kind, *own, *(n for row in rows for n in row.setting)])
    columns: dict[str, list[float]] = {}
    for name in names:
        values = [row.factor[1] if name == kind else row.value(name) for row in rows]
        if any(isinstance(value, str) for value in values):
            for level in dict.fromkeys(str(value) for value in values):
                columns[f"{name}={level}"] = [float(str(value) == level) for value in values]
        else:
            columns[name] = [float(value or 0) for value in values]
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _correlation(column: _Columns, target: _Columns) -> float | None:
    if np.ptp(target) == 0:
        return None
    return float(np.corrcoef(column, target)[0, 1])

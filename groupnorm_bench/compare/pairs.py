"""Two arms seed by seed: which differences count for a verdict that may be read at any time.

Seeds come in ascending order, and only up to the first that is not settled in both arms: whoever
could leave out the run that does not suit would choose the result. A run that diverged is settled,
and so is a pruned one: lost, they give no difference, and are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.stats import Floats

if TYPE_CHECKING:
    from groupnorm_bench.compare.rows import RunRow

Bools = npt.NDArray[np.bool_]

LOST = ("finished", "diverged", "pruned")
"""Statuses of a run without the metric that no retry will mend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs that may be compared: one setting, computed by one version of the code."""

    setting: dict[str, Any]
    code: str
    label: str
    arms: dict[str, dict[int, RunRow]]
    """Finished runs with the metric, by arm, then by seed."""
    lost: dict[str, list[RunRow]]
    """The others, by arm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Differences, arm minus baseline, in the order of their seeds, as far as all are settled."""

    seeds: tuple[int, ...]
    differences: Floats
    """NaN where either run was lost. In the printed unit."""
    at_chance: Floats
    """The same with lost runs scored at the metric's chance value; NaN where it has none."""
    lost_arm: Bools
    lost_baseline: Bools
    ended_by: str = ""
    """Why later seeds do not count, in words; empty where there are none."""

    @property
    def kept(self) -> Floats:
        """The differences of pairs of which neither run was lost."""
        return self.differences[~np.isnan(self.differences)]

    @property
    def scored(self) -> Floats | None:
        """The differences with lost runs at chance; None where nothing was lost, or no chance."""
        if not (self.lost_arm | self.lost_baseline).any() or np.isnan(self.at_chance).any():
            return None
        return self.at_chance


def pair_up(
    arms: tuple[str, str],
    finished: tuple[dict[int, RunRow], dict[int, RunRow]],
    lost: tuple[Sequence[RunRow], Sequence[RunRow]],
    metric: str,
    chance: float | None,
) -> Pairs:
    """Return the pairs of two arms at one setting.

    Args:
        arms: the arm and the baseline, for messages.
        finished: of each, the runs with the metric, by seed.
        lost: of each, the others.
        metric: a summary metric.
        chance: what guessing scores, in the printed unit; None where that makes no sense.
    """
    others = tuple({row.seed: row for row in rows} for rows in lost)
    every = sorted({*finished[0], *finished[1], *others[0], *others[1]})
    seeds: list[int] = []
    values: list[tuple[float, float]] = []
    ended_by = ""
    for place, seed in enumerate(every):
        open_run = _open_run(arms, finished, others, seed)
        if open_run:
            later = [s for s in every[place:] if s in finished[0] and s in finished[1]]
            ended_by = open_run if later else ""
            break
        seeds.append(seed)
        values.append((_value(finished[0], seed, metric), _value(finished[1], seed, metric)))
    table = np.array(values, dtype=float).reshape(-1, 2)
    is_lost = np.isnan(table)
    scored = np.where(is_lost, np.nan if chance is None else chance, table)
    return Pairs(
        seeds=tuple(seeds),
        differences=table[:, 0] - table[:, 1],
        at_chance=scored[:, 0] - scored[:, 1],
        lost_arm=is_lost[:, 0],
        lost_baseline=is_lost[:, 1],
        ended_by=ended_by,
    )


def _open_run(
    arms: tuple[str, str],
    finished: tuple[dict[int, RunRow], dict[int, RunRow]],
    others: tuple[dict[int, RunRow], ...],
    seed: int,
) -> str:
    """Return why this seed is not settled, as `seed 3 of batch failed`; empty where it is."""
    for arm, runs, rest in zip(arms, finished, others, strict=True):
        if seed in runs:
            continue
        if seed not in rest:
            return f"seed {seed} of {arm} has not run"
        if rest[seed].status not in LOST:
            return f"seed {seed} of {arm} {_was(rest[seed].status)}"
    return ""


def _was(status: str) -> str:
    return "failed" if status == "failed" else f"is {status}"


def _value(runs: dict[int, RunRow], seed: int, metric: str) -> float:
    value = runs[seed].printed(metric) if seed in runs else None
    return np.nan if value is None else value


def combine(parts: Sequence[Pairs], weights: Sequence[float]) -> Pairs:
    """Return the weighted sum of differences at several settings, seed by seed.

    A seed counts where it is settled at every setting; it is lost where it is lost at one.
    """
    shared = _common_start([part.seeds for part in parts])
    ended_by = next((part.ended_by for part in parts if part.ended_by), "")
    places = slice(len(shared))

    def stacked(name: str) -> npt.NDArray[Any]:
        return np.stack([getattr(part, name)[places] for part in parts])  # [settings, seeds]

    return Pairs(
        seeds=tuple(shared),
        differences=np.asarray(weights) @ stacked("differences"),
        at_chance=np.asarray(weights) @ stacked("at_chance"),
        lost_arm=stacked("lost_arm").max(axis=0),
        lost_baseline=stacked("lost_baseline").max(axis=0),
        ended_by=ended_by,
    )


def _common_start(every: Sequence[tuple[int, ...]]) -> list[int]:
    start = []
    for seeds in zip(*every, strict=False):
        if len(set(seeds)) > 1:
            break
        start.append(seeds[0])
    return start


def slope_weights(places: Sequence[float]) -> list[float]:
    """Return the weights that make a least-squares slope per doubling of what `places` measure."""
    x = np.log2(np.asarray(places, dtype=float))
    x = x - x.mean()
    return list(x / (x**2).sum())

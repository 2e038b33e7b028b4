"""Arms over all the settings that they share: means, interquartile means, who beats whom.

As rliable does it (Agarwal et al. 2021): runs are drawn anew within each setting, so that no
setting counts for more than another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from groupnorm_bench.compare.stats import Floats
from groupnorm_bench.metrics import metric_spec

if TYPE_CHECKING:
    from groupnorm_bench.compare.pairs import Group


_RESAMPLES, _FEWEST = 2_000, 200
_DRAWS = 20_000_000
"""Runs that are drawn for an arm: of more than 10,000 there are fewer resamples, which many runs
need less, but never under `_FEWEST`."""
_AT_ONCE = 2**22
"""Numbers that are held at once to count who beats whom."""
_SEED = 20180613
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Aggregate:
    """One arm over the settings that all arms have, in the printed unit."""

    arm: str
    n_settings: int
    n: int
    mean: float
    mean_low: float
    mean_high: float
    iqm: float
    """Interquartile mean: of the middle half of all runs."""
    iqm_low: float
    iqm_high: float
    improvement: float | None
    """Chance that it beats the baseline at a setting, ties half; None for the baseline itself."""
    improvement_low: float | None
    improvement_high: float | None


def aggregate(
    groups: Sequence[Group], arms: Sequence[str], baseline: str, metric: str, alpha: float
) -> tuple[Aggregate, ...]:
    """Return each arm's aggregate; empty where under two settings have all the arms.

    Intervals are percentiles of a bootstrap, stratified by setting.
    """
    shared = [group for group in groups if set(arms) <= set(group.arms)]
    if len(shared) < 2 or any(len(g.arms[arm]) < 2 for g in shared for arm in arms):
        return ()
    values = {
        arm: [
            np.array([row.printed(metric) for row in g.arms[arm].values()], dtype=float)
            for g in shared
        ]
        for arm in arms
    }
    return tuple(_one(arm, values, baseline, metric, alpha) for arm in arms)


def _one(
    arm: str, values: dict[str, list[Floats]], baseline: str, metric: str, alpha: float
) -> Aggregate:
    rng = np.random.default_rng(_SEED)
    ours, theirs = values[arm], values[baseline]
    resamples = max(_FEWEST, min(_RESAMPLES, _DRAWS // sum(map(len, ours))))
    drawn = [_draws(rng, x, resamples) for x in ours]  # which runs, at each setting
    again = [x[which] for x, which in zip(ours, drawn, strict=True)]  # [resamples, runs]
    means = np.stack([x.mean(axis=1) for x in again]).mean(axis=0)
    iqms = interquartile_mean(np.concatenate(again, axis=1))
    beats: tuple[float | None, float | None, float | None] = (None, None, None)
    if arm != baseline:
        sign = 1 if metric_spec(metric).larger_is_better else -1
        settings = list(zip(ours, theirs, strict=True))
        every = [(np.arange(len(a))[None], np.arange(len(b))[None]) for a, b in settings]
        seen = [_wins(sign * a, sign * b, *w)[0] for (a, b), w in zip(settings, every, strict=True)]
        shares = [
            _wins(sign * a, sign * b, which, _draws(rng, b, resamples))
            for (a, b), which in zip(settings, drawn, strict=True)
        ]
        beats = (float(np.mean(seen)), *_middle(np.mean(shares, axis=0), alpha))
    mean_low, mean_high = _middle(means, alpha)
    iqm_low, iqm_high = _middle(iqms, alpha)
    return Aggregate(
        arm=arm,
        n_settings=len(ours),
        n=sum(map(len, ours)),
        mean=float(np.mean([x.mean() for x in ours])),
        mean_low=mean_low,
        mean_high=mean_high,
        iqm=float(interquartile_mean(np.concatenate(ours))),
        iqm_low=iqm_low,
        iqm_high=iqm_high,
        improvement=beats[0],
        improvement_low=beats[1],
        improvement_high=beats[2],
    )


def _draws(rng: np.random.Generator, x: Floats, resamples: int) -> Places:
    """Return which of the runs are drawn, [resamples, runs]."""
    return rng.integers(0, len(x), (resamples, len(x)))


def _wins(a: Floats, b: Floats, drawn_a: Places, drawn_b: Places) -> Floats:
    """Return the share of pairs of runs in which a is above b, ties half; shape [resamples].

    By the ranks of the runs, of which there are n + m, and not over all n times m pairs.

    Args:
        a, b: shapes [n] and [m].
        drawn_a, drawn_b: which of them, [resamples, ...].
    """
    values, ranks = np.unique(np.concatenate([a, b]), return_inverse=True)
    ranks_a, ranks_b = ranks[: len(a)][drawn_a], ranks[len(a) :][drawn_b]
    shares = np.empty(len(drawn_a))
    step = max(1, _AT_ONCE // len(values))
    for start in range(0, len(shares), step):
        some = slice(start, start + step)
        of_a, of_b = (_counts(r[some], len(values)) for r in (ranks_a, ranks_b))
        twice = 2 * of_b.cumsum(axis=1) - of_b  # those of b below count two, those alike one
        shares[some] = (of_a * twice).sum(axis=1)
    return shares / (drawn_a.shape[1] * drawn_b.shape[1]) / 2


def _counts(ranks: Places, kinds: int) -> Places:
    """Return how often each rank is among those of a row, [rows, kinds]."""
    rows = len(ranks)
    places = ranks + kinds * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * kinds).reshape(rows, kinds)


def _middle(draws: Floats, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def interquartile_mean(values: Floats) -> Floats:
    """Return the mean without the lowest and the highest quarter, along the last axis."""
    cut = values.shape[-1] // 4
    ordered = np.sort(values, axis=-1)
    return ordered[..., cut : values.shape[-1] - cut].mean(axis=-1)

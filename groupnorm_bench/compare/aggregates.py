"""Arms over all the settings that they share: means, interquartile means, who beats whom.

As rliable does it (Agarwal et al. 2021): runs are drawn anew within each setting, so that no
setting counts for more than another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from groupnorm_bench.compare.stats import Floats
from groupnorm_bench.metrics import metric_spec

if TYPE_CHECKING:
    from groupnorm_bench.compare.pairs import Group


_RESAMPLES = 2_000
_SEED = 20180613


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
    drawn = [_draws(rng, x) for x in ours]  # [resamples, runs] at each setting
    means = np.stack([x.mean(axis=1) for x in drawn]).mean(axis=0)
    iqms = interquartile_mean(np.concatenate(drawn, axis=1))
    beats: tuple[float | None, float | None, float | None] = (None, None, None)
    if arm != baseline:
        sign = 1 if metric_spec(metric).larger_is_better else -1
        seen = float(
            np.mean([_wins(sign * a, sign * b) for a, b in zip(ours, theirs, strict=True)])
        )
        again = [_wins(sign * a, sign * _draws(rng, b)) for a, b in zip(drawn, theirs, strict=True)]
        beats = (seen, *_middle(np.mean(again, axis=0), alpha))
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


def _draws(rng: np.random.Generator, x: Floats) -> Floats:
    return x[rng.integers(0, len(x), (_RESAMPLES, len(x)))]


def _wins(a: Floats, b: Floats) -> Floats:
    """Return the share of pairs of runs in which a is above b, ties half."""
    return (np.sign(a[..., :, None] - b[..., None, :]) + 1).mean(axis=(-2, -1)) / 2


def _middle(draws: Floats, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def interquartile_mean(values: Floats) -> Floats:
    """Return the mean without the lowest and the highest quarter, along the last axis."""
    cut = values.shape[-1] // 4
    ordered = np.sort(values, axis=-1)
    return ordered[..., cut : values.shape[-1] - cut].mean(axis=-1)

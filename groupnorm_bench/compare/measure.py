"""The numbers of one contrast, before the family decides: pairs, interval, p, effect sizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groupnorm_bench.compare import stats, words
from groupnorm_bench.compare.contrast import Contrast, DiscordantImages
from groupnorm_bench.compare.order import describe
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.metrics import metric_spec


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


def measure(
    group: Group, arm: str, baseline: str, metric: str, alpha: float, margin: float | None
) -> Contrast:
    """Return the contrast with all its numbers but those that need the family."""
    ours, theirs = group.arms[arm], group.arms[baseline]
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    kept = [
        [runs[seed] for seed in seeds] if seeds else list(runs.values()) for runs in (ours, theirs)
    ]
    a, b = (np.array([row.printed(metric) for row in rows], dtype=float) for rows in kept)
    if margin is None:
        margin = _standard_error(metric, kept[1], float(b.mean()))
    contrast = Contrast(
        arm=arm,
        baseline=baseline,
        setting=group.setting,
        code=group.code,
        metric=metric,
        unit=metric_spec(metric).unit,
        n_pairs=len(seeds),
        n_arm=len(a),
        n_baseline=len(b),
        arm_mean=float(a.mean()),
        baseline_mean=float(b.mean()),
        mean_difference=float((a - b).mean()) if seeds else float(a.mean() - b.mean()),
        margin=margin,
        alpha=alpha,
        time_ratio=_time_ratio(*kept),
        label=group.label,
        notes=tuple(_contrast_notes(group, arm, baseline, seeds)),
    )
    if not seeds:
        return _unpaired(contrast, a, b)
    return _paired(contrast, seeds, a, b, kept)


def _contrast_notes(group: Group, arm: str, baseline: str, seeds: tuple[int, ...]) -> list[str]:
    notes = []
    if not seeds:
        notes.append("no seed is in both arms, so nothing pairs; train the same seeds in both")
    else:
        for one, other in ((arm, baseline), (baseline, arm)):
            alone = sorted(group.arms[one].keys() - group.arms[other].keys())
            if alone:
                numbers = ", ".join(map(str, alone))
                notes.append(f"seeds {numbers} of {one} have no partner in {other}: left out")
    for one in (arm, baseline):
        diverged = sum(row.status == "diverged" for row in group.lost.get(one, []))
        if diverged:
            notes.append(
                f"{words.count(diverged, 'run')} of {one} diverged: this speaks of the rest"
            )
    for one in (arm, baseline):
        row = next(iter(group.arms[one].values()))
        if row.chosen:
            live = {name: row.value(name) for name in row.chosen if row.value(name) is not None}
            notes.append(f"{one}: {describe(live, live)} chosen on validation")
    return notes


def _standard_error(metric: str, rows: Sequence[RunRow], mean: float) -> float | None:
    """Return the standard error, in points, of an accuracy on the images it is measured on."""
    part, _, name = metric.partition("/")
    if not name.startswith("accuracy") or part not in ("test", "val"):
        return None
    images = rows[0].num_images(part)
    if images is None:
        return None
    share = min(max(mean / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / images)


def _time_ratio(ours: Sequence[RunRow], theirs: Sequence[RunRow]) -> float | None:
    middles = []
    for rows in (ours, theirs):
        seconds = [row.seconds_per_epoch for row in rows]
        known = [number for number in seconds if number is not None]
        middles.append(float(np.median(known)) if known else 0.0)
    return middles[0] / middles[1] if all(middles) else None


def _paired(
    contrast: Contrast, seeds: tuple[int, ...], a: Any, b: Any, kept: list[list[RunRow]]
) -> Contrast:
    differences = a - b
    sign = 1 if metric_spec(contrast.metric).larger_is_better else -1
    changes: dict[str, Any] = {
        "seeds": seeds,
        "differences": tuple(float(d) for d in differences),
        "sd_difference": float(differences.std(ddof=1)) if len(seeds) > 1 else None,
        "p": stats.sign_flip_p(differences),
        "smallest_p": stats.smallest_p(len(seeds)),
        "correlation": stats.correlation(a, b),
        "effect_size": stats.paired_effect_size(differences),
        "probability_of_improvement": stats.share_above(sign * differences),
    }
    if len(seeds) > 1:
        bootstrap = len(seeds) >= stats.BOOTSTRAP_PAIRS
        interval = stats.bootstrap_interval if bootstrap else stats.student_interval
        low, high = interval(differences, contrast.alpha)
        changes |= {
            "ci_low": low,
            "ci_high": high,
            "interval": "bootstrap" if bootstrap else "student-t",
        }
    if contrast.metric == "test/accuracy":
        changes |= _image_level(seeds, kept, contrast.alpha)
    return dataclasses.replace(contrast, **changes)


def _image_level(seeds: tuple[int, ...], kept: list[list[RunRow]], alpha: float) -> dict[str, Any]:
    """Return what only the per-image hits can tell; nothing where a run lacks them."""
    hits = [[one for row in rows if (one := row.hits()) is not None] for rows in kept]
    lengths = {len(one) for rows in hits for one in rows}
    if any(len(rows) < len(seeds) for rows in hits) or len(lengths) != 1:
        return {}
    arm, baseline = (np.stack(rows).astype(np.int8) for rows in hits)  # [pairs, images]
    differences = arm - baseline
    only_arm, only_baseline = (differences > 0).sum(axis=1), (differences < 0).sum(axis=1)
    p_values = stats.mcnemar_p(only_arm, only_baseline)
    discordant = [
        DiscordantImages(seed=seed, only_arm=int(ours), only_baseline=int(theirs), p=float(p))
        for seed, ours, theirs, p in zip(seeds, only_arm, only_baseline, p_values, strict=True)
    ]
    found: dict[str, Any] = {"discordant": tuple(discordant)}
    if len(seeds) > 1:
        low, high = stats.new_digits_interval(differences, alpha)
        found |= {"new_digits_low": low, "new_digits_high": high}
    return found


def _unpaired(contrast: Contrast, a: Any, b: Any) -> Contrast:
    sign = 1 if metric_spec(contrast.metric).larger_is_better else -1
    changes: dict[str, Any] = {
        "effect_size": stats.unpaired_effect_size(a, b),
        "probability_of_improvement": stats.share_above(sign * np.subtract.outer(a, b)),
    }
    if min(len(a), len(b)) > 1:
        test = stats.welch(a, b, contrast.alpha)
        changes |= {
            "ci_low": test.low,
            "ci_high": test.high,
            "interval": "welch",
            "p": test.p,
            "sd_difference": float(np.sqrt(a.var(ddof=1) + b.var(ddof=1))),
        }
    return dataclasses.replace(contrast, **changes)

"""The numbers of one contrast, before the family decides: pairs, interval, p, effect sizes."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from groupnorm_bench.compare import stats
from groupnorm_bench.compare.anytime import anytime, posterior
from groupnorm_bench.compare.contrast import Contrast, DiscordantImages, Rule
from groupnorm_bench.compare.order import describe
from groupnorm_bench.compare.pairs import LOST, Group, Pairs, combine, pair_up, slope_weights
from groupnorm_bench.compare.question import Question
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.datasets import DATASETS
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.wording import count

_MOST_SEEDS = 30
"""Seeds without a partner that are named."""


def measure(
    group: Group, arm: str, baseline: str, question: Question, rule: Rule, *, details: bool = True
) -> tuple[Contrast, Pairs]:
    """Return the contrast with all its numbers but those that need the family, and its pairs.

    Args:
        details: with the correlation of the arms, the sign-flip test, and what only the hits can
            tell, which are read.
    """
    metric, alpha = question.metric, question.alpha
    spec = metric_spec(metric)
    ours, theirs = group.arms[arm], group.arms[baseline]
    lost = group.lost.get(arm, []), group.lost.get(baseline, [])
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    kept = [
        [runs[seed] for seed in seeds] if seeds else list(runs.values()) for runs in (ours, theirs)
    ]
    a, b = (np.array([row.printed(metric) for row in rows], dtype=float) for rows in kept)
    chance = _chance(metric, kept[1][0])
    pairs = pair_up((arm, baseline), (ours, theirs), lost, metric, chance)
    contrast = Contrast(
        arm=arm,
        baseline=baseline,
        setting=group.setting,
        code=group.code,
        metric=metric,
        unit=spec.unit,
        n_pairs=len(seeds),
        n_arm=len(a),
        n_baseline=len(b),
        arm_mean=float(a.mean()),
        baseline_mean=float(b.mean()),
        mean_difference=float((a - b).mean()) if seeds else float(a.mean() - b.mean()),
        margin=question.margin,
        alpha=alpha,
        rule=rule,
        floor=_floor(metric, kept[1]),
        time_ratio=_time_ratio(*kept),
        label=group.label,
        notes=tuple(_contrast_notes(group, arm, baseline, seeds)),
    )
    if not seeds:
        return _unpaired(contrast, a, b, lost), pairs
    contrast = dataclasses.replace(
        contrast,
        seeds=seeds,
        differences=tuple(float(d) for d in a - b),
        correlation=stats.correlation(a, b) if details else None,
    )
    contrast = with_evidence(contrast, pairs, question, details=details)
    if details and metric == "test/accuracy":
        contrast = _with_images(contrast, kept)
    return contrast, pairs


def with_evidence(
    contrast: Contrast, pairs: Pairs, question: Question, *, details: bool = True
) -> Contrast:
    """Return the contrast with what its differences, and those of the pairs so far, say."""
    differences = np.array(contrast.differences)
    n, alpha, margin, floor = len(differences), contrast.alpha, contrast.margin, contrast.floor
    sign = 1 if metric_spec(contrast.metric).larger_is_better else -1
    share = stats.share_above(sign * differences)
    low, high = stats.share_interval(share, n, alpha)
    changes: dict[str, Any] = {
        "n_prefix": len(pairs.kept),
        "n_settled": len(pairs.seeds),
        "lost_arm": int(pairs.lost_arm.sum()),
        "lost_baseline": int(pairs.lost_baseline.sum()),
        "p": stats.sign_flip_p(differences) if details else None,
        "smallest_p": stats.smallest_p(n),
        "effect_size": stats.paired_effect_size(differences),
        "probability_of_improvement": share,
        "improvement_low": low,
        "improvement_high": high,
    }
    if n > 1:
        test = stats.student_t(differences, alpha, floor=floor, margin=margin)
        changes |= {
            "sd_difference": float(differences.std(ddof=1)),
            "ci_low": test.low,
            "ci_high": test.high,
            "interval": "student-t",
            "t_p": test.p,
            "t_equal_p": test.p_equal,
        }
        below, equal, above = posterior(differences, margin, floor)
        worse, better = (below, above) if sign > 0 else (above, below)
        changes |= {
            "probability_worse": worse,
            "probability_equal": equal,
            "probability_better": better,
        }
    look = question.first_look
    if len(pairs.kept) > 1:
        now = anytime(pairs.kept, alpha, floor=floor, margin=margin, first_look=look)
        changes |= {
            "e_value": now.e_value,
            "anytime_p": now.p,
            "anytime_low": now.low,
            "anytime_high": now.high,
            "equal_p": now.p_equal,
        }
    if pairs.ended_by:
        ended = f"{pairs.ended_by}: {len(pairs.kept)} of {n} pairs count, those before it"
        changes["notes"] = (*contrast.notes, ended)
    scored = pairs.scored
    if scored is not None and len(scored) > 1:
        changes["chance_difference"] = float(scored.mean())
        if contrast.rule == "anytime":
            changes["chance_p"] = anytime(scored, alpha, floor=floor, first_look=look).p
        else:
            changes["chance_p"] = stats.student_t(scored, alpha, floor=floor).p
    return dataclasses.replace(contrast, **changes)


def _contrast_notes(group: Group, arm: str, baseline: str, seeds: tuple[int, ...]) -> list[str]:
    notes = []
    if not seeds:
        notes.append("no seed is in both arms, so nothing pairs; train the same seeds in both")
    else:
        for one, other in ((arm, baseline), (baseline, arm)):
            alone = sorted(group.arms[one].keys() - group.arms[other].keys())
            if alone:
                numbers = ", ".join(map(str, alone[:_MOST_SEEDS]))
                if len(alone) > _MOST_SEEDS:
                    numbers += f" and {len(alone) - _MOST_SEEDS:,} more"
                notes.append(f"seeds {numbers} of {one} have no partner in {other}: left out")
    for one in (arm, baseline):
        diverged = sum(row.status == "diverged" for row in group.lost.get(one, []))
        if diverged:
            notes.append(f"{count(diverged, 'run')} of {one} diverged")
    for one in (arm, baseline):
        row = next(iter(group.arms[one].values()))
        if row.chosen:
            live = {name: row.value(name) for name in row.chosen if row.value(name) is not None}
            notes.append(f"{one}: {describe(live, live)} chosen on validation")
    return notes


def _floor(metric: str, rows: Sequence[RunRow]) -> float:
    part = metric.partition("/")[0]
    return least_spread(metric, rows[0].num_images(part) if part in ("test", "val") else None)


def least_spread(metric: str, images: int | None) -> float:
    """Return half of one image, in points: accuracies come in whole images, so that equal ones
    may hide a spread of this much. 0 for what is not counted in images.

    Args:
        metric: a summary metric, as `test/accuracy`.
        images: how many it was measured on; None if that is not known.
    """
    return 50 / images if images and metric.partition("/")[2].startswith("accuracy") else 0.0


def _chance(metric: str, row: RunRow) -> float | None:
    """Return what guessing scores, in the printed unit; None where nothing tells."""
    spec, dataset = metric_spec(metric), DATASETS.get(row.cell_config.dataset)
    if spec.chance is None or dataset is None:
        return None
    return spec.factor * spec.chance(dataset.num_classes)


def _time_ratio(ours: Sequence[RunRow], theirs: Sequence[RunRow]) -> float | None:
    if len({(row.device, row.threads) for row in (*ours, *theirs)}) > 1:
        return None  # it would tell of the machines
    middles = []
    for rows in (ours, theirs):
        seconds = [row.seconds_per_epoch for row in rows]
        known = [number for number in seconds if number is not None]
        middles.append(statistics.median(known) if known else 0.0)
    return middles[0] / middles[1] if all(middles) else None


def _with_images(contrast: Contrast, kept: list[list[RunRow]]) -> Contrast:
    """Return the contrast with what only the per-image hits can tell, where no run lacks them."""
    hits = [[one for row in rows if (one := row.hits()) is not None] for rows in kept]
    lengths = {len(one) for rows in hits for one in rows}
    if any(len(rows) < contrast.n_pairs for rows in hits) or len(lengths) != 1:
        return contrast
    arm, baseline = (np.stack(rows).astype(np.int8) for rows in hits)  # [pairs, images]
    differences = arm - baseline
    only_arm, only_baseline = (differences > 0).sum(axis=1), (differences < 0).sum(axis=1)
    p_values = stats.mcnemar_p(only_arm, only_baseline)
    discordant = tuple(
        DiscordantImages(seed=seed, only_arm=int(ours), only_baseline=int(theirs), p=float(p))
        for seed, ours, theirs, p in zip(
            contrast.seeds, only_arm, only_baseline, p_values, strict=True
        )
    )
    contrast = dataclasses.replace(contrast, discordant=discordant)
    if contrast.ci_low is None or contrast.ci_high is None:
        return contrast
    low, high = stats.new_digits_interval(differences, contrast.alpha)
    return dataclasses.replace(
        contrast,  # digits in general are never known better than these are
        new_digits_low=min(low, contrast.ci_low),
        new_digits_high=max(high, contrast.ci_high),
    )


def _unpaired(
    contrast: Contrast,
    a: stats.Floats,
    b: stats.Floats,
    lost: tuple[Sequence[RunRow], Sequence[RunRow]],
) -> Contrast:
    sign = 1 if metric_spec(contrast.metric).larger_is_better else -1
    counts = [sum(row.status in LOST for row in rows) for rows in lost]
    changes: dict[str, Any] = {
        "effect_size": stats.unpaired_effect_size(a, b),
        "probability_of_improvement": stats.share_above(sign * np.subtract.outer(a, b)),
        "lost_arm": counts[0],
        "lost_baseline": counts[1],
        "n_settled": max(len(a) + counts[0], len(b) + counts[1]),
    }
    if min(len(a), len(b)) > 1:
        test = stats.welch(a, b, contrast.alpha, floor=contrast.floor, margin=contrast.margin)
        changes |= {
            "ci_low": test.low,
            "ci_high": test.high,
            "interval": "welch",
            "p": test.p,
            "t_p": test.p,
            "t_equal_p": test.p_equal,
            "sd_difference": float(np.sqrt(a.var(ddof=1) + b.var(ddof=1))),
        }
    return dataclasses.replace(contrast, **changes)


def over_settings(
    parts: Sequence[tuple[Contrast, Pairs]], places: Sequence[float], question: Question
) -> Contrast | None:
    """Return one contrast of several settings: their mean difference, or its slope.

    Args:
        parts: the same two arms at each setting.
        places: the value of the setting that a slope runs over; one for each part.
        question: `decide` says which.

    Returns:
        None where no seed was finished at every setting.
    """
    first = parts[0][0]
    equal_parts = [1 / len(parts)] * len(parts)
    weights = slope_weights(places) if question.decide == "slope" else equal_parts
    pairs = combine([pairs for _, pairs in parts], weights)
    kept = pairs.kept
    if not len(kept):
        return None
    floor = math.sqrt(sum((w * c.floor) ** 2 for w, (c, _) in zip(weights, parts, strict=True)))
    means = [
        sum(w * getattr(c, name) for w, (c, _) in zip(weights, parts, strict=True))
        for name in ("arm_mean", "baseline_mean")
    ]
    common = {
        n: v for n, v in first.setting.items() if all(c.setting.get(n) == v for c, _ in parts)
    }
    done = ~np.isnan(pairs.differences)
    return with_evidence(
        dataclasses.replace(
            _bare(first),
            setting=common,
            decide=question.decide,
            n_pairs=len(kept),
            n_arm=len(kept),
            n_baseline=len(kept),
            arm_mean=means[0],
            baseline_mean=means[1],
            mean_difference=float(kept.mean()),
            floor=floor,
            seeds=tuple(seed for seed, is_done in zip(pairs.seeds, done, strict=True) if is_done),
            differences=tuple(float(d) for d in kept),
        ),
        pairs,
        question,
    )


def _bare(contrast: Contrast) -> Contrast:
    """Return what names a contrast, without its numbers."""
    names = ("arm", "baseline", "setting", "code", "metric", "unit", "margin", "alpha", "rule")
    numbers = ("n_pairs", "n_arm", "n_baseline", "arm_mean", "baseline_mean", "mean_difference")
    return Contrast(**{name: getattr(contrast, name) for name in (*names, *numbers)})

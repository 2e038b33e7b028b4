"""Contrasts and their verdicts: the recipe of `docs/statistics.md` applied to a table of runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal

from groupnorm_bench.compare import stats, words
from groupnorm_bench.compare.cells import summarize_cells
from groupnorm_bench.compare.contrast import Comparison, Contrast, DiscordantImages, Verdict
from groupnorm_bench.compare.measure import Group, measure
from groupnorm_bench.compare.order import arm_order, describe, setting_key, setting_order, varying
from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.metrics import metric_spec

__all__ = ["Comparison", "Contrast", "DiscordantImages", "Verdict", "compare_runs"]


def compare_runs(
    table: RunTable,
    *,
    baseline: str | None = None,
    metric: str = "test/accuracy",
    alpha: float = 0.05,
    margin: float | None = None,
    arms: Iterable[str] | None = None,
) -> Comparison:
    """Return the verdict on every arm against the baseline, at each setting of the rest.

    Args:
        table: the runs; only finished ones count, and the others are told of.
        baseline: an arm; `batch` where there is one, else `none`, else the first.
        metric: a summary metric.
        alpha: share of false verdicts allowed over the family (Holm).
        margin: differences inside it, in the printed unit, are equal; one standard error of an
            accuracy on its test images if None.
        arms: only these against the baseline: the family of a claim.

    Raises:
        CompareError: there is nothing to compare, or an argument is not valid.
    """
    _check(alpha, margin)
    groups = _groups(table, metric)
    present = _arms(groups)
    notes = _mixture_notes(groups)
    chosen, remark = _baseline(baseline, present)
    wanted = [arm for arm in (arms if arms is not None else present) if arm != chosen]
    for arm in wanted:
        if arm not in present:
            raise CompareError(f"arm={arm!r} has no finished run{nearest(arm, present)}")
    contrasts = []
    for group in groups:
        for arm in (arm for arm in wanted if arm in group.arms):
            if chosen in group.arms:
                contrasts.append(measure(group, arm, chosen, metric, alpha, margin))
            else:
                notes.append(f"{arm}{words.at(group.label)} has no {chosen} to compare with")
    rows = [row for group in groups for row in _rows(group)]
    return Comparison(
        metric=metric,
        baseline=chosen,
        alpha=alpha,
        cells=tuple(summarize_cells(rows, metric)),
        contrasts=tuple(_judge(contrasts)),
        common=_common(groups),
        notes=(*([remark] if remark else []), *notes, *_lost_notes(groups), *table.problems),
    )


def _check(alpha: float, margin: float | None) -> None:
    if not 0 < alpha < 1:
        raise CompareError(f"alpha={alpha} is not between 0 and 1; try 0.05")
    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise CompareError(f"margin={margin} is not a number from 0 on; try 0.1 (points)")


def _groups(table: RunTable, metric: str) -> list[Group]:
    by_key: dict[tuple[str, str], list[RunRow]] = {}
    for row in table.rows:
        by_key.setdefault((setting_key(row.setting), row.code), []).append(row)
    finished = table.finished
    if not any(row.metric(metric) is not None for row in finished):
        if not finished:
            raise CompareError(
                f"none of {len(table.rows)} runs is finished; see how they stand: gnbench status"
            )
        known = sorted({key for row in finished for key in row.result.summary if row.metric(key)})
        raise CompareError(f"metric={metric!r} is in no finished run{nearest(metric, known)}")
    names = varying(rows[0].setting for rows in by_key.values())
    codes = len({code for _, code in by_key})
    groups = []
    for (_, code), rows in by_key.items():
        label = describe(rows[0].setting, names)
        if codes > 1:
            label = ", ".join(filter(None, [label, f"code {code}"]))
        groups.append(_group(rows, label, metric))
    return sorted(groups, key=lambda group: (setting_order(group.setting), group.code))


def _group(rows: list[RunRow], label: str, metric: str) -> Group:
    arms: dict[str, dict[int, RunRow]] = {}
    lost: dict[str, list[RunRow]] = {}
    for row in sorted(rows, key=lambda row: (arm_order(row.config), row.seed)):
        if row.status == "finished" and row.metric(metric) is not None:
            arms.setdefault(row.arm, {})[row.seed] = row
        else:
            lost.setdefault(row.arm, []).append(row)
    return Group(setting=rows[0].setting, code=rows[0].code, label=label, arms=arms, lost=lost)


def _rows(group: Group) -> list[RunRow]:
    finished = [row for by_seed in group.arms.values() for row in by_seed.values()]
    return finished + [row for rows in group.lost.values() for row in rows]


def _arms(groups: list[Group]) -> list[str]:
    first = {
        arm: next(iter(by_seed.values())) for group in groups for arm, by_seed in group.arms.items()
    }
    return sorted(first, key=lambda arm: arm_order(first[arm].config))


def _baseline(baseline: str | None, present: list[str]) -> tuple[str, str | None]:
    """Return the arm to compare with, and a note where it is not the one people expect."""
    if baseline is not None:
        if baseline not in present:
            raise CompareError(
                f"baseline={baseline!r} has no finished run{nearest(baseline, present)}"
            )
        return baseline, None
    if "batch" in present:
        return "batch", None
    chosen = "none" if "none" in present else present[0]
    return chosen, f"there is no batch among the arms, so {chosen} is the baseline"


def _common(groups: list[Group]) -> dict[str, Any]:
    names = varying(group.setting for group in groups)
    return {name: value for name, value in groups[0].setting.items() if name not in names}


def _mixture_notes(groups: list[Group]) -> list[str]:
    """Say what was kept apart because it must not be mixed in one contrast."""
    notes = []
    for name, what in (("dataset", "data sets"), ("precision", "precisions")):
        values = sorted({str(group.setting.get(name)) for group in groups})
        if len(values) > 1:
            notes.append(f"{len(values)} {what} ({', '.join(values)}) are compared apart")
    codes = sorted({group.code for group in groups})
    if len(codes) > 1:
        notes.append(
            f"{len(codes)} versions of the code ({'; '.join(codes)}) are compared apart: "
            "seeds pair only within one"
        )
    devices = sorted({row.device for group in groups for row in _rows(group)})
    if len(devices) > 1:
        notes.append(
            f"runs come from {len(devices)} devices ({', '.join(devices)}): "
            "times are not comparable between them"
        )
    return notes


def _lost_notes(groups: list[Group]) -> list[str]:
    counts: dict[tuple[str, str], int] = {}
    for group in groups:
        for arm, rows in group.lost.items():
            for row in rows:
                status = "without the metric" if row.status == "finished" else row.status
                key = (f"{arm}{words.at(group.label)}", status)
                counts[key] = counts.get(key, 0) + 1
    return [f"{who}: {words.count(n, 'run')} {status}" for (who, status), n in counts.items()]


def _judge(contrasts: list[Contrast]) -> list[Contrast]:
    """Return the contrasts with what the family decides: Holm, verdict, seeds, sentence."""
    p_values = [contrast.p for contrast in contrasts]
    adjusted = stats.holm(p_values)
    known = sorted(p for p in p_values if p is not None)
    judged = []
    for contrast, p_adjusted in zip(contrasts, adjusted, strict=True):
        hurdles = len(known) - known.index(contrast.p) if contrast.p is not None else 1
        contrast = dataclasses.replace(
            contrast, p_adjusted=p_adjusted, family_size=max(len(known), 1)
        )
        contrast = dataclasses.replace(contrast, verdict=_verdict(contrast))
        if contrast.verdict == "undecided":
            seeds, purpose = _seeds_needed(contrast, hurdles)
            contrast = dataclasses.replace(contrast, seeds_needed=seeds, seeds_needed_for=purpose)
        judged.append(dataclasses.replace(contrast, sentence=words.sentence(contrast)))
    return judged


def _verdict(contrast: Contrast) -> Verdict:
    low, high, margin = contrast.ci_low, contrast.ci_high, contrast.margin
    if low is None or high is None or contrast.p_adjusted is None:
        return "undecided"
    if contrast.p_adjusted < contrast.alpha and (low > 0 or high < 0):
        good = (low > 0) is metric_spec(contrast.metric).larger_is_better
        return "better" if good else "worse"
    if margin is not None and -margin <= low and high <= margin:
        return "equal"
    return "undecided"


def _seeds_needed(
    contrast: Contrast, hurdles: int
) -> tuple[int | None, Literal["difference", "equality"] | None]:
    """Return how many more seeds would settle it were the difference seen true, and as what."""
    have = contrast.n_pairs or min(contrast.n_arm, contrast.n_baseline)
    sd = contrast.sd_difference
    if sd is None:
        return stats.fewest_pairs(contrast.alpha / hurdles) - contrast.n_pairs, "difference"
    size = contrast.mean_difference
    routes: list[tuple[int, Literal["difference", "equality"]]] = []
    total = stats.seeds_for_difference(sd, size, contrast.alpha, hurdles)
    if total is not None:
        routes.append((total, "difference"))
    if contrast.margin is not None:
        total = stats.seeds_for_equality(sd, size, contrast.margin, contrast.alpha)
        if total is not None:
            routes.append((total, "equality"))
    if not routes:
        return None, None
    total, purpose = min(routes)
    return max(1, total - have), purpose

"""Contrasts and their verdicts: the recipe of `docs/statistics.md` applied to a table of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from groupnorm_bench.compare import words
from groupnorm_bench.compare.aggregates import aggregate
from groupnorm_bench.compare.cells import summarize_cells
from groupnorm_bench.compare.contrast import (
    Comparison,
    Contrast,
    DiscordantImages,
    Rule,
    Verdict,
)
from groupnorm_bench.compare.excerpt import first_of
from groupnorm_bench.compare.judge import NOT_ASKED, judge
from groupnorm_bench.compare.letters import letters_of
from groupnorm_bench.compare.measure import measure, over_settings
from groupnorm_bench.compare.order import describe, setting_order, varying
from groupnorm_bench.compare.pairs import Group, Pairs
from groupnorm_bench.compare.question import Family, Question
from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.errors import CompareError, nearest
from groupnorm_bench.metrics import METRICS, metric_spec
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.wording import count

__all__ = ["Comparison", "Contrast", "DiscordantImages", "Verdict", "compare_runs"]


def compare_runs(
    table: RunTable,
    question: Question | None = None,
    *,
    rule: Rule = "anytime",
    all_pairs: bool = False,
    families: Sequence[Family] = (),
    others: bool = True,
    details: bool = True,
    aggregates: bool = True,
    **asked: Any,
) -> Comparison:
    """Return the verdict on every arm against the baseline, at each setting of the rest.

    Args:
        table: the runs; only finished ones count, and the others are told of.
        question: what is asked; see `Question`.
        rule: `anytime`: the verdict holds whenever it is read; `planned`: the number of seeds was
            fixed beforehand and this is the only look.
        all_pairs: every arm against every other, not against one baseline.
        families: what sweeps asked for; all that is at hand if none did.
        others: show the contrasts that the question does not name, as a family of their own.
        details: with what no verdict needs: the arms' correlation, the sign-flip test, and from
            every run's hits the interval for new digits and McNemar's test.
        aggregates: with the arms over all settings, which take a bootstrap.
        asked: fields of `Question`, in place of the question's.

    Raises:
        CompareError: there is nothing to compare, or an argument is not valid.
    """
    question = (question or Question()).replace(**asked)
    if "metric" not in asked:
        question = _in_what_there_is(question, table)
    metric = question.metric
    groups = _groups(table, metric)
    cells = {family: _cells_of(table, family) for family in families}
    present = _arms(groups)
    chosen, notes = _baseline(question.baseline, present, is_option="baseline" in asked)
    named = question.arms and tuple(arm for arm in question.arms if arm != chosen)
    question = question.replace(baseline=chosen, arms=named)
    for arm in question.arms or ():
        if arm not in present:
            remark = f"arm={arm!r} has no finished run{nearest(arm, present)}"
            if not (others and families):
                raise CompareError(remark)
            notes.append(remark)
    notes += _mixture_notes(groups)
    contrasts: list[Contrast] = []
    apart: list[str] = []
    for arm, baseline in _arm_pairs(present, chosen, question, all_pairs, others):
        parts, alone = _at_each_setting(
            groups, arm, baseline, question, rule, cells, details=details
        )
        each = [contrast for contrast, _ in parts]
        if question.decide != "each":  # then only what they come to over the settings is asked
            contrasts += _over_settings(parts, question)
            each = [dataclasses.replace(contrast, family=NOT_ASKED) for contrast in each]
        contrasts += each
        apart += alone
    order = {group.label: place for place, group in enumerate(groups)}
    contrasts.sort(key=lambda c: (c.decide == "each", order.get(c.label, -1)))
    judged = judge(contrasts, question, {family.name: family.contrasts for family in families})
    rows = [row for group in groups for row in _rows(group)]
    return Comparison(
        metric=metric,
        baseline=chosen,
        alpha=question.alpha,
        cells=tuple(summarize_cells(rows, metric)),
        contrasts=tuple(judged),
        aggregates=aggregate(groups, present, chosen, metric, question.alpha) if aggregates else (),
        groups=letters_of(groups, judged) if all_pairs else (),
        question=question,
        rule=rule,
        common=_common(groups),
        notes=(
            *notes,
            *first_of(apart, "cells without their baseline"),
            *_family_notes(judged),
            *_next_steps(judged, families, table),
            *first_of(_lost_notes(groups), "cells with such runs"),
            *table.problems,
        ),
    )


def _arm_pairs(
    present: list[str], baseline: str, question: Question, all_pairs: bool, others: bool
) -> list[tuple[str, str]]:
    """Return the pairs of arms to compare, the later one of the order against the earlier."""
    wanted = [arm for arm in present if others or arm in (*(question.arms or present), baseline)]
    if all_pairs:
        return [(arm, first) for i, first in enumerate(wanted) for arm in wanted[i + 1 :]]
    return [(arm, baseline) for arm in wanted if arm != baseline]


def _at_each_setting(
    groups: list[Group],
    arm: str,
    baseline: str,
    question: Question,
    rule: Rule,
    families: dict[Family, frozenset[str]],
    *,
    details: bool,
) -> tuple[list[tuple[Contrast, Pairs]], list[str]]:
    """Return the contrast at each setting that has both arms, and a note where only one is."""
    parts, notes = [], []
    for group in (group for group in groups if arm in group.arms):
        if baseline not in group.arms:
            notes.append(f"{arm}{words.at(group.label)} has no {baseline} to compare with")
            continue
        contrast, pairs = measure(group, arm, baseline, question, rule, details=details)
        family = _family_of(group, arm, baseline, question, families)
        parts.append((dataclasses.replace(contrast, family=family), pairs))
    return parts, notes


def _cells_of(table: RunTable, family: Family) -> frozenset[str]:
    return frozenset(row.cell for row in table.rows if row.name in family.runs)


def _family_of(
    group: Group,
    arm: str,
    baseline: str,
    question: Question,
    families: dict[Family, frozenset[str]],
) -> str:
    """Return the family that a contrast belongs to: the question's, or a sweep's."""
    if question.arms is not None and not {arm, baseline} <= {*question.arms, question.baseline}:
        return NOT_ASKED
    if not families:
        return ""
    cells = {row.cell for one in (arm, baseline) for row in group.arms[one].values()}
    asking = [family for family, its_cells in families.items() if cells <= its_cells]
    # a contrast that several sweeps asked for counts in the largest family
    return max(asking, key=lambda family: family.contrasts).name if asking else NOT_ASKED


def _over_settings(parts: list[tuple[Contrast, Pairs]], question: Question) -> list[Contrast]:
    """Return what the settings come to: by code, the mean difference, or the slope.

    Raises:
        CompareError: a slope has no one number that it could run over.
    """
    found = []
    asked = [part for part in parts if part[0].family != NOT_ASKED] or parts
    for code in dict.fromkeys(contrast.code for contrast, _ in asked):
        same = [part for part in asked if part[0].code == code]
        if len(same) < 2:
            continue
        names = varying(contrast.setting for contrast, _ in same)
        places: list[Any] = []
        over = ", ".join(names)
        if question.decide == "slope":
            over = "batch_size" if "batch_size" in names else names[0]
            places = [contrast.setting.get(over) for contrast, _ in same]
            if len(names) > 1 or not all(_is_positive(place) for place in places):
                raise CompareError(
                    f"decide='slope' runs over one number, not over {', '.join(names)}; narrow "
                    "the runs by --where, or decide: mean"
                )
        contrast = over_settings(same, places, question)
        if contrast is not None:
            word = "slope per doubling of" if question.decide == "slope" else "mean over"
            label = f"{word} {over} ({count(len(same), 'setting')})"
            family = same[0][0].family
            found.append(dataclasses.replace(contrast, label=label, code=code, family=family))
    return found


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def _next_steps(
    contrasts: Sequence[Contrast], families: Sequence[Family], table: RunTable
) -> list[str]:
    """Return the command that trains more seeds where they would decide something."""
    if not any(contrast.seeds_needed_low for contrast in contrasts):
        return []
    if table.metric is not None:
        return ["more seeds until decided: add their rows, and look again whenever you like"]
    files = [family.file for family in families if family.file] or ["FILE"]
    return [f"more seeds until decided: gnbench sweep {file} --until-decided" for file in files]


def _family_notes(contrasts: Sequence[Contrast]) -> list[str]:
    """Say which contrasts the question does not name, and that they are a family of their own."""
    apart = [contrast for contrast in contrasts if contrast.family == NOT_ASKED]
    if not apart or len(apart) == len(contrasts):
        return []
    return [
        f"{count(len(apart), 'contrast')} of {len(contrasts)} the question does not name: "
        "they are corrected for as a family of their own"
    ]


def _in_what_there_is(question: Question, table: RunTable) -> Question:
    """Return the question in the one metric that runs of a trial of the user's own have."""
    rows = [row for row in table.finished if isinstance(row.cell_config, OwnConfig)]
    if not rows or any(row.metric(question.metric) is not None for row in table.finished):
        return question
    found = {name for row in rows for name in row.summary_keys if row.metric(name) is not None}
    told = found - METRICS.keys() - {"test/num_images"}
    return question.replace(metric=told.pop()) if len(told) == 1 else question


def _groups(table: RunTable, metric: str) -> list[Group]:
    by_key: dict[tuple[str, str], list[RunRow]] = {}
    for row in table.rows:
        by_key.setdefault((row.setting_key, row.code), []).append(row)
    finished = table.finished
    if not any(row.metric(metric) is not None for row in finished):
        if not finished:
            raise CompareError(
                f"no run of {len(table.rows):,} is finished; see how they stand: gnbench status"
            )
        known = sorted({key for row in finished for key in row.summary_keys if row.metric(key)})
        raise CompareError(f"metric={metric!r} is in no finished run{nearest(metric, known)}")
    _refuse_mixed_times(by_key.values(), metric)
    names = varying(rows[0].setting for rows in by_key.values())
    codes = len({code for _, code in by_key})
    groups = []
    for (_, code), rows in by_key.items():
        label = describe(rows[0].setting, names)
        if codes > 1:
            label = ", ".join(filter(None, [label, f"code {code}"]))
        groups.append(_group(rows, label, metric))
    return sorted(groups, key=lambda group: (setting_order(group.setting), group.code))


def _refuse_mixed_times(groups: Iterable[list[RunRow]], metric: str) -> None:
    """Refuse a verdict on what depends on the machine where the runs come from several.

    Raises:
        CompareError: runs at one setting do.
    """
    if not metric_spec(metric).of_machine:
        return
    for rows in groups:
        machines = sorted({row.timed_on for row in rows if row.metric(metric) is not None})
        if len(machines) > 1:
            raise CompareError(
                f"metric={metric!r} of runs on {' and on '.join(machines)} is no comparison; give "
                "those of one by --where, as in 'threads=1' or 'device_name=...'"
            )


def _group(rows: list[RunRow], label: str, metric: str) -> Group:
    arms: dict[str, dict[int, RunRow]] = {}
    lost: dict[str, list[RunRow]] = {}
    for row in sorted(rows, key=lambda row: (row.order, row.seed)):
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
    return sorted(first, key=lambda arm: first[arm].order)


def _baseline(
    baseline: str | None, present: list[str], *, is_option: bool
) -> tuple[str, list[str]]:
    """Return the arm to compare with, and a note where it is not the one people expect."""
    usual = next((arm for arm in ("batch", "none") if arm in present), present[0])
    if baseline is None:
        if usual == "batch":
            return usual, []
        return usual, [f"there is no batch among the arms, so {usual} is the baseline"]
    if baseline not in present:
        raise CompareError(f"baseline={baseline!r} has no finished run{nearest(baseline, present)}")
    if baseline == usual or len(present) < 3 or not is_option:
        return baseline, []
    return baseline, [
        f"the baseline is {baseline}, not {usual}: whoever reads the contrasts with both asks more "
        "than this family corrects for; --all-pairs corrects for every pair"
    ]


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
    threads = sorted({row.threads for group in groups for row in _rows(group) if row.threads})
    if len(threads) > 1:
        notes.append(
            f"runs were trained on {' and '.join(map(str, threads))} threads: times and images/s "
            "are not comparable between them"
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
    return [f"{who}: {count(n, 'run')} {status}" for (who, status), n in counts.items()]

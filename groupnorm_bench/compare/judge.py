"""From numbers to verdicts: Holm over each family, lost runs, equality, seeds still needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from groupnorm_bench.compare import stats, words
from groupnorm_bench.compare.anytime import fewest_pairs
from groupnorm_bench.compare.contrast import Contrast, Verdict
from groupnorm_bench.compare.power import PowerRule, further_seeds
from groupnorm_bench.compare.question import FIRST_LOOK, Question
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.wording import count

NOT_ASKED = "not asked"
"""The family of contrasts that lie in the folder and that no question names."""
MOST_ESTIMATED = 1_000
"""Undecided contrasts for which the seeds still needed are simulated, 4 ms each; the first ones."""
ADJUSTED = ("p", "t_p", "anytime_p", "equal_p", "t_equal_p")


def judge(
    contrasts: Sequence[Contrast], question: Question, sizes: dict[str, int]
) -> list[Contrast]:
    """Return the contrasts with what their family decides, in the order given.

    Args:
        contrasts: each with the name of its family.
        question: for the first look.
        sizes: contrasts that a family was asked to have; those here, where there are more.
    """
    judged: dict[int, Contrast] = {}
    open_in = {}
    for family in dict.fromkeys(contrast.family for contrast in contrasts):
        places = [i for i, contrast in enumerate(contrasts) if contrast.family == family]
        members = [contrasts[i] for i in places]
        size = max(len(members), sizes.get(family, 0))
        adjusted = list(_adjust(members, size))
        judged |= dict(zip(places, adjusted, strict=True))
        open_in[family] = size - sum(_is_different(contrast) for contrast in adjusted)
    settled: list[Contrast] = []
    estimated = 0
    for i, contrast in enumerate(contrasts):
        hurdles = max(open_in[contrast.family], 1)
        look = question.first_look if estimated < MOST_ESTIMATED else None
        settled.append(_settle(judged[i], hurdles, look))
        estimated += settled[-1].verdict == "undecided"
    return settled


def _is_different(contrast: Contrast) -> bool:
    p = contrast.t_p_adjusted if contrast.rule == "planned" else contrast.anytime_p_adjusted
    return p is not None and p < contrast.alpha


def _adjust(members: Sequence[Contrast], size: int) -> Iterable[Contrast]:
    """Yield the members with Holm's p: contrasts without one yet count as asked all the same."""
    missing: list[float | None] = [1.0] * (size - len(members))
    columns = {}
    for name in ADJUSTED:
        found = [getattr(contrast, name) for contrast in members]
        filled = [1.0 if p is None else p for p in found]
        adjusted = stats.holm([*filled, *missing])[: len(members)]
        columns[name] = [None if p is None else q for p, q in zip(found, adjusted, strict=True)]
    for i, contrast in enumerate(members):
        changes: dict[str, Any] = {f"{name}_adjusted": columns[name][i] for name in ADJUSTED}
        yield dataclasses.replace(contrast, family_size=size, **changes)


def _settle(contrast: Contrast, hurdles: int, first_look: int | None) -> Contrast:
    """Return the contrast with its verdict; the seeds it needs where a first look is given."""
    verdict, why = verdict_of(contrast)
    contrast = dataclasses.replace(contrast, verdict=verdict, why_undecided=why)
    if verdict == "undecided" and not why and first_look is not None:
        contrast = dataclasses.replace(contrast, **_seeds_needed(contrast, hurdles, first_look))
    return dataclasses.replace(contrast, sentence=words.sentence(contrast))


def verdict_of(contrast: Contrast) -> tuple[Verdict, str]:
    """Return the verdict, and what stands in the way of one that the numbers alone would give."""
    found = _by_the_numbers(contrast)
    why = _lost_too_many(contrast, found) if found != "undecided" else ""
    return ("undecided", why) if why else (found, "")


def _by_the_numbers(contrast: Contrast) -> Verdict:
    if contrast.rule == "anytime":
        p, p_equal = contrast.anytime_p_adjusted, contrast.equal_p_adjusted
        low, high = contrast.anytime_low, contrast.anytime_high
        n = contrast.n_prefix
    else:
        p, p_equal = contrast.t_p_adjusted, contrast.t_equal_p_adjusted
        low, high = contrast.ci_low, contrast.ci_high
        n = contrast.n_pairs or min(contrast.n_arm, contrast.n_baseline)
    if p is None or low is None or high is None:
        return "undecided"
    if p < contrast.alpha and (0 < low <= high or low <= high < 0):
        return "better" if (low > 0) is metric_spec(contrast.metric).larger_is_better else "worse"
    if p_equal is not None and p_equal < contrast.alpha and n >= FIRST_LOOK:
        return "equal"
    return "undecided"


def _lost_too_many(contrast: Contrast, found: Verdict) -> str:
    """Return why runs that gave no result forbid this verdict; empty where they do not."""
    arm, baseline, n = contrast.lost_arm, contrast.lost_baseline, contrast.n_settled
    if not arm and not baseline:
        return ""
    if found == "equal":
        if arm != baseline:
            return (
                f"{contrast.arm} lost {arm} of {count(n, 'run')} and {contrast.baseline} {baseline}"
            )
        return ""
    winner, lost, other = (
        (contrast.arm, arm, baseline) if found == "better" else (contrast.baseline, baseline, arm)
    )
    if lost > other:
        return f"{winner} would win, but it lost {lost} of {count(n, 'run')}"
    if not lost or contrast.chance_difference is None or contrast.chance_p is None:
        return ""  # with only the loser's runs at chance, the winner would win by more
    sign = 1 if metric_spec(contrast.metric).larger_is_better else -1
    same_side = (sign * contrast.chance_difference > 0) is (found == "better")
    if same_side and contrast.chance_p < contrast.alpha:
        return ""
    shown = words.number(contrast, contrast.chance_difference)
    return f"{winner} would win, but not with its lost runs at chance ({shown})"


def _seeds_needed(contrast: Contrast, hurdles: int, first_look: int) -> dict[str, Any]:
    """Return how many more seeds it likely takes, by simulation of the rule in force."""
    if not contrast.n_pairs and contrast.n_arm and contrast.rule == "planned":
        return {}
    level = contrast.alpha / hurdles  # Holm's next
    if contrast.n_prefix < 2:
        fewest = fewest_pairs(level, first_look) - contrast.n_prefix
        return {"seeds_needed_low": fewest}
    rule = PowerRule(
        alpha=level,
        margin=contrast.margin,
        floor=contrast.floor,
        first_look=first_look,
        planned=contrast.rule == "planned",
    )
    seen = np.array(contrast.differences[: contrast.n_prefix])
    needed = further_seeds(seen, rule)
    if needed is None:
        return {}
    return {
        "seeds_needed": needed.middle,
        "seeds_needed_low": needed.low,
        "seeds_needed_high": needed.high,
    }

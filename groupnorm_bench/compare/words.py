"""Verdicts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groupnorm_bench.compare import stats

if TYPE_CHECKING:
    from groupnorm_bench.compare.contrast import Contrast

FEWEST_PAIRS = 6
"""Under this many pairs nothing is called significant: no exact paired test could show it."""


def at(label: str) -> str:
    return f" at {label}" if label else ""


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def number(value: float | None, unit: str = "points") -> str:
    """Return a difference with its sign: two decimals for points, else three digits."""
    if value is None:
        return "?"
    return f"{value:+.2f}" if unit else f"{value:+.3g}"


def p_value(p: float | None) -> str:
    if p is None:
        return "?"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def interval(contrast: Contrast) -> str:
    if contrast.ci_low is None:
        return "no interval"
    low, high = number(contrast.ci_low, contrast.unit), number(contrast.ci_high, contrast.unit)
    return f"[{low}, {high}]"


def sentence(contrast: Contrast) -> str:
    """Return who is better by how much, on what grounds, and what is missing."""
    who = f"{contrast.arm} against {contrast.baseline}{at(contrast.label)}"
    parts = [f"{who}: {_judgement(contrast)} ({_grounds(contrast)})"]
    if contrast.n_pairs and contrast.n_pairs < FEWEST_PAIRS:
        parts.append(
            f"{count(contrast.n_pairs, 'pair')} can show no p below {contrast.smallest_p:g}"
        )
    elif _out_of_reach(contrast):
        parts.append(
            f"no {count(contrast.n_pairs, 'pair')} can pass Holm's first hurdle of "
            f"{contrast.family_size} contrasts, {contrast.alpha / contrast.family_size:.2g}; "
            f"{stats.fewest_pairs(contrast.alpha / contrast.family_size)} could"
        )
    if contrast.verdict == "undecided":
        parts.append(_missing(contrast))
    return "; ".join([*parts, *contrast.notes]) + "."


def _judgement(contrast: Contrast) -> str:
    difference = f"{number(contrast.mean_difference, contrast.unit)} {contrast.unit}".strip()
    seen = f"{difference} {interval(contrast)}"
    if contrast.verdict == "undecided":
        return f"undecided, {seen}"
    if contrast.verdict == "equal":
        equal = f"equal within {contrast.margin:.2g} {contrast.unit}".strip()
        cost = "" if contrast.time_ratio is None else f" at {contrast.time_ratio:.2g} x the time"
        return f"{equal}{cost}, {seen}"
    enough = (contrast.n_pairs or min(contrast.n_arm, contrast.n_baseline)) >= FEWEST_PAIRS
    word = f"significantly {contrast.verdict}" if enough else contrast.verdict
    if contrast.margin is None or abs(contrast.mean_difference) >= contrast.margin:
        return f"{word}, {seen}"
    return f"{word}, {seen}, which is inside the margin of {contrast.margin:.2g}"


def _grounds(contrast: Contrast) -> str:
    if contrast.n_pairs:
        runs = count(contrast.n_pairs, "pair")
    else:
        runs = f"{contrast.n_arm} and {contrast.n_baseline} runs, unpaired"
    if contrast.p is None:
        return runs
    if contrast.family_size == 1:
        return f"{runs}, p = {p_value(contrast.p)}"
    return (
        f"{runs}, p = {p_value(contrast.p)}, {p_value(contrast.p_adjusted)} after Holm over "
        f"{contrast.family_size} contrasts"
    )


def _out_of_reach(contrast: Contrast) -> bool:
    smallest = contrast.smallest_p
    return (
        contrast.verdict == "undecided"
        and smallest is not None
        and smallest * contrast.family_size >= contrast.alpha
    )


def _missing(contrast: Contrast) -> str:
    if contrast.seeds_needed is None:
        return f"no number of seeds up to {stats.MOST_SEEDS:,} would settle a difference like this"
    more = (
        "1 further seed"
        if contrast.seeds_needed == 1
        else f"{contrast.seeds_needed:,} further seeds"
    )
    if contrast.sd_difference is None:
        return f"it takes at least {more} to show anything"
    if contrast.seeds_needed_for == "equality":
        return f"about {more} would likely show it equal, were this the true difference"
    return f"about {more} would likely show it, were this the true difference"

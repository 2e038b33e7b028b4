"""Verdicts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groupnorm_bench.compare.power import CAP
from groupnorm_bench.compare.question import Question
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.compare.contrast import Comparison, Contrast


def at(label: str) -> str:
    return f" at {label}" if label else ""


def number(contrast: Contrast, value: float | None) -> str:
    """Return a difference of the contrast's metric, with its sign."""
    return metric_spec(contrast.metric).difference(value)


def p_value(p: float | None) -> str:
    if p is None:
        return "?"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def interval_of(contrast: Contrast) -> tuple[float | None, float | None]:
    """Return the interval that belongs to the rule in force."""
    if contrast.rule == "anytime":
        return contrast.anytime_low, contrast.anytime_high
    return contrast.ci_low, contrast.ci_high


def interval(contrast: Contrast) -> str:
    """Return the interval of the rule in force, in words."""
    low, high = interval_of(contrast)
    if low is None or high is None:
        return "no bound yet" if contrast.rule == "anytime" else "no interval"
    return f"[{number(contrast, low)}, {number(contrast, high)}]"


def adjusted_p(contrast: Contrast) -> float | None:
    """Return Holm's p of the rule in force."""
    return contrast.anytime_p_adjusted if contrast.rule == "anytime" else contrast.t_p_adjusted


def odds(contrast: Contrast) -> str:
    """Return how probable worse, equal and better are, in per cent, as `2/15/83`."""
    worse, better = contrast.probability_worse, contrast.probability_better
    if worse is None or better is None:
        return ""
    equal = contrast.probability_equal
    middle = "-" if equal is None else f"{100 * equal:.0f}"
    return f"{100 * worse:.0f}/{middle}/{100 * better:.0f}"


RULES = {
    "anytime": "verdicts hold whenever they are read (anytime p and interval)",
    "planned": "verdicts hold for a number of seeds fixed beforehand and looked at once "
    "(Student's t)",
}


def asked(question: Question) -> str:
    """Return what a question says beyond its baseline, in words; empty where that is nothing."""
    spec = metric_spec(question.metric)
    parts = []
    if question.arms:
        parts.append(f"{', '.join(question.arms)} against {question.baseline or 'the baseline'}")
    if question.decide != "each":
        parts.append(f"by the {question.decide} over settings")
    if question.margin is not None:
        parts.append(f"equal within {question.margin:g} {spec.unit}".rstrip())
    if question.alpha != Question().alpha:
        parts.append(f"alpha {question.alpha:g}")
    if question.first_look != Question().first_look:
        parts.append(f"first look at {count(question.first_look, 'pair')}")
    if question.max_seeds is not None:
        parts.append(f"{count(question.max_seeds, 'seed')} an arm at most")
    if question.tune is not None:
        seeds = ", ".join(map(str, question.tune.seeds))
        parts.append(f"{', '.join(question.tune.settings)} tuned per arm on seeds {seeds}")
    return "; ".join(parts)


def promise(comparison: Comparison) -> str:
    """Return what the verdicts promise, for a report: honest words, with the family's size."""
    k = max((contrast.family_size for contrast in comparison.contrasts), default=1)
    which = "this contrast" if k == 1 else f"any of these {k} contrasts"
    share = f"{100 * comparison.alpha:g} %"
    if comparison.rule == "planned":
        return (
            "The number of seeds was fixed beforehand, and the results were looked at once. Were "
            "the arms equal and differences between seeds about normal, the chance of calling "
            f"{which} different would be {share} at most."
        )
    return (
        "Looked at after every seed. Were the arms equal and differences between seeds about "
        f"normal, the chance that this rule ever calls {which} different would be at most {share}, "
        "whenever you stop. The mean at the stop flatters the winner; quote the interval."
    )


def sentence(contrast: Contrast) -> str:
    """Return who is better by how much, on what grounds, and what is missing."""
    who = f"{contrast.arm} against {contrast.baseline}{at(contrast.label)}"
    parts = [f"{who}: {_judgement(contrast)} ({_grounds(contrast)})"]
    if contrast.verdict == "undecided":
        parts += _missing(contrast)
    return "; ".join([*parts, *contrast.notes]) + "."


def _judgement(contrast: Contrast) -> str:
    difference = f"{number(contrast, contrast.mean_difference)} {contrast.unit}".strip()
    seen = f"{difference} {interval(contrast)}"
    if contrast.verdict == "undecided":
        return f"undecided, {seen}"
    if contrast.verdict == "equal":
        equal = f"equal within {contrast.margin:.2g} {contrast.unit}".strip()
        cost = "" if contrast.time_ratio is None else f" at {contrast.time_ratio:.2g} x the time"
        return f"{equal}{cost}, {seen}"
    word = f"significantly {contrast.verdict}"
    if contrast.margin is None or abs(contrast.mean_difference) >= contrast.margin:
        return f"{word}, {seen}"
    return f"{word}, {seen}, which is inside the margin of {contrast.margin:.2g}"


def _grounds(contrast: Contrast) -> str:
    if contrast.n_pairs:
        runs = count(contrast.n_pairs, "pair")
    else:
        runs = f"{contrast.n_arm} and {contrast.n_baseline} runs, unpaired"
    anytime = contrast.rule == "anytime"
    p = contrast.anytime_p if anytime else contrast.t_p
    if p is None:
        return runs
    name = "anytime p" if anytime else "p"
    if contrast.family_size == 1:
        return f"{runs}, {name} = {p_value(p)}"
    return (
        f"{runs}, {name} = {p_value(p)}, {p_value(adjusted_p(contrast))} after Holm over "
        f"{contrast.family_size} contrasts"
    )


def _missing(contrast: Contrast) -> list[str]:
    """Return what an undecided contrast lacks."""
    if contrast.why_undecided:
        return [contrast.why_undecided]
    if not contrast.n_pairs:
        if contrast.rule == "planned":
            return []
        return ["unpaired runs decide only by --planned, at a number of seeds fixed beforehand"]
    low, high = contrast.anytime_low, contrast.anytime_high
    if contrast.rule == "anytime" and low is not None and high is not None and low > high:
        return ["its earlier and its later seeds contradict each other: see whether all ran alike"]
    parts = []
    chances = {
        "better": contrast.probability_better,
        "worse": contrast.probability_worse,
        "equal": contrast.probability_equal,
    }
    known = {word: chance for word, chance in chances.items() if chance is not None}
    if known:
        likeliest = max(known, key=lambda word: known[word])
        parts.append(f"{likeliest} with a probability of {_percent(known[likeliest])}")
    return [*parts, more_seeds(contrast)]


def _percent(share: float | None) -> str:
    percent = 100 * (share or 0)
    return "over 99 %" if percent > 99 else f"{percent:.0f} %"


def more_seeds(contrast: Contrast) -> str:
    """Return how many more seeds it takes, as a range of the rule's own simulation."""
    low, high = contrast.seeds_needed_low, contrast.seeds_needed_high
    if low is None:
        return "how many more seeds it takes cannot be told"
    if high is None:
        return f"it takes {count(low, 'more seed')} at least"
    if low > CAP:
        return f"{CAP:,} more seeds would likely not decide it"
    if low == high:
        return f"{count(low, 'more seed')} would likely decide it"
    upper = f"over {CAP:,}" if high > CAP else f"{high:,}"
    return f"{low:,} to {upper} more seeds would likely decide it (80 %)"

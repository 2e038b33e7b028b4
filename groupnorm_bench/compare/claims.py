"""`--claim 'group-g8 > batch'`: one question, one line, one exit code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from groupnorm_bench.compare.contrast import Comparison, Contrast
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.compare.words import count
from groupnorm_bench.errors import CompareError

ClaimOutcome = Literal["supported", "refuted", "undecided"]

_CLAIM = re.compile(r"\s*([^\s<>=]+)\s*(>|<|==?)\s*([^\s<>=]+)\s*")
_SUPPORTS = {">": "better", "<": "worse", "=": "equal"}
_REFUTES = {">": ("worse", "equal"), "<": ("better", "equal"), "=": ("better", "worse")}
EXIT_CODES: dict[ClaimOutcome, int] = {"supported": 0, "refuted": 4, "undecided": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of a claim."""

    claim: str
    outcome: ClaimOutcome
    sentence: str
    comparison: Comparison

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def answer_claim(
    table: RunTable,
    claim: str,
    *,
    metric: str = "test/accuracy",
    alpha: float = 0.05,
    margin: float | None = None,
) -> Answer:
    """Return whether the runs support a claim about two arms, at every setting they share.

    The family is the claim's own contrasts. `A > B` is supported where A is better at each
    setting, and refuted where at one it is worse, or equal within the margin.

    Args:
        table: the runs.
        claim: `A > B`, `A < B` or `A = B`, of arms.
        metric, alpha, margin: see `compare_runs`.

    Raises:
        CompareError: the claim is not clear, an arm has no runs, or they share no setting.
    """
    match = _CLAIM.fullmatch(claim)
    if match is None:
        raise CompareError(f"claim={claim!r} is not clear; write it as in 'group-g8 > batch'")
    arm, sign, baseline = match.group(1), match.group(2)[0], match.group(3)
    if arm == baseline:
        raise CompareError(f"claim={claim!r} names one arm twice; name two")
    comparison = compare_runs(
        table, baseline=baseline, metric=metric, alpha=alpha, margin=margin, arms=[arm]
    )
    contrasts = comparison.contrasts
    if not contrasts:
        raise CompareError(f"claim={claim!r}: the two arms share no setting; train both alike")
    outcome = _outcome(contrasts, sign)
    return Answer(
        claim=f"{arm} {sign} {baseline}",
        outcome=outcome,
        sentence=f"{outcome}: {arm} {sign} {baseline}; {_because(contrasts, sign, outcome)}",
        comparison=comparison,
    )


def _outcome(contrasts: tuple[Contrast, ...], sign: str) -> ClaimOutcome:
    if any(contrast.verdict in _REFUTES[sign] for contrast in contrasts):
        return "refuted"
    if all(contrast.verdict == _SUPPORTS[sign] for contrast in contrasts):
        return "supported"
    return "undecided"


def _because(contrasts: tuple[Contrast, ...], sign: str, outcome: ClaimOutcome) -> str:
    """Return the contrast that tells most, and how many there were."""
    telling = {
        "refuted": [c for c in contrasts if c.verdict in _REFUTES[sign]],
        "undecided": [c for c in contrasts if c.verdict == "undecided"],
        "supported": list(contrasts),
    }[outcome]
    first = telling[0].sentence
    if len(contrasts) == 1:
        return first
    return f"{len(telling)} of {count(len(contrasts), 'setting')} so; first: {first}"

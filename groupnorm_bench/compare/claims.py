"""`--claim 'group-g8 > batch'`: one question, one line, one exit code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groupnorm_bench.compare.contrast import Comparison, Contrast, Rule
from groupnorm_bench.compare.judge import ADJUSTED, NOT_ASKED, verdict_of
from groupnorm_bench.compare.question import Question
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.compare.words import sentence
from groupnorm_bench.errors import CompareError
from groupnorm_bench.wording import count

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
    question: Question | None = None,
    *,
    rule: Rule = "anytime",
    **asked: Any,
) -> Answer:
    """Return whether the runs support a claim about two arms, at every setting they share.

    `A > B` is supported where A is better at each setting: a conjunction, which needs no
    correction, for it is false if one part is. It is refuted where at one it is worse, or equal
    within the margin: that is corrected over the settings. Runs that were chosen by seeds that
    are reported support nothing.

    Args:
        table: the runs.
        claim: `A > B`, `A < B` or `A = B`, of arms.
        question, rule, asked: see `compare_runs`.

    Raises:
        CompareError: the claim is not clear, an arm has no runs, or they share no setting.
    """
    match = _CLAIM.fullmatch(claim)
    if match is None:
        raise CompareError(f"claim={claim!r} is not clear; write it as in 'group-g8 > batch'")
    arm, sign, baseline = match.group(1), match.group(2)[0], match.group(3)
    if arm == baseline:
        raise CompareError(f"claim={claim!r} names one arm twice; name two")
    question = (question or Question()).replace(**asked, baseline=baseline, arms=(arm,))
    if sign == "=" and question.margin is None:
        raise CompareError(f"claim={claim!r} needs a margin: how far apart is equal? --margin 0.1")
    comparison = compare_runs(table, question, rule=rule, others=False)
    contrasts = [c for c in comparison.contrasts if c.family != NOT_ASKED]
    if not contrasts:
        raise CompareError(f"claim={claim!r}: the two arms share no setting; train both alike")
    outcome = _outcome(contrasts, sign)
    because = _because(contrasts, sign, outcome)
    if outcome == "supported" and table.chosen_on_reported:
        outcome = "undecided"
        because = f"chosen on the seeds that are reported, which supports no claim; {because}"
    return Answer(
        claim=f"{arm} {sign} {baseline}",
        outcome=outcome,
        sentence=f"{outcome}: {arm} {sign} {baseline}; {because}",
        comparison=comparison,
    )


def _outcome(contrasts: Sequence[Contrast], sign: str) -> ClaimOutcome:
    if any(contrast.verdict in _REFUTES[sign] for contrast in contrasts):
        return "refuted"
    if all(_supports(contrast, sign) for contrast in contrasts):
        return "supported"
    return "undecided"


def _supports(contrast: Contrast, sign: str) -> bool:
    return _alone(contrast).verdict == _SUPPORTS[sign]


def _alone(contrast: Contrast) -> Contrast:
    """Return the contrast as its own whole family, as a conjunction takes it."""
    raw: dict[str, Any] = {f"{name}_adjusted": getattr(contrast, name) for name in ADJUSTED}
    alone = dataclasses.replace(contrast, family_size=1, **raw)
    alone = dataclasses.replace(alone, verdict=verdict_of(alone)[0])
    return dataclasses.replace(alone, sentence=sentence(alone))


def _because(contrasts: Sequence[Contrast], sign: str, outcome: ClaimOutcome) -> str:
    """Return the contrast that tells most, and how many there were."""
    telling = {
        "refuted": [c for c in contrasts if c.verdict in _REFUTES[sign]],
        "undecided": [c for c in contrasts if not _supports(c, sign)],
        "supported": [_alone(c) for c in contrasts],
    }[outcome]
    first = telling[0].sentence
    if len(contrasts) == 1:
        return first
    return f"{len(telling)} of {count(len(contrasts), 'setting')} so; first: {first}"

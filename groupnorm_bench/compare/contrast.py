"""A contrast and a comparison, as values: what compare returns and report draws."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from groupnorm_bench.compare.aggregates import Aggregate
from groupnorm_bench.compare.cells import CellSummary
from groupnorm_bench.compare.question import Decide, Question
from groupnorm_bench.runs import finite

Verdict = Literal["better", "worse", "equal", "undecided"]
Rule = Literal["anytime", "planned"]
"""`planned`: the number of seeds was fixed beforehand, and the results are looked at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscordantImages:
    """McNemar's diagnostic for one pair: test images that only one of the two arms got right."""

    seed: int
    only_arm: int
    only_baseline: int
    p: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """Arm against baseline at one setting of the rest.

    Differences are arm minus baseline, in points where the metric is an accuracy. A number that
    this many runs cannot give is None.
    """

    arm: str
    baseline: str
    setting: dict[str, Any]
    code: str
    """The version of the code that computed both arms."""
    metric: str
    unit: str
    """"points", or "" where the metric keeps its own unit."""
    n_pairs: int
    """Seeds that both arms finished; 0 where nothing pairs."""
    n_arm: int
    n_baseline: int
    arm_mean: float
    """Over the runs in the contrast: the paired ones, or all where nothing pairs."""
    baseline_mean: float
    mean_difference: float
    ci_low: float | None = None
    """Of Student's t (Welch's where nothing pairs): for a number of seeds fixed beforehand."""
    ci_high: float | None = None
    interval: Literal["student-t", "welch", "none"] = "none"
    new_digits_low: float | None = None
    """Over pairs and test images: for digits other than this test set's."""
    new_digits_high: float | None = None
    p: float | None = None
    """Of the exact sign-flip test, which assumes nothing of how differences are spread."""
    p_adjusted: float | None = None
    """Holm over the family, as every `..._adjusted`."""
    smallest_p: float | None = None
    """The smallest p that the sign-flip test can give with this many seeds, before Holm."""
    t_p: float | None = None
    """Of Student's t (Welch's where nothing pairs): for a number of seeds fixed beforehand."""
    t_p_adjusted: float | None = None
    t_equal_p: float | None = None
    """Of two one-sided t-tests against a difference of the margin or more."""
    t_equal_p_adjusted: float | None = None
    n_prefix: int = 0
    """Pairs that the anytime numbers read: in the order of the seeds, up to the first open one."""
    e_value: float | None = None
    anytime_p: float | None = None
    """Valid at whatever time one looks: one over the largest e-value so far."""
    anytime_p_adjusted: float | None = None
    anytime_low: float | None = None
    """The interval that holds at all times at once; None while it has no bound."""
    anytime_high: float | None = None
    equal_p: float | None = None
    """Anytime, against a difference of the margin or more; None without a margin."""
    equal_p_adjusted: float | None = None
    rule: Rule = "anytime"
    """Which of these the verdict follows."""
    probability_worse: float | None = None
    """From the posterior of the mean difference, with the margin as the region of equality."""
    probability_equal: float | None = None
    probability_better: float | None = None
    lost_arm: int = 0
    """Settled seeds that gave no result: diverged, pruned, or without the metric."""
    lost_baseline: int = 0
    n_settled: int = 0
    """Seeds settled in both arms: pairs and lost ones."""
    chance_difference: float | None = None
    """Mean difference with lost runs scored at chance; None where none was lost."""
    chance_p: float | None = None
    """The rule's p of that; what may stand in a verdict's way."""
    floor: float = 0.0
    """The least standard deviation of a difference that is reckoned with: half a test image."""
    family_size: int = 1
    family: str = ""
    """The question or the sweep that asked for it; empty where none did."""
    decide: Decide = "each"
    """At one setting, or by the mean or the slope over several."""
    sd_difference: float | None = None
    """Of one difference over seeds: of a pair, or of two independent runs where nothing pairs."""
    correlation: float | None = None
    """Between the arms over seeds: what pairing is worth."""
    effect_size: float | None = None
    """Standardised (paired) difference, corrected for small samples."""
    probability_of_improvement: float | None = None
    """That the arm beats the baseline (at the same seed where paired), ties counted half."""
    improvement_low: float | None = None
    improvement_high: float | None = None
    margin: float | None = None
    alpha: float = 0.05
    verdict: Verdict = "undecided"
    why_undecided: str = ""
    """What stands in the way of a verdict that the numbers alone would give."""
    seeds_needed: int | None = None
    """Further seeds after which half of the simulated contrasts like this one are decided; above
    1,000 that so many are not enough; None where decided or unknown."""
    seeds_needed_low: int | None = None
    """Ten per cent are by then."""
    seeds_needed_high: int | None = None
    """Ninety per cent are by then."""
    time_ratio: float | None = None
    """The arm's seconds per epoch over the baseline's."""
    seeds: tuple[int, ...] = ()
    """The paired seeds, ascending; `differences` follows their order, lost ones left out."""
    differences: tuple[float, ...] = ()
    discordant: tuple[DiscordantImages, ...] = ()
    notes: tuple[str, ...] = ()
    label: str = ""
    """What sets this setting apart from the comparison's others, as `batch_size=8`."""
    sentence: str = ""
    """The verdict in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmGroups:
    """The arms at one setting, best mean first, each with its letters."""

    label: str
    letters: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All that `gnbench compare` prints and `gnbench report` draws first."""

    metric: str
    baseline: str
    alpha: float
    cells: tuple[CellSummary, ...]
    contrasts: tuple[Contrast, ...]
    aggregates: tuple[Aggregate, ...]
    """Arms over all the settings that they share; empty for a single one."""
    groups: tuple[ArmGroups, ...]
    """Arms that cannot be told apart share a letter; only of all pairs."""
    question: Question
    rule: Rule
    common: dict[str, Any]
    """Settings that all the runs share."""
    notes: tuple[str, ...]
    """What a reader must know: splits, seeds without partner, diverged runs, skipped folders."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that are not finite become None."""
        return finite(dataclasses.asdict(self) | {"question": self.question.to_dict()})

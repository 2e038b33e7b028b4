"""A contrast and a comparison, as values: what compare returns and report draws."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from groupnorm_bench.compare.cells import CellSummary
from groupnorm_bench.runs import finite

Verdict = Literal["better", "worse", "equal", "undecided"]


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
    ci_high: float | None = None
    interval: Literal["student-t", "bootstrap", "welch", "none"] = "none"
    new_digits_low: float | None = None
    """Two-level interval over pairs and test images: for digits other than this test set's."""
    new_digits_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    """Holm over the family; what the verdict uses."""
    smallest_p: float | None = None
    """The smallest p that the test can give with this many seeds, before Holm."""
    family_size: int = 1
    sd_difference: float | None = None
    """Of one difference over seeds: of a pair, or of two independent runs where nothing pairs."""
    correlation: float | None = None
    """Between the arms over seeds: what pairing is worth."""
    effect_size: float | None = None
    """Standardised (paired) difference, corrected for small samples."""
    probability_of_improvement: float | None = None
    """That the arm beats the baseline (at the same seed where paired), ties counted half."""
    margin: float | None = None
    alpha: float = 0.05
    verdict: Verdict = "undecided"
    seeds_needed: int | None = None
    """Further seeds that would settle an undecided contrast; None where decided or unknown."""
    seeds_needed_for: Literal["difference", "equality"] | None = None
    """What those seeds would likely show, were the difference seen the true one."""
    time_ratio: float | None = None
    """The arm's seconds per epoch over the baseline's."""
    seeds: tuple[int, ...] = ()
    """The paired seeds, ascending; `differences` follows their order."""
    differences: tuple[float, ...] = ()
    discordant: tuple[DiscordantImages, ...] = ()
    notes: tuple[str, ...] = ()
    label: str = ""
    """What sets this setting apart from the comparison's others, as `batch_size=8`."""
    sentence: str = ""
    """The verdict in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All that `gnbench compare` prints and `gnbench report` draws first."""

    metric: str
    baseline: str
    alpha: float
    cells: tuple[CellSummary, ...]
    contrasts: tuple[Contrast, ...]
    common: dict[str, Any]
    """Settings that all the runs share."""
    notes: tuple[str, ...]
    """What a reader must know: splits, seeds without partner, diverged runs, skipped folders."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that are not finite become None."""
        return finite(dataclasses.asdict(self))

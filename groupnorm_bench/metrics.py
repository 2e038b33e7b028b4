"""The table of metrics: what the rest must know of each, and how its values are printed.

A new metric is an entry in `METRICS`; one that is not there (of a training function of the user's
own, or of another program) gets the spec that `metric_spec` reads from its name. Accuracies are
fractions wherever they are kept, and become per cent only where a person reads them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

EpochRow = dict[str, float]
"""One row of a run's history: metric keys to numbers (design.md, Metrics)."""

PERCENT = 100.0
"""The factor of an accuracy: from a fraction to the per cent printed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """What is known of a metric before any value of it is."""

    name: str
    factor: float = 1.0
    """From the value kept to the value printed; `PERCENT` for accuracies, whose differences are
    then in points."""
    larger_is_better: bool = True
    decimals: int | None = None
    """Digits behind the point of a printed value under 1,000; None: four significant ones, for a
    metric whose size nobody knows."""
    per_epoch: bool = False
    """Every row of a run's history has it."""
    in_summary: bool = False
    """The summary of a finished run has it."""
    bounds: tuple[float, float] | None = None
    """Between what it lies, in the unit kept."""
    of_machine: bool = False
    """It depends on the machine and its threads: values of two are no comparison."""
    chance: Callable[[int], float] | None = None
    """Its value for guessing among so many classes, in the unit kept; None where there is none."""

    @property
    def is_percent(self) -> bool:
        return self.factor == PERCENT

    @property
    def unit(self) -> str:
        """The unit of a difference: `points`, or "" where the metric keeps its own."""
        return "points" if self.is_percent else ""

    @property
    def title(self) -> str:
        """How an axis or a column names it: `test/accuracy` is `test accuracy (%)`."""
        words = self.name.replace("/", " ").replace("_", " ")
        return f"{words} (%)" if self.is_percent else words

    def text(self, value: float | None, *, grouped: bool = False) -> str:
        """Return a value, in the unit printed, as people read it; "" for None.

        Args:
            value: the value kept, times `factor`.
            grouped: set commas between thousands.
        """
        if value is None:
            return ""
        if self.decimals is None:
            return f"{value:.4g}"
        decimals = self.decimals if abs(value) < 1_000 else 0
        return f"{value:,.{decimals}f}" if grouped else f"{value:.{decimals}f}"

    def shown(self, kept: float | None) -> str:
        """Return a value, as it is kept, for a person, accuracies with their unit: `97.31 %`.

        "" for None.
        """
        if kept is None:
            return ""
        return self.text(kept * self.factor) + (" %" if self.is_percent else "")

    def difference(self, value: float | None) -> str:
        """Return a difference, in the unit printed, with its sign; "?" for None.

        Points have two decimals; what has a unit of its own has three significant digits, for a
        difference may be of any size.
        """
        if value is None:
            return "?"
        return f"{value:+.2f}" if self.is_percent else f"{value:+.3g}"


def _accuracy(name: str, *, per_epoch: bool = False, in_summary: bool = False) -> MetricSpec:
    return MetricSpec(
        name=name,
        factor=PERCENT,
        decimals=2,
        per_epoch=per_epoch,
        in_summary=in_summary,
        bounds=(0.0, 1.0),
        chance=lambda num_classes: 1 / num_classes,
    )


def _loss(name: str, *, per_epoch: bool = False, in_summary: bool = False) -> MetricSpec:
    return MetricSpec(
        name=name,
        larger_is_better=False,
        decimals=4,
        per_epoch=per_epoch,
        in_summary=in_summary,
        chance=lambda num_classes: math.log(num_classes),
    )


_SMALLER_IS_BETTER = re.compile(r"loss|error|seconds|memory")
_OF_MACHINE = re.compile(r"seconds|per_second|memory")


def _of_machine(
    name: str, *, decimals: int, per_epoch: bool = False, in_summary: bool = False
) -> MetricSpec:
    return MetricSpec(
        name=name,
        larger_is_better="per_second" in name,
        decimals=decimals,
        per_epoch=per_epoch,
        in_summary=in_summary,
        of_machine=True,
    )


METRICS: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        _accuracy("val/accuracy", per_epoch=True, in_summary=True),
        _loss("val/loss", per_epoch=True),
        _accuracy("train/accuracy", per_epoch=True),
        _loss("train/loss", per_epoch=True),
        _of_machine("perf/images_per_second", decimals=0, per_epoch=True),
        _of_machine("perf/train_seconds", decimals=2, per_epoch=True),
        # of norms with running statistics only; a difference of accuracies, so in points
        MetricSpec(name="norm/eval_gap", factor=PERCENT, decimals=2, larger_is_better=False),
        _accuracy("val/accuracy_best", in_summary=True),
        MetricSpec(name="val/best_epoch", decimals=0, in_summary=True),
        _accuracy("test/accuracy", in_summary=True),
        _loss("test/loss", in_summary=True),
        _of_machine("train_seconds", decimals=2, in_summary=True),
        _of_machine("images_per_second", decimals=0, in_summary=True),
        _of_machine("peak_memory_mb", decimals=0, in_summary=True),
    )
}

GOALS = ("maximize", "minimize")
_smaller_is_better: dict[str, bool] = {}
"""What questions said of metrics that are no entry of `METRICS`."""


def metric_spec(name: str) -> MetricSpec:
    """Return what is known of a metric; of one that is not in `METRICS`, what its name tells.

    A name with `accuracy` in it is a fraction, printed in per cent and in points; one with `loss`,
    `error`, `seconds` or `memory` in it is the better the smaller it is, any other the larger,
    unless a question has said what its goal is; with `seconds`, `per_second` or `memory` it depends
    on the machine.
    """
    if name in METRICS:
        return METRICS[name]
    if "accuracy" in name:
        return _accuracy(name)
    by_name = _SMALLER_IS_BETTER.search(name) is not None
    return MetricSpec(
        name=name,
        larger_is_better=not _smaller_is_better.get(name, by_name),
        of_machine=_OF_MACHINE.search(name) is not None,
    )


def set_goal(name: str, goal: str) -> None:
    """Note whether a metric that is no entry of `METRICS` is the better the larger it is.

    Raises:
        ValueError: its goal is known to be the other one.
    """
    if name not in METRICS and "accuracy" not in name:
        _smaller_is_better[name] = goal == "minimize"
    elif metric_spec(name).larger_is_better != (goal == "maximize"):
        other = next(known for known in GOALS if known != goal)
        raise ValueError(f"goal={goal!r} is not that of metric {name}, which is to {other}")

"""Which class was taken for which: a matrix for each arm, and the commonest mistakes in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.compare.series import confusions

MOST_CLASSES = 20
"""A matrix of more of them is no table that a person reads; then only the mistakes are told."""
_MISTAKES = 8
_STRONGEST = 45
"""Per cent of the colour that the commonest mistake is shaded with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Shares in per cent of a class' images: a row each, a column for what they were read as."""

    title: str
    shares: Sequence[Sequence[float]]
    shades: Sequence[Sequence[int]]
    """How strongly a cell is coloured, in per cent; the diagonal is not."""

    @classmethod
    def of(cls, title: str, shares: np.ndarray[Any, Any]) -> Confusion:
        """Return it with the commonest mistake coloured most."""
        wrong = shares * (1 - np.eye(len(shares)))
        shades = np.rint(_STRONGEST * wrong / (wrong.max() or 1.0)).astype(int)
        return cls(title=title, shares=shares.tolist(), shades=shades.tolist())


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusions:
    """What the runs of one data set took for what."""

    classes: Sequence[str]
    matrices: Sequence[Confusion]
    """All arms, each weighing the same, then every arm; none of more than `MOST_CLASSES`."""
    mistakes: Sequence[str]
    """The commonest ones over all arms, as `4 read as 9: 2.1 % of them`."""


def confusions_of(
    rows: Sequence[RunRow], arms: Sequence[str], labels: Any, classes: Sequence[str]
) -> Confusions | None:
    """Return the confusions of runs on one data set; None where no run kept them.

    Args:
        rows: the runs.
        arms: in the order they are shown.
        labels: the true class of each test image.
        classes: the classes' names.
    """
    found = confusions(rows, labels, len(classes))
    shares = {arm: 100 * found[arm] for arm in arms if arm in found}
    if not shares:
        return None
    overall = np.mean(list(shares.values()), axis=0)
    matrices = []
    if len(classes) <= MOST_CLASSES:
        titled = {"all arms": overall, **(shares if len(shares) > 1 else {})}
        matrices = [Confusion.of(title, matrix) for title, matrix in titled.items()]
    return Confusions(classes=classes, matrices=matrices, mistakes=_mistakes(overall, classes))


def _mistakes(shares: np.ndarray[Any, Any], classes: Sequence[str]) -> list[str]:
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0.0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    places = [divmod(int(place), len(classes)) for place in order]
    return [
        f"{classes[true]} read as {classes[read]}: {wrong[true, read]:.1f} %"
        for true, read in places
        if wrong[true, read] > 0
    ]

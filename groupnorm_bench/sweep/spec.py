"""The sweep file as W&B reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["grid", "random", "bayes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """What a search goes by."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = None
    """The sweep may stop once a run's metric is this good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperband:
    """W&B's `early_terminate`: at each band of epochs the top 1/eta of the runs go on."""

    min_iter: int
    """The first band; the next are `min_iter * eta**k`."""
    max_iter: int | None = None
    """No band from this epoch on."""
    eta: int = 3

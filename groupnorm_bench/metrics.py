"""What the rest must know of a metric: its unit, its direction and how it is printed."""

from __future__ import annotations

EpochRow = dict[str, float]
"""One row of a run's history: metric keys to numbers (design.md, Metrics)."""

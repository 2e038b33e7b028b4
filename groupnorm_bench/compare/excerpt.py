"""The part of a large comparison that a person can read; the formats for programs have it all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from groupnorm_bench.compare.contrast import Comparison, Contrast
from groupnorm_bench.compare.judge import NOT_ASKED
from groupnorm_bench.compare.order import setting_key
from groupnorm_bench.wording import count

MOST_READ = 1_000
"""Contrasts that a table for people lists."""
MOST_ALIKE = 20
"""Notes that say the same of one cell each."""


def excerpt(comparison: Comparison, most: int | None = None) -> Comparison:
    """Return the comparison with the `most` contrasts that tell most, and a note that says so.

    `MOST_READ` of them if None.

    Those that the question names count first, decided ones before the others, large differences
    before small ones. They keep their order, and the cells are theirs and their baselines'; where
    nothing is contrasted, the first ones. A comparison that is no larger is returned as it is.
    """
    most = MOST_READ if most is None else most
    contrasts = comparison.contrasts
    if max(len(contrasts), len(comparison.cells) // 2) <= most:
        return comparison
    telling = sorted(range(len(contrasts)), key=lambda at: _rank(contrasts[at]))[:most]
    kept = tuple(contrasts[at] for at in sorted(telling))
    named = {
        (arm, setting_key(contrast.setting), contrast.code)
        for contrast in kept
        for arm in (contrast.arm, contrast.baseline)
    }
    cells = [c for c in comparison.cells if (c.arm, setting_key(c.setting), c.code) in named]
    cells = cells or list(comparison.cells[:most])
    note = (
        f"listed: {count(len(cells), 'cell')} of {len(comparison.cells):,}, those of the "
        f"{len(kept):,} contrasts of {len(contrasts):,} that tell most (asked for, decided, "
        "large); gnbench compare --format csv has all"
    )
    notes = (*comparison.notes, note)
    return dataclasses.replace(
        comparison,
        contrasts=kept,
        cells=tuple(cells),
        groups=comparison.groups[:most],
        notes=notes,
    )


def _rank(contrast: Contrast) -> tuple[bool, bool, bool, float]:
    return (
        contrast.family == NOT_ASKED,
        contrast.decide == "each",
        contrast.verdict == "undecided",
        -abs(contrast.mean_difference),
    )


def first_of(notes: Sequence[str], alike: str) -> list[str]:
    """Return the first of many notes that say the same of a cell each, and how many are left."""
    left = len(notes) - MOST_ALIKE
    return [*notes] if left <= 1 else [*notes[:MOST_ALIKE], f"and {left:,} more {alike}"]

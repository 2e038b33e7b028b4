"""Values and amounts as a person reads them, the same in every place."""

from __future__ import annotations

from typing import Any


def count(number: int, noun: str) -> str:
    """Return an amount with its noun, in the plural where it is not one: `1,200 runs`.

    >>> count(1, "seed"), count(1200, "run")
    ('1 seed', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: 40 s, 12 min, 3.5 h.

    >>> [duration(s) for s in (3.2, 75, 9000)]
    ['3.2 s', '75 s', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def setting_value(value: Any) -> str:
    """Return a setting's value: numbers without needless digits, a dash where there is none.

    >>> [setting_value(value) for value in (0.001, 1e30, 64, "adam", None)]
    ['0.001', '1e+30', '64', 'adam', '-']
    """
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)

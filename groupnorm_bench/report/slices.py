"""Runs cut into slices that one view may show together: all else but the figure's axes equal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.compare.order import describe, setting_order, varying
from groupnorm_bench.compare.rows import RunRow

MAX_VIEWS = 24
"""A search over a continuous setting has a slice per run; a figure shows the fullest ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Runs that differ in arm, seed and the figure's own axes only."""

    label: str
    rows: Sequence[RunRow]

    def by_arm(self) -> dict[str, list[RunRow]]:
        """Return its runs by arm, in the order of tables."""
        groups: dict[str, list[RunRow]] = {}
        for row in self.rows:
            groups.setdefault(row.arm, []).append(row)
        return dict(sorted(groups.items(), key=lambda item: item[1][0].order))


def slices(rows: Sequence[RunRow], across: Collection[str] = ()) -> tuple[list[Slice], str]:
    """Cut runs into slices, in the order of settings; a mix of code versions is cut too.

    Args:
        rows: the runs to show.
        across: settings on the figure's axes, which may differ within a slice.

    Returns:
        at most `MAX_VIEWS` slices, the ones with most runs, and a line that says so ("" else).
    """
    names = [name for name in varying(row.setting for row in rows) if name not in across]
    codes = {row.code for row in rows}
    values: dict[int, tuple[dict[str, Any], tuple[Any, ...]]] = {}
    groups: dict[tuple[Any, ...], list[RunRow]] = {}
    for row in rows:
        own = row.setting  # runs of one cell may share theirs
        if (key := id(own)) not in values:
            values[key] = own, tuple(own.get(name) for name in names)
        groups.setdefault((values[key][1], row.code), []).append(row)
    fullest = sorted(groups, key=lambda key: -len(groups[key]))[:MAX_VIEWS]
    kept = [groups[key] for key in fullest]

    def setting(group: list[RunRow]) -> dict[str, Any]:
        return {name: group[0].setting[name] for name in names if name in group[0].setting}

    kept.sort(key=lambda group: (setting_order(setting(group)), group[0].code))
    found = []
    for group in kept:
        parts = [describe(group[0].setting, names)]
        if len(codes) > 1:
            parts.append(f"code {group[0].code}")
        found.append(Slice(label=", ".join(filter(None, parts)) or "all runs", rows=group))
    return found, fullest_of(len(groups))


def fullest_of(number: int) -> str:
    """Return a line that says how many settings a figure leaves out; "" for none."""
    return f"The {MAX_VIEWS} fullest of {number:,} settings can be chosen." * (number > MAX_VIEWS)

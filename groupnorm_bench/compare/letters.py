"""All pairs of arms at a glance: arms that cannot be told apart share a letter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from string import ascii_lowercase

from groupnorm_bench.compare.contrast import ArmGroups, Contrast
from groupnorm_bench.compare.order import setting_key
from groupnorm_bench.compare.pairs import Group


def letters_of(groups: Sequence[Group], contrasts: Sequence[Contrast]) -> tuple[ArmGroups, ...]:
    """Return each setting's arms with their letters, in the order of the table.

    Args:
        groups: the settings.
        contrasts: every pair of arms at every setting, judged.
    """
    by_setting: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in contrasts:
        key = setting_key(contrast.setting), contrast.code
        by_setting.setdefault(key, []).append(contrast)
    found = []
    for group in groups:
        here = by_setting.get((setting_key(group.setting), group.code), [])
        apart = {frozenset((c.arm, c.baseline)) for c in here if c.verdict in ("better", "worse")}
        letters = compact_letters(list(group.arms), apart)
        found.append(ArmGroups(label=group.label, letters=letters))
    return tuple(found)


def compact_letters(arms: Sequence[str], apart: set[frozenset[str]]) -> dict[str, str]:
    """Return the compact letter display (Piepho 2004): insert each pair that differs, absorb.

    Two arms share a letter if and only if they are not `apart`.
    """
    columns = [frozenset(arms)]
    for one, other in itertools.combinations(arms, 2):
        if frozenset((one, other)) not in apart:
            continue
        split = [c for c in columns if not {one, other} <= c]
        for column in columns:
            if {one, other} <= column:
                split += [column - {one}, column - {other}]
        columns = [c for c in dict.fromkeys(split) if not any(c < other for other in split)]
    places = {arm: place for place, arm in enumerate(arms)}
    columns.sort(key=lambda column: sorted(places[arm] for arm in column))
    return {
        arm: "".join(_letter(i) for i, column in enumerate(columns) if arm in column)
        for arm in arms
    }


def _letter(i: int) -> str:
    return ascii_lowercase[i % 26] + ("" if i < 26 else str(i // 26))

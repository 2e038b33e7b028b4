"""A comparison for a person: the answer, one table, what decides the rest. Fits 80 columns.

What is longer (p, probabilities, costs, a sentence per contrast) is `--explain`'s.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from groupnorm_bench.compare import words
from groupnorm_bench.compare.cells import CellSummary
from groupnorm_bench.compare.contrast import Comparison, Contrast
from groupnorm_bench.compare.excerpt import excerpt
from groupnorm_bench.compare.order import describe, setting_key, varying
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.wording import count

STYLES = {"better": "green", "worse": "red", "equal": "cyan", "undecided": "yellow"}
_NEXT = re.compile(r"more seeds until decided: (gnbench sweep .+)")
_LISTED = 6


def draw_answer(comparison: Comparison, places: Sequence[str] = ()) -> RenderableType:
    """Return what `gnbench compare` shows.

    Args:
        comparison: the verdicts.
        places: where the runs lie, for the commands to type next.
    """
    parts: list[RenderableType] = [Text(line) for line in answer(comparison)]
    comparison = excerpt(comparison)
    parts += [Text(), _table(comparison)]
    for group in comparison.groups:
        parts += [
            Text(),
            Text(f"letters{words.at(group.label)}: arms that share one are not told apart"),
        ]
        parts += [Text(f"  {arm}  {letters}") for arm, letters in group.letters.items()]
    steps = list(_steps(comparison, places))
    if steps:
        parts += [Text(), *(Text(step, no_wrap=True, overflow="fold") for step in steps)]
    rest = [note for note in comparison.notes if _NEXT.fullmatch(note) is None]
    if rest:
        parts += [Text(), *(Text(f"note: {note}", style="yellow") for note in rest)]
    return Group(*parts)


def answer(comparison: Comparison) -> Iterator[str]:
    """Yield the answer in a few lines: the best arms, what is decided, what is not."""
    spec = metric_spec(comparison.metric)
    unit = " %" if spec.is_percent else ""
    for label, cell in _best(comparison):
        where = f" at {label}" if label else ""
        share = f", {count(cell.n, 'seed')}"
        yield f"best{where}: {cell.arm}, {comparison.metric} {spec.text(cell.mean)}{unit}{share}"
    contrasts = comparison.contrasts
    if not contrasts:
        yield "One arm alone: there is nothing to compare it with."
        return
    decided = [contrast for contrast in contrasts if contrast.verdict != "undecided"]
    if decided:
        yield f"decided: {len(decided)} of {count(len(contrasts), 'contrast')}"
        for contrast in decided[:_LISTED]:
            yield f"  {_in_short(contrast)}"
        if len(decided) > _LISTED:
            yield f"  and {len(decided) - _LISTED} more: --explain"
    open_ones = [contrast for contrast in contrasts if contrast.verdict == "undecided"]
    if open_ones:
        yield f"undecided: {len(open_ones)} of {count(len(contrasts), 'contrast')}"
        for contrast in open_ones[:_LISTED]:
            yield f"  {_name(contrast)}: {_what_lacks(contrast)}"
        if len(open_ones) > _LISTED:
            yield f"  and {len(open_ones) - _LISTED} more: --explain"


def _best(comparison: Comparison) -> list[tuple[str, CellSummary]]:
    """Return the cell with the best mean at each setting, in words; at most a few settings."""
    larger = metric_spec(comparison.metric).larger_is_better
    names = varying(cell.setting for cell in comparison.cells)
    groups: dict[str, list[CellSummary]] = {}
    for cell in comparison.cells:
        if cell.mean is not None:
            groups.setdefault(describe(cell.setting, names), []).append(cell)
    found = []
    for label, cells in groups.items():
        best = max(cells, key=lambda cell: (cell.mean or 0.0) * (1 if larger else -1))
        if len(cells) > 1:
            found.append((label, best))
    return found[:_LISTED]


def _name(contrast: Contrast) -> str:
    return f"{contrast.arm} against {contrast.baseline}{words.at(contrast.label)}"


def _in_short(contrast: Contrast) -> str:
    difference = f"{words.number(contrast, contrast.mean_difference)} {contrast.unit}".strip()
    verdict = contrast.verdict
    if verdict == "equal" and contrast.margin is not None:
        verdict = f"equal within {contrast.margin:.2g}"  # type: ignore[assignment]
    return f"{_name(contrast)}: {verdict}, {difference} {words.interval(contrast)}"


def _what_lacks(contrast: Contrast) -> str:
    if contrast.why_undecided:
        return contrast.why_undecided
    return words.more_seeds(contrast).replace(" would likely decide it (80 %)", " (80 %)")


def _table(comparison: Comparison) -> Table:
    """Return one row per cell; differences and verdicts against the baseline beside the means."""
    cells = comparison.cells
    names = list(varying(cell.setting for cell in cells))
    codes = len({cell.code for cell in cells}) > 1
    spec = metric_spec(comparison.metric)
    percent = " %" if spec.is_percent else ""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    if codes:
        table.add_column("code", overflow="fold")
    table.add_column("arm", overflow="fold")
    for head in ("n", f"mean{percent}", "sd"):
        table.add_column(head, justify="right", overflow="fold")
    table.add_column("diff", justify="right", no_wrap=True)
    table.add_column(f"{100 * (1 - comparison.alpha):g} % interval", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    judged = {
        (c.arm, setting_key(c.setting), c.code): c
        for c in comparison.contrasts
        if c.decide == "each" and c.baseline == comparison.baseline
    }
    for cell in cells:
        contrast = judged.get((cell.arm, setting_key(cell.setting), cell.code))
        row = [describe(cell.setting, [name]).partition("=")[2] for name in names]
        row += [cell.code] if codes else []
        lost = "".join(f" +{n} {status}" for status, n in cell.other_statuses.items())
        row += [cell.arm, f"{cell.n}{lost}", spec.text(cell.mean), spec.text(cell.sd)]
        if contrast is None:
            row += ["", "", "baseline" if cell.arm == comparison.baseline else ""]
        else:
            difference = words.number(contrast, contrast.mean_difference)
            row += [difference, words.interval(contrast), contrast.verdict]
        table.add_row(*(Text(cell_text, style=STYLES.get(cell_text, "")) for cell_text in row))
    return table


def _steps(comparison: Comparison, places: Sequence[str]) -> Iterator[str]:
    """Yield the commands to type next, each with what it is for."""
    found = [match for note in comparison.notes if (match := _NEXT.fullmatch(note))]
    for match in found:
        yield f"to decide the rest:  {match.group(1)}"
    yield f"to read why:         {shlex.join(['gnbench', 'compare', *places, '--explain'])}"

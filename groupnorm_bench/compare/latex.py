"""A comparison as a LaTeX table, for a paper: booktabs, best in bold, verdicts as marks."""

from __future__ import annotations

import re

from groupnorm_bench.compare.cells import CellSummary
from groupnorm_bench.compare.contrast import Comparison, Contrast
from groupnorm_bench.compare.order import describe, setting_key, varying
from groupnorm_bench.metrics import metric_spec

MARKS = {
    "better": r"$\uparrow$",
    "worse": r"$\downarrow$",
    "equal": r"$\approx$",
    "undecided": "",
}
_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}"}
)
_RULES = {
    "anytime": "verdicts by an anytime-valid test on paired seeds",
    "planned": "verdicts by Student's $t$ on paired seeds, their number fixed beforehand",
}


def to_latex(comparison: Comparison) -> str:
    r"""Return a `table` environment that needs the package booktabs.

    One row per arm, one column per setting: the mean over seeds with its standard deviation, the
    best mean of a column in bold, and a mark where the arm is better, worse or equal to the
    baseline. The caption has n, the test and the meaning of the marks.
    """
    cells = comparison.cells
    names = tuple(varying(cell.setting for cell in cells))
    columns = list(dict.fromkeys(setting_key(cell.setting) for cell in cells))
    labels = {setting_key(cell.setting): describe(cell.setting, names) for cell in cells}
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    best = {column: _best(comparison, column) for column in columns}
    by_place = {(cell.arm, setting_key(cell.setting)): cell for cell in cells}
    judged = {
        (c.arm, setting_key(c.setting)): c
        for c in comparison.contrasts
        if c.decide == "each" and c.baseline == comparison.baseline
    }
    title = _escaped(metric_spec(comparison.metric).title)
    heads = [_escaped(labels[column]) or title for column in columns]
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_caption(comparison, title)}}}",
        f"  \\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"    \toprule",
        f"    Norm & {' & '.join(heads)} \\\\",
        r"    \midrule",
    ]
    for arm in arms:
        places = [(arm, column) for column in columns]
        row = [
            _cell(by_place.get(place), judged.get(place), is_best=best[place[1]] == arm)
            for place in places
        ]
        lines.append(f"    {_escaped(arm)} & {' & '.join(row)} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _best(comparison: Comparison, column: str) -> str | None:
    larger = metric_spec(comparison.metric).larger_is_better
    means = {
        cell.arm: cell.mean
        for cell in comparison.cells
        if cell.mean is not None and setting_key(cell.setting) == column
    }
    if len(means) < 2:
        return None
    choose = max if larger else min
    return choose(means, key=lambda arm: means[arm])


def _cell(cell: CellSummary | None, contrast: Contrast | None, *, is_best: bool) -> str:
    if cell is None or cell.mean is None:
        return "--"
    text = metric_spec(cell.metric).text
    mean = rf"\textbf{{{text(cell.mean)}}}" if is_best else text(cell.mean)
    spread = "" if cell.sd is None else rf" $\pm$ {text(cell.sd)}"
    mark = MARKS[contrast.verdict] if contrast is not None else ""
    return f"{mean}{spread}{f' {mark}' if mark else ''}"


def _caption(comparison: Comparison, title: str) -> str:
    counts = sorted({cell.n for cell in comparison.cells if cell.n})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    baseline = _escaped(comparison.baseline)
    size = max((contrast.family_size for contrast in comparison.contrasts), default=0)
    holm = f", Holm over {size} contrasts" if size > 1 else ""
    return (
        f"{title}, mean $\\pm$ standard deviation over seeds ($n = {n}$); best mean in bold. "
        f"{MARKS['better']} better, {MARKS['worse']} worse, {MARKS['equal']} equal to {baseline} "
        f"within the margin; no mark: undecided, or {baseline} itself "
        f"({_RULES[comparison.rule]}, $\\alpha = {comparison.alpha:g}${holm})."
    )


def _escaped(text: str) -> str:
    return re.sub(r"\s+", " ", text).translate(_SPECIAL)

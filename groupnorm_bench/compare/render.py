"""A comparison as text: an aligned table, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from groupnorm_bench.compare import words
from groupnorm_bench.compare.cells import CellSummary
from groupnorm_bench.compare.contrast import Comparison, Contrast
from groupnorm_bench.compare.order import describe, setting_key, varying
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.settings.config import without_new_defaults
from groupnorm_bench.wording import count, csv_cell, markdown

CSV_COLUMNS = (
    "arm",
    "baseline",
    "n_pairs",
    "mean_difference",
    "ci_low",
    "ci_high",
    "p",
    "p_adjusted",
    "t_p",
    "t_p_adjusted",
    "anytime_low",
    "anytime_high",
    "anytime_p",
    "anytime_p_adjusted",
    "rule",
    "correlation",
    "verdict",
    "seeds_needed",
    "arm_mean",
    "baseline_mean",
    "n_arm",
    "n_baseline",
)
ODDS = "worse/equal/better %"
COSTS = ("s/epoch", "images/s", "MB")
_NUMBERS = frozenset(("n", "mean", "sd", "diff", "p Holm", "batch_size", "lr", *COSTS))


def table_of(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows, a row per cell, of the table that people read."""
    cells = comparison.cells
    names = list(varying(cell.setting for cell in cells))
    if not names and any("batch_size" in cell.setting for cell in cells):
        names = ["batch_size"]
    codes = len({cell.code for cell in cells}) > 1
    heads = [*names, *(["code"] if codes else []), "arm", "n", "mean", "sd"]
    heads += ["diff", f"{100 * (1 - comparison.alpha):g} % interval", "p Holm", ODDS, "verdict"]
    heads += COSTS
    by_cell = {
        _key(c.arm, c.setting, c.code): c
        for c in comparison.contrasts
        if c.decide == "each" and c.baseline == comparison.baseline
    }
    rows = []
    for cell in cells:
        row = [describe(cell.setting, [name]).partition("=")[2] for name in names]
        row += [cell.code] if codes else []
        row += _measured(cell)
        row += _judged(cell, by_cell.get(_key(cell.arm, cell.setting, cell.code)), comparison)
        row += [_digits(cell.seconds_per_epoch, 1), _digits(cell.images_per_second, 0)]
        row += [_digits(cell.peak_memory_mb, 0)]
        rows.append(row)
    return heads, rows


def extras(comparison: Comparison) -> list[tuple[list[str], list[list[str]]]]:
    """Return further tables, as heads and rows: the arms' letters, and arms over settings."""
    tables = []
    for group in comparison.groups:
        heads = ["arm", "letters" + words.at(group.label)]
        tables.append((heads, [[arm, letters] for arm, letters in group.letters.items()]))
    if comparison.aggregates:
        text = metric_spec(comparison.metric).text
        settings = comparison.aggregates[0].n_settings
        heads = [f"over {count(settings, 'setting')}", "n", "mean", "interval", "IQM", "interval"]
        heads += [f"P(beats {comparison.baseline})", "interval"]
        rows = []
        for arm in comparison.aggregates:
            row = [arm.arm, str(arm.n), text(arm.mean), _span(text, arm.mean_low, arm.mean_high)]
            row += [text(arm.iqm), _span(text, arm.iqm_low, arm.iqm_high)]
            row += [_digits(arm.improvement, 2)]
            row += [_span(_share, arm.improvement_low, arm.improvement_high)]
            rows.append(row)
        tables.append((heads, rows))
    return tables


def _share(value: float | None) -> str:
    return _digits(value, 2)


def _span(text: Callable[[float | None], str], low: float | None, high: float | None) -> str:
    return "" if low is None else f"[{text(low)}, {text(high)}]"


def _key(arm: str, setting: dict[str, object], code: str) -> tuple[str, str, str]:
    return arm, setting_key(setting), code


def _measured(cell: CellSummary) -> list[str]:
    spec = metric_spec(cell.metric)
    n = str(cell.n)
    for status, number in cell.other_statuses.items():
        n += f" +{number} {status}"
    return [cell.arm, n, spec.text(cell.mean), spec.text(cell.sd)]


def _judged(cell: CellSummary, contrast: Contrast | None, comparison: Comparison) -> list[str]:
    if contrast is None:
        return ["", "", "", "", "baseline" if cell.arm == comparison.baseline else ""]
    return [
        words.number(contrast, contrast.mean_difference),
        words.interval(contrast),
        words.p_value(words.adjusted_p(contrast)),
        words.odds(contrast),
        contrast.verdict,
    ]


def _digits(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def is_number_column(head: str) -> bool:
    """Return whether a column of `table_of` is read best when it stands on the right."""
    return head in _NUMBERS


def to_text(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table aligned with spaces, for pipes and logs."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        parts = (
            cell.rjust(width) if is_number_column(head) else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=True)
        )
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def to_markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a README; what stands in a cell is text, whatever a run was told."""
    rule = ["---:" if is_number_column(head) else "---" for head in heads]
    written = [[markdown(cell, in_cell=True) for cell in row] for row in (heads, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (written[0], rule, *written[1:]))


def contrasts_of(comparison: Comparison) -> tuple[list[str], list[list[object]]]:
    """Return heads and rows of the contrasts with every digit, settings that vary in front."""
    contrasts = comparison.contrasts
    names = list(varying(contrast.setting for contrast in contrasts)) or ["batch_size"]
    rows: list[list[object]] = []
    for contrast in contrasts:
        settings = [contrast.setting.get(name) for name in names]
        numbers = [getattr(contrast, column) for column in CSV_COLUMNS]
        rows.append([*settings, contrast.metric, *numbers, contrast.code])
    return [*names, "metric", *CSV_COLUMNS, "code"], rows


def to_csv(comparison: Comparison) -> str:
    """Return the contrasts with every digit, a row each, settings that vary in front."""
    heads, rows = contrasts_of(comparison)
    return _csv([heads, *rows])


def runs_to_csv(table: RunTable) -> str:
    """Return the runs, a row each: what they are, their settings, and their summary as kept."""
    heads, rows = table.records()
    return _csv([heads, *rows])


def _csv(rows: Iterable[Iterable[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return buffer.getvalue()


def headline(comparison: Comparison) -> str:
    """Return what the table's numbers are, and the settings that all its runs share."""
    unit = " in points" if metric_spec(comparison.metric).is_percent else ""
    shared = without_new_defaults(comparison.common)
    common = {name: value for name, value in shared.items() if value is not None}
    told = f"{comparison.metric}{unit}, against {comparison.baseline}"
    return "; ".join(filter(None, [told, describe(common, common), words.RULES[comparison.rule]]))

"""Everything a report says, in either format: figures, verdicts in order, runs, provenance."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groupnorm_bench.compare.contrast import Comparison, Contrast, Verdict
from groupnorm_bench.compare.excerpt import excerpt
from groupnorm_bench.compare.order import describe, setting_order, varying
from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.compare.words import asked, promise
from groupnorm_bench.report.accuracy import (
    by_batch_size,
    by_groups,
    by_seconds,
    by_setting,
    differences,
)
from groupnorm_bench.report.charts import Figure
from groupnorm_bench.report.diagnostics import activations, eval_gap, learning_curves
from groupnorm_bench.report.gallery import Gallery, gallery
from groupnorm_bench.report.importance import importance
from groupnorm_bench.report.parallel import parallel
from groupnorm_bench.settings.config import without_new_defaults
from groupnorm_bench.wording import count, printable

HEADLINE_ITEMS = 6
MOST_SHOWN, SHOWN_OF_MORE = 20_000, 5_000
"""Runs with a line of their own: a browser takes no more than the first; of more, the second."""
MOST_ARMS = 64
"""Arms that figures tell apart."""
MOST_ORIGINS = 24
_ORDER: tuple[Verdict, ...] = ("better", "worse", "equal", "undecided")


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One verdict and the contrasts that have it, the largest differences first."""

    verdict: Verdict
    words: str
    """As `better than batch`."""
    items: Sequence[str]
    more: int
    """How many are not among the items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Runs that were made alike: by one version, on one machine, by one command."""

    runs: int
    code: str
    machine: str
    command: str
    when: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What both formats write."""

    table: RunTable
    shown: RunTable
    """The runs that have a line of their own: all of them, up to `MOST_SHOWN`."""
    comparison: Comparison
    listed: Comparison
    """What tables and sentences tell of the comparison: all of it, up to a thousand contrasts."""
    figures: Sequence[Figure]
    """Of another program's table those that need nothing but the metric."""
    gallery: Gallery | None
    """None where no run tells which images it was scored on."""
    settings: Sequence[str]
    """Settings worth a column of the run table: batch size and all that vary."""
    sources: Sequence[str]
    """Where the runs were read from."""
    command: str
    """What makes this report again."""

    @property
    def headlines(self) -> list[Headline]:
        """The verdicts in words, decided ones first."""
        return headlines(self.comparison)

    @property
    def question(self) -> str:
        """What the report is headed by."""
        kind = self.table.rows[0].factor[0]
        what = "normalisation" if kind == "norm" else printable(kind, 60)
        return f"Which {what}, and is the difference real?"

    @property
    def origins(self) -> list[Origin]:
        """Where the runs come from, the most runs first; a table does not tell."""
        return origins(self.table.rows) if self.table.metric is None else []

    @property
    def common(self) -> str:
        """The settings that all runs share, in words."""
        shared = without_new_defaults(self.comparison.common)
        common = {n: v for n, v in shared.items() if v is not None}
        return describe(common, common)

    def figures_of(self, *keys: str) -> list[Figure]:
        """Return those figures of these keys that there are, in the order of the keys."""
        known = {figure.key: figure for figure in self.figures}
        return [known[key] for key in keys if key in known]


def build(
    table: RunTable,
    comparison: Comparison,
    *,
    sources: Sequence[str],
    data_dir: Path,
    command: str,
) -> Content:
    """Return the content of a report on runs and their comparison.

    Args:
        table: the runs the comparison was made from.
        comparison: what `compare_runs` returned.
        sources: where the runs were read from, in words.
        data_dir: where the gallery looks for test images; nothing is fetched.
        command: what makes this report again.
    """
    metric = comparison.metric
    settings = {row.setting_key: row.setting for row in table.rows}
    places = sorted(settings, key=lambda key: setting_order(settings[key]))
    orders = {key: place for place, key in enumerate(places)}
    ordered = sorted(table.rows, key=lambda r: (orders[r.setting_key], r.order, r.seed))
    table = dataclasses.replace(table, rows=tuple(ordered))
    drawn, line = _of_few_arms(table, comparison)
    shown = _shown(drawn)
    lines = [line] if line else []
    if len(shown.rows) < len(drawn.rows):
        lines.append(
            f"the run table, the parallel coordinates, the curves and the images are of "
            f"{len(shown.rows):,} runs of {len(table.rows):,}, those of the lowest seeds; verdicts "
            "and means rest on all"
        )
    comparison = dataclasses.replace(comparison, notes=(*comparison.notes, *lines))
    listed = excerpt(comparison)
    rows = [row for row in drawn.finished if row.metric(metric) is not None]
    seen = [row for row in shown.finished if row.metric(metric) is not None]
    varied = varying(row.setting for row in table.rows)
    figures = [
        differences(listed, rows),
        parallel(shown, metric),
        importance(seen, metric, comparison.alpha),
    ]
    ours = table.is_of_networks
    if ours:
        figures += [
            by_batch_size(rows, metric),
            by_groups(rows, metric),
            learning_curves(seen),
            by_seconds(rows, metric),
            activations(seen),
            eval_gap(seen),
        ]
        varied = ("batch_size", *(name for name in varied if name != "batch_size"))
    else:
        figures.append(by_setting(rows, metric))
    return Content(
        table=table,
        shown=shown,
        comparison=comparison,
        listed=listed,
        figures=figures,
        gallery=gallery(seen, data_dir) if ours else None,
        settings=varied,
        sources=sources,
        command=command,
    )


def _of_few_arms(table: RunTable, comparison: Comparison) -> tuple[RunTable, str]:
    """Return the runs of as many arms as figures can tell apart, and a line where some are left."""
    arms = table.arms
    if len(arms) <= MOST_ARMS:
        return table, ""
    telling = excerpt(comparison, MOST_ARMS).contrasts
    kept = dict.fromkeys([comparison.baseline, *(contrast.arm for contrast in telling), *arms])
    few = set(list(kept)[:MOST_ARMS])
    rows = tuple(row for row in table.rows if row.arm in few)
    line = (
        f"figures and the run table are of {MOST_ARMS} arms of {len(arms):,}: the baseline, and "
        "those whose contrasts tell most"
    )
    return dataclasses.replace(table, rows=rows), line


def _shown(table: RunTable) -> RunTable:
    """Return the runs of the lowest seeds, as many as may be shown, with all that they tell."""
    rows = list(table.rows)
    if len(rows) > MOST_SHOWN:
        of_seed = Counter(row.seed for row in rows)
        seeds: set[int] = set()
        left = SHOWN_OF_MORE
        for seed in sorted(of_seed):
            left -= of_seed[seed]
            if left < 0 and seeds:
                break
            seeds.add(seed)
        rows = [row for row in rows if row.seed in seeds][:SHOWN_OF_MORE]
    return dataclasses.replace(table, rows=tuple(row.whole() for row in rows))


def headlines(comparison: Comparison) -> list[Headline]:
    """Return the verdicts that occur, each with its contrasts in a few words."""
    words = {
        "better": f"better than {comparison.baseline}",
        "worse": f"worse than {comparison.baseline}",
        "equal": f"equal to {comparison.baseline} within the margin",
        "undecided": f"undecided against {comparison.baseline}",
    }
    found = []
    for verdict in _ORDER:
        having = [c for c in comparison.contrasts if c.verdict == verdict]
        having.sort(key=lambda contrast: -abs(contrast.mean_difference))
        if having:
            found.append(
                Headline(
                    verdict=verdict,
                    words=words[verdict],
                    items=[_in_a_few_words(contrast) for contrast in having[:HEADLINE_ITEMS]],
                    more=max(0, len(having) - HEADLINE_ITEMS),
                )
            )
    return found


def _in_a_few_words(contrast: Contrast) -> str:
    size = (
        f"{contrast.mean_difference:+.2f}" if contrast.unit else f"{contrast.mean_difference:+.3g}"
    )
    where = f" at {contrast.label}" if contrast.label else ""
    return f"{contrast.arm}{where} ({size} {contrast.unit}".rstrip() + ")"


def summary_sentence(content: Content) -> str:
    """Return the first sentence of a report: what was compared, and how much of it is decided."""
    comparison = content.comparison
    finished = len(content.table.finished)
    seeds = len({row.seed for row in content.table.finished})
    arms = len(content.table.arms)
    what = f"{count(finished, 'finished run')} of {count(arms, 'arm')} over {count(seeds, 'seed')}"
    contrasts = comparison.contrasts
    if not contrasts:
        return f"{what}; nothing shares a setting with {comparison.baseline}, so nothing is judged."
    decided = Counter(contrast.verdict != "undecided" for contrast in contrasts)[True]
    question = asked(comparison.question)
    return (
        f"{what}: {decided} of {count(len(contrasts), 'contrast')} with {comparison.baseline} "
        f"{'is' if 1 in (decided, len(contrasts)) else 'are'} decided, by {comparison.metric}. "
        f"{f'The question: {question}. ' if question else ''}{promise(comparison)}"
    )


def origins(rows: Sequence[RunRow]) -> list[Origin]:
    """Return how the runs were made, grouped."""
    groups: dict[tuple[str, ...], list[str]] = {}
    words: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for row in rows:
        told = row.environment
        command = told.get("command")
        of_machine = tuple(str(told[name]) for name in _OF_MACHINES if told.get(name))
        python = str(told.get("python", "unknown"))
        key = (row.code, python, of_machine, row.threads, str(command))  # alike in many runs
        if key not in words:
            words[key] = _origin_in_words(row, python, of_machine, command)
        groups.setdefault(words[key], []).append(str(told.get("started") or ""))
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    if len(ordered) > MOST_ORIGINS:
        rest = ordered[MOST_ORIGINS - 1 :]
        others = ("various", f"{len(rest):,} others", "various")
        ordered[MOST_ORIGINS - 1 :] = [(others, [start for _, more in rest for start in more])]
    return [
        Origin(runs=len(starts), code=code, machine=machine, command=command, when=_span(starts))
        for (code, machine, command), starts in ordered
    ]


_OF_MACHINES = ("host", "device_name", "device", "platform")


def _origin_in_words(
    row: RunRow, python: str, of_machine: Sequence[str], command: Any
) -> tuple[str, str, str]:
    """Return code, machine and command of a run, for people."""
    machine = [printable(text) for text in of_machine] or ["unknown"]
    if row.threads is not None:
        machine.append(count(row.threads, "thread"))
    code = f"gnbench {row.code}, python {printable(python)}"
    return code, ", ".join(machine), _command(command)


def _command(command: Any) -> str:
    """Return a recorded command line as a person types it."""
    if isinstance(command, list) and command:
        import shlex

        words = [str(word) for word in command]
        return printable(shlex.join([Path(words[0]).name, *words[1:]]), limit=2_000)
    return printable(str(command), limit=2_000) if command else "unknown"


def _span(starts: Sequence[str]) -> str:
    known = [start for start in starts if start]
    if not known:
        return "unknown"
    first, last = printable(min(known)), printable(max(known))
    return first if first == last else f"{first} to {last}"

"""Make the tables and figures of `docs/results.md` again, from the packed runs beside it.

    python docs/make_results.py [--check]

A study is a sweep of `sweeps/` whose runs lie in `docs/results/NAME.gnb`. What it came to is
written between `<!-- made: NAME -->` and `<!-- end -->`; the words around it are people's. `answer`
is the claim's one sentence, which the README has as well. With --check nothing is written, and the
exit code is 1 where a page would change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from groupnorm_bench.compare.ask import chosen_runs, compare_table
from groupnorm_bench.compare.contrast import Comparison
from groupnorm_bench.compare.render import COSTS, table_of, to_markdown
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.compare.words import asked, interval
from groupnorm_bench.report.accuracy import by_batch_size, by_groups, differences
from groupnorm_bench.report.charts import Figure
from groupnorm_bench.report.content import origins
from groupnorm_bench.report.draw_paper import save_figures
from groupnorm_bench.wording import count, setting_value

DOCS = Path(__file__).parent
PAGES = (DOCS / "results.md", DOCS.parent / "README.md")
PACKS = DOCS / "results"
CLAIM = "claim"
ANSWERS = {
    "better": "Yes, it does",
    "worse": "No: it is worse",
    "equal": "No: they are equal within {margin:g} points",
    "undecided": "That is undecided",
}
BLOCK = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


class Study:
    """A sweep's runs, what they were asked, and what they say."""

    def __init__(self, name: str, packs: Path = PACKS) -> None:
        self.name = name
        pack = packs / f"{name}.gnb"
        self.table = chosen_runs(pack)
        self.comparison = compare_table(self.table, pack)

    @property
    def figure(self) -> Figure:
        """Accuracy over batch size, or over groups, or else the differences."""
        rows = self.table.finished
        if len({row.config.batch_size for row in rows}) > 1:
            return by_batch_size(rows, self.comparison.metric)
        if len({row.config.num_groups for row in rows if row.norm == "group"}) > 1:
            return by_groups(rows, self.comparison.metric)
        return differences(self.comparison, rows)

    def markdown(self) -> str:
        """Return commands, question, table, sentences, choices, figure and origin."""
        contrasts = self.comparison.contrasts
        parts = [
            f"    gnbench sweep sweeps/{self.name}.yaml --out runs/{self.name}\n"
            f"    gnbench compare docs/results/{self.name}.gnb",
            _question(self.comparison),
            to_markdown(*_without_costs(*table_of(self.comparison))),
            "\n".join(f"- {contrast.sentence}" for contrast in contrasts),
            _choices(self.table.finished, self.comparison),
            f"![{self.figure.title}](results/{self.name}.svg)",
            _spent(self.table.rows),
        ]
        return "\n" + "\n\n".join(part for part in parts if part) + "\n\n"


def made(page: str, packs: Path = PACKS) -> str:
    """Return a page with every block made again."""
    return BLOCK.sub(lambda block: block[1] + _block(block["name"], packs) + block[3], page)


def _block(name: str, packs: Path) -> str:
    return answer(Study(CLAIM, packs)) if name == "answer" else Study(name, packs).markdown()


def answer(study: Study) -> str:
    """Return what became of the W&B report's claim, in one sentence."""
    comparison = study.comparison
    contrast = next(c for c in comparison.contrasts if c.arm == "group-g8")
    sizes = sorted({row.config.batch_size for row in study.table.finished})
    said = ANSWERS[contrast.verdict].format(margin=comparison.question.margin)
    return (
        "**Does group norm with 8 groups beat batch norm, as the W&B report says? "
        f"{said}, {contrast.mean_difference:+.2f} points {interval(contrast)}** "
        f"(n = {contrast.n_pairs} paired seeds; the full MNIST, mean over batch sizes "
        f"{', '.join(map(str, sizes))}).\n"
    )


def main(arguments: Sequence[str]) -> int:
    """Write the pages and their figures, or check the pages."""
    changed = False
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        again = made(page)
        changed |= again != page
        if "--check" in arguments:
            continue
        path.write_text(again, encoding="utf-8")
        for block in BLOCK.finditer(page):
            if block["name"] != "answer":
                save_study_figure(Study(block["name"]), PACKS)
    return int(changed and "--check" in arguments)


def save_study_figure(study: Study, folder: Path) -> Path:
    """Write a study's figure as `NAME.svg` into a folder."""
    paths = save_figures([study.figure], folder)
    (drawn,) = (path for path in paths if path.suffix == ".svg")
    for path in paths:
        if path != drawn:
            path.unlink()
    return drawn.replace(folder / f"{study.name}.svg")


def _question(comparison: Comparison) -> str:
    told = asked(comparison.question)
    return f"Asked before the first run: {told}." if told else "No question was asked beforehand."


def _without_costs(
    heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return a table less its speeds and memory: these runs had their processors not alone."""
    kept = [place for place, head in enumerate(heads) if head not in COSTS]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _choices(rows: Sequence[RunRow], comparison: Comparison) -> str:
    """Return what tuning chose, by arm and batch size."""
    if comparison.question.tune is None:
        return ""
    names = list(comparison.question.tune.settings)
    told = dict.fromkeys(
        f"{row.arm} at {row.config.batch_size}: "
        + ", ".join(f"{name} {setting_value(getattr(row.config, name))}" for name in names)
        for row in sorted(rows, key=lambda row: (row.order, row.config.batch_size))
    )
    return f"Chosen on validation: {'; '.join(told)}."


def _spent(rows: Sequence[RunRow]) -> str:
    """Return what was spent, and on what."""
    hours = sum(row.result.summary.get("train_seconds", 0.0) for row in rows) / 3600
    seeds = sorted({row.seed for row in rows})
    lost = len(rows) - sum(row.status == "finished" for row in rows)
    lines = [
        f"{count(len(rows), 'run')} on seeds {seeds[0]} to {seeds[-1]}, {lost} of them lost, "
        f"{hours:.1f} hours of training in all, tuning apart."
    ]
    lines += [
        f"{count(one.runs, 'run')}: {one.code}; {one.when[:16]} to {one.when[-25:-9]}."
        for one in origins(rows)
    ]
    processors = {
        f"{row.result.environment.get('device_name')}, {count(row.threads or 0, 'thread')} a run"
        for row in rows
    }
    lines.append(f"By {'; '.join(sorted(processors))}, shared with other work.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

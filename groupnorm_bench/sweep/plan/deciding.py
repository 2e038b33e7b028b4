"""Seeds until it is decided: a source that adds seeds where the verdict is still open.

After the plan's own runs it asks the verdicts which contrasts are undecided, and hands out the
next seed of their arms and of the baseline; decided arms stop. What it knows it reads from run
folders, so that a sweep typed again goes on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from groupnorm_bench.compare.anytime import fewest_pairs
from groupnorm_bench.compare.choice import as_tuned
from groupnorm_bench.compare.contrast import Comparison, Contrast
from groupnorm_bench.compare.judge import NOT_ASKED
from groupnorm_bench.compare.question import Family, Question
from groupnorm_bench.compare.rows import RunRow, RunTable, armed_by
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.errors import CompareError, SweepError, nearest
from groupnorm_bench.runs import SETTLED, FoundRun, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.question import question_path
from groupnorm_bench.sweep.plan.describe import count_contrasts
from groupnorm_bench.sweep.plan.plan import Plan
from groupnorm_bench.sweep.plan.sources import LATER, Later
from groupnorm_bench.wording import count

MOST_SEEDS = 40
"""Where seeds end at the latest, unless the question or the command says otherwise."""


def refuse_undecidable(plan: Plan) -> None:
    """Refuse what cannot be run until it is decided.

    Raises:
        SweepError: runs are drawn, pruned or cut off, so that pairs would be too; or the plan has
            nothing to compare.
    """
    spec = plan.spec
    reasons = {
        f"method {spec.method}": spec.method != "grid",
        "early_terminate": spec.early_terminate is not None,
        "run_cap": spec.run_cap is not None or plan.num_runs < plan.num_cells * len(plan.seeds),
    }
    for name, is_there in reasons.items():
        if is_there:
            raise SweepError(
                f"{spec.path}: {name} and --until-decided do not go together, for every arm needs "
                "every seed; use method grid with neither early_terminate nor run_cap"
            )
    if not count_contrasts(plan):
        raise SweepError(f"{spec.path} has no two arms to decide between; sweep norm")


def asked_by(plan: Plan) -> Question:
    """Return a grid's question with its baseline named, before any run can change it.

    Raises:
        SweepError: it names an arm that the sweep does not have.
    """
    question = plan.spec.question or Question()
    for name in question.arm:
        if name not in plan.spec.settings:
            where = question_path(plan.spec.path)
            raise SweepError(
                f"{where}: arm={name!r} is not swept{nearest(name, plan.spec.settings)}"
            )
    arms = list(
        dict.fromkeys(question.arm_of(plan.runs[i]) for i in range(plan.num_cells))
    )  # none: a search
    if not arms:
        return question
    for arm in (question.baseline, *(question.arms or ())):
        if arm is not None and arm not in arms:
            raise SweepError(
                f"{question_path(plan.spec.path)}: the sweep has no arm {arm!r}{nearest(arm, arms)}"
            )
    if question.baseline is not None:
        return question
    usual = next((arm for arm in ("batch", "none") if arm in arms), arms[0])
    others = question.arms and tuple(arm for arm in question.arms if arm != usual)
    return question.replace(baseline=usual, arms=others)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the question stands: the verdicts, and what is still open."""

    comparison: Comparison | None
    """None before there is a pair."""
    open: tuple[Contrast, ...]
    decided: tuple[Contrast, ...]


def standing_of(results: Iterable[RunResult], question: Question, family: Family) -> Standing:
    """Return the verdicts on what a sweep asked, from all its results so far."""
    rows = tuple(RunRow(result=result) for result in results)
    if question.arm:
        rows = armed_by(rows, question.arm)
    if question.tune is not None:
        rows = tuple(as_tuned(row, question.tune) for row in rows)
    try:
        comparison = compare_runs(RunTable(rows=rows), question, families=[family])
    except CompareError:  # nothing has finished yet, or no two arms share a setting
        return Standing(None, (), ())
    asked = [c for c in comparison.contrasts if c.family != NOT_ASKED]
    still_open = tuple(c for c in asked if c.verdict == "undecided")
    return Standing(comparison, still_open, tuple(c for c in asked if c.verdict != "undecided"))


class DecidingSource:
    """The plan's runs, then seeds for what is undecided, up to a number of seeds per arm.

    Args:
        plan: a grid; see `refuse_undecidable`.
        found: the run folders at hand, of whatever seeds.
        max_seeds: per arm, those of the plan among them.

    Raises:
        SweepError: the plan cannot be run so, or has more seeds than `max_seeds`.
    """

    def __init__(self, plan: Plan, found: Iterable[FoundRun], max_seeds: int) -> None:
        self.question = asked_by(plan)
        refuse_undecidable(plan)
        if max_seeds < len(plan.seeds):
            raise SweepError(
                f"max_seeds={max_seeds} is fewer than the {count(len(plan.seeds), 'seed')} of the "
                "sweep"
            )
        self.max_seeds, self._plan = max_seeds, plan
        self._cells = {plan.runs[i].cell: plan.runs[i] for i in range(plan.num_cells)}
        tuned = self.question.tune.seeds if self.question.tune else ()
        further = (s for s in itertools.count(max(plan.seeds) + 1) if s not in tuned)
        more = max_seeds - len(plan.seeds)
        self._seeds = (*plan.seeds, *itertools.islice(further, more))
        self._results = {
            run.result.config.name: run.result
            for run in found
            if run.result.cell in self._cells
            and run.result.seed in self._seeds
            and run.result.status in SETTLED
        }
        self._family = Family(
            name=plan.spec.name,
            runs=frozenset(
                config.replace(seed=s).name for config in self._cells.values() for s in plan.seeds
            ),
            contrasts=count_contrasts(plan) or 0,
            file=str(plan.spec.path),
        )
        self._todo = plan.todo()
        self._queue: deque[TrainConfig] = deque()
        self._waiting: set[str] = set()
        self._failed: set[str] = set(plan.failed)
        self._broken: set[str] = set(plan.failed.values())
        """Cells with a run that failed for good: their pairs end there."""
        self._seen = -1
        self._standing = Standing(None, (), ())
        self._told: dict[tuple[str, str], str] = {}

    @property
    def standing(self) -> Standing:
        """The verdicts so far, judged anew where results came since."""
        if self._seen != len(self._results):
            self._seen = len(self._results)
            self._standing = standing_of(self._results.values(), self.question, self._family)
        return self._standing

    @property
    def judged(self) -> Standing:
        """The verdicts as they were last asked for: nothing is computed."""
        return self._standing

    @property
    def results(self) -> list[RunResult]:
        """All that the answer rests on: those of earlier calls first."""
        return list(self._results.values())

    @property
    def has_more(self) -> bool:
        """Whether a run is left to train, were there no result beyond those at hand."""
        todo = any(run.name not in self._results for run in self._plan.todo())
        return todo or next(self._further(), None) is not None

    @property
    def num_contrasts(self) -> int:
        """Contrasts that the sweep asks for, whether or not they have a pair yet."""
        return self._family.contrasts

    @property
    def num_spent(self) -> int:
        """Runs that the answer rests on, earlier ones among them."""
        return len(self._results)

    @property
    def num_asked(self) -> int:
        """Runs that have a result, failed or are under way."""
        return len(self._results.keys() | self._waiting | self._failed)

    @property
    def num_fixed(self) -> int:
        """Runs that `max_seeds` for every arm would have been."""
        return self.max_seeds * len(self._cells)

    def next(self) -> TrainConfig | Later | None:
        """Return a run of the plan, or the next seed of an undecided arm; LATER while results
        are due that may decide it."""
        run = next(self._todo, None)
        if run is None and not self._queue and not self._waiting:
            self._queue.extend(self._further())
        if run is None and self._queue:
            run = self._queue.popleft()
        if run is None:
            return LATER if self._waiting else None
        self._waiting.add(run.name)
        return run

    def _further(self) -> Iterator[TrainConfig]:
        """Yield the runs that undecided contrasts lack: of the next seed, or of as many as it
        takes before anything can be decided."""
        wanted: dict[str, None] = {}
        for contrast in self.standing.open:
            cells = self._cells_of(contrast)
            if self._broken.isdisjoint(cells):
                wanted |= dict.fromkeys(cells)
        fewest = fewest_pairs(self.question.alpha, self.question.first_look)
        is_found = False
        for place, seed in enumerate(self._seeds):
            if is_found and place >= fewest:
                return
            runs = [self._cells[cell].replace(seed=seed) for cell in self._cells if cell in wanted]
            lacking = [run for run in runs if run.name not in self._results]
            is_found = is_found or bool(lacking)
            yield from lacking

    def _cells_of(self, contrast: Contrast) -> list[str]:
        """Return the cells of both arms, at the contrast's setting or at all that it spans."""
        return [
            cell
            for cell, config in self._cells.items()
            if self.question.arm_of(config) in (contrast.arm, contrast.baseline)
            and all(config.cell_settings.get(n) == v for n, v in contrast.setting.items())
        ]

    def report(self, config: TrainConfig, row: Mapping[str, float]) -> bool:
        """Never stop a run early: a pruned one would be lost."""
        return False

    def done(self, config: TrainConfig, result: RunResult | None) -> None:
        """Take a result."""
        self._waiting.discard(config.name)
        if result is None:
            self._broken.add(config.cell)
            self._failed.add(config.name)
        else:
            self._failed.discard(config.name)
            self._results[config.name] = result

    def news(self) -> list[str]:
        """Return a line for each verdict that came with the last seed, once all its runs ended."""
        if self._waiting:
            return []
        lines = []
        for contrast in self.standing.decided:
            key = (contrast.arm, contrast.label)
            if self._told.get(key) != contrast.verdict:
                self._told[key] = contrast.verdict
                lines.append(
                    f"decided after {count(contrast.n_pairs, 'pair')}: {contrast.sentence}"
                )
        return lines


def closing(source: DecidingSource, tuning: int = 0, *, stopped: bool = False) -> list[str]:
    """Return how it ended, in words: each contrast, and what it cost against a fixed design.

    Args:
        source: at its end.
        tuning: runs that went before, to tune the arms; a fixed design would have had them, too.
        stopped: before its end, so that nothing can be said of what it saved.
    """
    standing = source.standing
    lines = [contrast.sentence for contrast in (*standing.decided, *standing.open)]
    spent, fixed = source.num_spent, source.num_fixed
    total = max(len(standing.open) + len(standing.decided), source.num_contrasts)
    tuned = f" and {count(tuning, 'run')} to tune" if tuning else ""
    lines.append(
        f"{len(standing.decided)} of {count(total, 'contrast')} decided by {count(spent, 'run')}"
        f"{tuned}"
    )
    if not stopped:
        lines[-1] += (
            f"; {count(source.max_seeds, 'seed')} for every arm would have taken {fixed:,}: "
            f"{count(fixed - spent, 'run')} saved"
        )
    return lines

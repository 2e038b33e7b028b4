"""What a person sees of a sweep at work: a live table on a terminal, a line a run elsewhere."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from groupnorm_bench.metrics import METRICS, metric_spec
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.sweep.executors.protocol import Ended, Held, Progress, Said, Started, Stopped
from groupnorm_bench.sweep.scheduler import Failed, Retried, Reused, SweepEvent
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    from groupnorm_bench.compare.contrast import Contrast

_REFRESH_PER_SECOND = 4
_RECENT = 50
"""Finished runs that the time left is reckoned from."""
_SHOWN_VERDICTS = 12
_ACCURACY = METRICS["val/accuracy"]

Value = Callable[[RunResult], float | None]


@dataclass(slots=True)
class Slot:
    """A worker and the run it is at."""

    run: TrainConfig
    since: float
    step: int = 0
    epoch: int = 0
    """Whole epochs done."""
    accuracy: float | None = None
    is_val: bool = False


@dataclass(frozen=True, slots=True)
class Best:
    """The best cell so far by its mean over seeds: one lucky seed is not a result."""

    cell: str
    mean: float
    n: int


@dataclass(slots=True)
class Board:
    """The state of a sweep, as its events tell it. Draws nothing."""

    total: int
    """Runs of the plan, reused ones included."""
    slots: int
    metric: str = "val/accuracy"
    lower_is_better: bool = False
    value: Value = lambda result: result.summary.get("val/accuracy")
    counts: dict[str, int] = field(default_factory=dict)
    """Runs by status; `reused` for those that an earlier call trained."""
    at_work: dict[int, Slot] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    has_begun: bool = False
    """Whether a worker has taken up a run."""
    verdicts: Sequence[Contrast] = ()
    """Of a sweep until decided: those still open, as last judged."""
    _values: dict[str, list[float]] = field(default_factory=dict)
    _seconds: list[float] = field(default_factory=list)

    def reuse(self, results: Iterable[RunResult]) -> None:
        """Count results of earlier calls."""
        for result in results:
            self._count("reused", result)

    def hear(self, event: SweepEvent) -> None:
        """Take note of an event."""
        if isinstance(event, Started):
            self.has_begun = True
            self.at_work[event.slot] = Slot(event.run, time.monotonic())
        elif isinstance(event, Progress):
            self._advance(event)
        elif isinstance(event, Ended):
            self._free(event.run)
            self._count(event.result.status, event.result)
            self._seconds.append(event.seconds)
        elif isinstance(event, Reused):
            self._free(event.run)
            self._count("reused", event.result)
        elif isinstance(event, Failed):
            self._free(event.run)
            self._count("failed", None)
        elif isinstance(event, Retried | Held | Stopped):
            self._free(event.run)

    def _advance(self, event: Progress) -> None:
        slot = self.at_work.setdefault(event.slot, Slot(event.run, time.monotonic()))
        slot.step, slot.accuracy, slot.is_val = event.step, event.accuracy, event.row is not None
        if event.row is not None:
            slot.epoch = int(event.row["epoch"])

    def _free(self, run: TrainConfig) -> None:
        for number in [n for n, slot in self.at_work.items() if slot.run == run]:
            del self.at_work[number]

    def _count(self, what: str, result: RunResult | None) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        if result is not None and result.status == "finished":
            value = self.value(result)
            if value is not None:
                self._values.setdefault(result.cell, []).append(value)

    @property
    def num_done(self) -> int:
        return sum(self.counts.values())

    @property
    def best(self) -> Best | None:
        """The cell with the best mean; None before a run has finished."""
        if not self._values:
            return None
        choose = min if self.lower_is_better else max
        cell = choose(self._values, key=lambda name: statistics.fmean(self._values[name]))
        return Best(cell, statistics.fmean(self._values[cell]), len(self._values[cell]))

    @property
    def seconds_left(self) -> float | None:
        """Time left by the pace of the last runs; None before one has ended."""
        if not self._seconds:
            return None
        pace = statistics.fmean(self._seconds[-_RECENT:])
        now = time.monotonic()
        begun = sum(min(now - slot.since, pace) for slot in self.at_work.values())
        return max(pace * (self.total - self.num_done) - begun, 0.0) / max(self.slots, 1)

    def tally(self) -> str:
        """Return the counts in words."""
        order = ("finished", "diverged", "pruned", "failed", "reused")
        return " · ".join(f"{self.counts[what]} {what}" for what in order if what in self.counts)


def make_view(board: Board, *, quiet: bool = False) -> LineView:
    """Return a live table on a terminal, plain lines elsewhere; both on stderr."""
    console = Console(stderr=True)
    if console.is_terminal and not quiet:
        return LiveView(board, console)
    return LineView(board, console, quiet=quiet)


class LineView:
    """Shows a board's changes: one line per finished run, and one for whatever went wrong.

    Only the latter if quiet.
    """

    def __init__(self, board: Board, console: Console, *, quiet: bool = False) -> None:
        self._board, self._console, self._quiet = board, console, quiet
        self._said: set[str] = set()
        self._told: Sequence[Contrast] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to a question while entered."""
        yield

    def hear(self, event: SweepEvent) -> None:
        """Print the event's line, if it has one, after the board has taken note of it."""
        line = trouble(event)
        if line is None and isinstance(event, Ended | Reused) and not self._quiet:
            line = self._ended(event)
        # Every worker says the same of W&B and of the data: once is enough.
        if line is not None and not (isinstance(event, Said) and line in self._said):
            self._said.add(line)
            self._print(line)
        if not self._quiet and self._board.verdicts is not self._told:
            self._told = self._board.verdicts
            if self._told:
                self._print(_still_open(self._told))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _ended(self, event: Ended | Reused) -> str:
        board, result = self._board, event.result
        width = len(str(board.total))
        value = board.value(result)
        shown = metric_spec(board.metric).shown(value)
        number = "" if value is None else f"  {board.metric} {shown}"
        seconds = f"  {event.seconds:.1f} s" if isinstance(event, Ended) else "  reused"
        return (
            f"[{board.num_done:>{width}}/{board.total}] {event.run.name}  {result.status}"
            f"{number}{seconds}"
        )


def _still_open(verdicts: Sequence[Contrast]) -> str:
    """Return a line on what is undecided, the first three with their intervals."""
    told = []
    for contrast in verdicts[:3]:
        who, pairs, difference, interval = _open_verdict(contrast)
        told.append(f"{who} {difference} {interval} by {count(int(pairs), 'pair')}")
    more = f"; and {len(verdicts) - 3} more" if len(verdicts) > 3 else ""
    return f"undecided: {'; '.join(told)}{more}"


def trouble(event: SweepEvent) -> str | None:
    """Return the line for an event that a person should hear of at once, or None."""
    if isinstance(event, Said):
        return event.text
    if isinstance(event, Retried):
        return f"{event.run.name}: {event.reason}; trying again"
    if isinstance(event, Failed):
        twice = " twice" if event.attempts > 1 else ""
        return f"{event.run.name} failed{twice}: {event.reason}"
    return None


class LiveView(LineView):
    """A table that is redrawn in place: a line per worker, the whole, the best so far.

    What went wrong is printed above it.

    At the end only the tally and the best stay: what no worker does any more is nothing to read.
    """

    def __init__(self, board: Board, console: Console) -> None:
        super().__init__(board, console, quiet=True)
        self._is_over = False
        self._live = Live(
            console=console,
            refresh_per_second=_REFRESH_PER_SECOND,
            get_renderable=lambda: draw(board, is_over=self._is_over),
            transient=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._live.stop()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to a question while entered."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()


def draw(board: Board, *, is_over: bool = False) -> RenderableType:
    """Return the table of a sweep as it stands; without its workers once it is over."""
    tally = (_bar(board), _best(board))
    if is_over:
        return Group(*tally)
    return Group(_workers(board), *tally, *([_verdicts(board)] if board.verdicts else []))


def _verdicts(board: Board) -> Table:
    """Return what is still open: with every seed the intervals shrink, until they leave zero."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("undecided", "pairs", "difference", "interval"):
        table.add_column(name, justify="left" if name == "undecided" else "right", no_wrap=True)
    for contrast in board.verdicts[:_SHOWN_VERDICTS]:
        table.add_row(*_open_verdict(contrast))
    if len(board.verdicts) > _SHOWN_VERDICTS:
        table.add_row(f"and {len(board.verdicts) - _SHOWN_VERDICTS} more", "", "", "")
    return table


def _open_verdict(contrast: Contrast) -> tuple[str, str, str, str]:
    from groupnorm_bench.compare import words

    who = f"{contrast.arm} against {contrast.baseline}{words.at(contrast.label)}"
    difference = words.number(contrast, contrast.mean_difference)
    return who, str(contrast.n_pairs), difference, words.interval(contrast)


def _workers(board: Board) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("worker", "run", "epoch", "step", "accuracy", "time"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    now = time.monotonic()
    for number in range(min(board.slots, max(board.total, 1))):
        slot = board.at_work.get(number)
        if slot is None:
            waits = "-" if board.has_begun else f"starting {clock(now - board.started)}"
            table.add_row(str(number + 1), Text(waits, style="dim"), "", "", "", "")
            continue
        table.add_row(
            str(number + 1),
            slot.run.name,
            _epoch(slot),
            f"{slot.step:,}",
            "" if slot.accuracy is None else f"{_ACCURACY.shown(slot.accuracy)} {_part(slot)}",
            clock(now - slot.since),
        )
    return table


def _epoch(slot: Slot) -> str:
    if isinstance(slot.run, OwnConfig):
        return str(slot.epoch)
    if slot.run.max_steps is not None:
        return f"{slot.step / slot.run.max_steps:.0%}"
    return f"{slot.epoch}/{slot.run.epochs}"


def _part(slot: Slot) -> str:
    return "val  " if slot.is_val else "train"


def _bar(board: Board) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    left = board.seconds_left
    grid.add_row(
        ProgressBar(total=max(board.total, 1), completed=board.num_done, width=30),
        f"{board.num_done}/{board.total}",
        board.tally(),
        "" if left is None else f"{clock(left)} left",
    )
    return grid


def _best(board: Board) -> Text:
    best = board.best
    if best is None:
        return Text("best so far: -", style="dim")
    seeds = "seed" if best.n == 1 else "seeds"
    name = short_cell(best.cell)
    mean = f"{board.metric} {metric_spec(board.metric).shown(best.mean)}"
    return Text.assemble("best so far: ", (name, "bold"), f"  {mean}, n = {best.n} {seeds}")


def short_cell(cell: str) -> str:
    """Return a cell's name without its hash."""
    return cell.rpartition("-")[0]


def clock(seconds: float) -> str:
    """Return seconds as `0:07`, `12:30` or `2:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""What a person sees of a sweep: the board's account, the lines, the table."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from groupnorm_bench.cli.views.sweep import Board, LineView, LiveView, clock, draw
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.protocol import Ended, Progress, Said, Started, Stopped
from groupnorm_bench.sweep.scheduler import Failed, Retried, Reused
from tests.support.run_folders import table_of


def config(norm="batch", seed=0):
    return TrainConfig(norm=norm, dataset="mnist-5k", epochs=3, seed=seed)


def finished(run, accuracy):
    return RunResult(config=run, status="finished", summary={"val/accuracy": accuracy})


def ended(run, accuracy, slot=0, seconds=10.0):
    return Ended(run, slot, finished(run, accuracy), seconds)


def text_of(renderable):
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()


def test_the_best_cell_is_the_best_mean_and_not_the_luckiest_seed():
    board = Board(total=4, slots=1)
    for norm, seed, accuracy in [
        ("batch", 0, 0.99),
        ("batch", 1, 0.90),
        ("none", 0, 0.96),
        ("none", 1, 0.95),
    ]:
        board.hear(ended(config(norm, seed), accuracy))
    assert board.best.cell == config("none").cell
    assert board.best.mean == pytest.approx(0.955)
    assert board.best.n == 2


def test_the_best_loss_is_the_smallest():
    board = Board(
        total=2,
        slots=1,
        metric="val/loss",
        lower_is_better=True,
        value=lambda result: 1 - result.summary["val/accuracy"],
    )
    board.hear(ended(config("batch"), 0.9))
    board.hear(ended(config("none"), 0.8))
    assert board.best.cell == config("batch").cell


def test_diverged_and_failed_runs_have_no_part_in_the_best():
    board = Board(total=2, slots=1)
    run = config()
    board.hear(Ended(run, 0, RunResult(config=run, status="diverged"), 1.0))
    board.hear(Failed(config("none"), "ValueError", ""))
    assert board.best is None
    assert board.tally() == "1 diverged · 1 failed"
    assert board.num_done == 2


def test_a_slot_shows_its_run_until_the_run_is_answered_for():
    board = Board(total=2, slots=2)
    run = config()
    board.hear(Started(run, 1))
    board.hear(Progress(run, 1, 40, 0.7))
    assert (board.at_work[1].step, board.at_work[1].is_val) == (40, False)
    board.hear(Progress(run, 1, 54, 0.8, {"epoch": 1, "val/accuracy": 0.8}))
    assert (board.at_work[1].epoch, board.at_work[1].is_val) == (1, True)
    for last in (Retried(run, "killed"), Stopped(run, 1), ended(run, 0.9, slot=1)):
        board.hear(Started(run, 1))
        board.hear(last)
        assert board.at_work == {}


def test_time_left_follows_the_pace_and_the_number_of_workers():
    board = Board(total=10, slots=2)
    assert board.seconds_left is None
    board.reuse([finished(config(seed=9), 0.9)])
    for seed in range(4):
        board.hear(ended(config(seed=seed), 0.9, seconds=20.0))
    assert board.seconds_left == pytest.approx(5 * 20 / 2)
    board.hear(Started(config(seed=5), 0))
    board.at_work[0].since = time.monotonic() - 10
    assert board.seconds_left == pytest.approx((5 * 20 - 10) / 2, abs=0.5)


def test_lines_tell_each_finished_run_once_and_every_trouble():
    board = Board(total=12, slots=1)
    console = Console(file=io.StringIO(), width=40)
    view = LineView(board, console)
    run = config()
    events = [
        Started(run, 0),
        Said(run, 0, "W&B: offline"),
        Said(run, 1, "W&B: offline"),
        Progress(run, 0, 3, 0.5),
        ended(run, 0.91234, seconds=12.34),
        Reused(config(seed=1), finished(config(seed=1), 0.8)),
        Retried(config(seed=2), "killed"),
        Failed(config(seed=2), "ValueError: [no] good", "Traceback ..."),
    ]
    for event in events:
        board.hear(event)
        view.hear(event)
    name = config(seed=2).name
    assert console.file.getvalue().splitlines() == [
        "W&B: offline",
        f"[ 1/12] {run.name}  finished  val/accuracy 91.23 %  12.3 s",
        f"[ 2/12] {config(seed=1).name}  finished  val/accuracy 80.00 %  reused",
        f"{name}: killed; trying again",
        f"{name} failed twice: ValueError: [no] good",
    ]


def test_quiet_lines_tell_only_of_trouble():
    console = Console(file=io.StringIO())
    view = LineView(Board(total=1, slots=1), console, quiet=True)
    view.hear(ended(config(), 0.9))
    assert console.file.getvalue() == ""
    view.hear(Failed(config(), "ValueError", ""))
    assert "failed twice" in console.file.getvalue()


def test_the_table_shows_workers_the_whole_and_the_best():
    board = Board(total=8, slots=2)
    board.reuse([finished(config("none", seed), 0.95) for seed in (0, 1)])
    board.hear(ended(config("batch", 0), 0.97, seconds=30.0))
    run = config("batch", 1)
    board.hear(Started(run, 0))
    board.hear(Progress(run, 0, 1234, 0.9321, {"epoch": 2, "val/accuracy": 0.9321}))
    text = text_of(draw(board))
    assert f"{run.name}" in text
    assert "2/3" in text
    assert "1,234" in text
    assert "93.21 % val" in text
    assert "3/8" in text
    assert "1 finished · 2 reused" in text
    assert "1:15 left" in text
    assert "batch-b64-mnist-5k-e3  val/accuracy 97.00 %, n = 1 seed" in text


def test_the_live_table_ends_as_a_tally_and_trouble_stays_above_it():
    board = Board(total=1, slots=1)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with LiveView(board, console) as view:
        for event in (Started(config(), 0), Retried(config(), "killed"), ended(config(), 0.9)):
            board.hear(event)
            view.hear(event)
    text = console.file.getvalue()
    trouble, last = text.index("killed; trying again"), text.rindex("1/1")
    assert trouble < last
    assert "val/accuracy 90.00 %, n = 1 seed" in text[last:]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (750, "12:30"), (7500, "2:05:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_what_is_undecided_stands_below_the_table_with_its_interval_and_as_a_line_elsewhere():
    table = table_of({"batch": [0.97, 0.97, 0.96], "group-g8": [0.98, 0.97, 0.975]})
    contrasts = compare_runs(table).contrasts
    board = Board(total=9, slots=1)
    assert "undecided" not in text_of(draw(board))
    out = io.StringIO()
    view = LineView(board, Console(file=out, width=200))
    for seed in range(2):
        board.verdicts = contrasts
        event = ended(config(seed=seed), 0.9)
        board.hear(event)
        view.hear(event)
    shown = text_of(draw(board))
    assert "group-g8 against batch" in shown
    assert "+0.83" in shown
    line = "undecided: group-g8 against batch +0.83 "
    assert out.getvalue().count(line) == 1, "said anew where it was judged anew, and only there"
    board.verdicts = contrasts * 5
    view.hear(event)
    assert "; and 2 more" in out.getvalue()

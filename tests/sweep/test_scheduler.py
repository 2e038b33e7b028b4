"""The scheduler by itself, with an executor that does what the test says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from groupnorm_bench.runs import RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Held,
    Lost,
    Said,
    Started,
    Stopped,
)
from groupnorm_bench.sweep.scheduler import Failed, Retried, Reused, Scheduler

Answer = Callable[[TrainConfig, int], Event]
"""What becomes of a run's attempt, counted from 1."""


class Source:
    """Hands out runs in order and keeps what it is told of them."""

    def __init__(self, runs) -> None:
        self.left, self.results = list(runs), {}

    def next(self):
        return self.left.pop(0) if self.left else None

    def report(self, config, row) -> bool:
        return False

    def done(self, config, result) -> None:
        assert config.name not in self.results, "given back once"
        self.results[config.name] = result


class Engine:
    """Answers each run at once, in this process."""

    slots, source = 1, None

    def __init__(self, answer: Answer) -> None:
        self.answer, self.attempts = answer, {}

    def submit(self, runs, judge, should_stop) -> Iterator[Event]:
        for run in runs:
            if run is None or should_stop():
                return
            attempt = self.attempts[run.name] = self.attempts.get(run.name, 0) + 1
            yield Started(run, 0)
            yield self.answer(run, attempt)


def seeds(count: int) -> list[TrainConfig]:
    return [TrainConfig(dataset="mnist-5k", seed=seed) for seed in range(count)]


def result_of(run: TrainConfig, status="finished", **summary) -> RunResult:
    return RunResult(config=run, status=status, summary=summary)


def finished(run: TrainConfig, attempt: int) -> Event:
    return Ended(run, 0, result_of(run), 1.0)


def schedule(runs, answer: Answer, runs_dir, **options):
    source, engine, events = Source(runs), Engine(answer), []
    outcome = Scheduler(source, engine, runs_dir, watch=events.append, **options).run()
    return outcome, [type(event) for event in events], source, engine


def test_every_run_is_given_back_to_the_source_once(tmp_path):
    outcome, kinds, source, _ = schedule(seeds(3), finished, tmp_path)
    assert list(source.results) == list(outcome.results) == [run.name for run in seeds(3)]
    assert kinds == [Started, Ended] * 3
    assert not outcome.stopped


def test_a_lost_run_is_tried_again_once(tmp_path):
    def answer(run, attempt):
        return finished(run, attempt) if attempt == 2 else Lost(run, 0, "killed")

    outcome, kinds, _, _ = schedule(seeds(1), answer, tmp_path)
    assert outcome.count("finished") == 1
    assert kinds == [Started, Retried, Started, Ended]


def test_a_run_lost_twice_is_recorded_failed_with_its_traceback(tmp_path):
    (run,) = seeds(1)
    outcome, kinds, source, engine = schedule([run], lambda r, n: Lost(r, 0, "E", "why"), tmp_path)
    assert kinds == [Started, Retried, Started, Failed]
    assert engine.attempts == {run.name: 2}
    folder = RunFolder.of(tmp_path, run)
    assert (folder.read().status, folder.traceback_path.read_text()) == ("failed", "why")
    assert source.results == {run.name: None}
    assert outcome.failures[0].attempts == 2


def test_a_final_loss_is_not_tried_again(tmp_path):
    def answer(run, attempt):
        return Lost(run, 0, "W&B proposes it once", final=True)

    outcome, kinds, _, _ = schedule(seeds(1), answer, tmp_path)
    assert kinds == [Started, Failed]
    assert (outcome.failures[0].attempts, outcome.count("failed")) == (1, 1)


def test_a_result_that_says_failed_is_a_loss_like_any_other(tmp_path):
    def answer(run, attempt):
        return Ended(run, 0, result_of(run, "failed", error="ValueError: no"), 1.0)

    outcome, kinds, _, _ = schedule(seeds(1), answer, tmp_path)
    assert kinds == [Started, Retried, Started, Failed]
    assert outcome.failures[0].reason == "ValueError: no"


def test_so_many_failures_in_a_row_end_the_sweep(tmp_path):
    def answer(run, attempt):
        return finished(run, attempt) if run.seed == 1 else Lost(run, 0, "no", final=True)

    outcome, _, _, engine = schedule(seeds(6), answer, tmp_path, max_failures=2)
    assert outcome.gave_up
    assert list(engine.attempts) == [run.name for run in seeds(4)]
    assert not outcome.stopped, "gave up, which is another thing"


def test_what_a_folder_holds_is_reused_and_never_begun(tmp_path):
    first, second = seeds(2)
    folder = RunFolder.of(tmp_path, first)
    folder.path.mkdir()
    folder.write(result_of(first))
    outcome, kinds, source, engine = schedule([first, second], finished, tmp_path)
    assert kinds == [Reused, Started, Ended]
    assert (list(outcome.reused), list(outcome.results)) == ([first.name], [second.name])
    assert list(engine.attempts) == [second.name]
    assert set(source.results) == {first.name, second.name}


def test_a_held_run_is_looked_at_again_until_it_has_a_result(tmp_path, monkeypatch):
    monkeypatch.setattr("groupnorm_bench.sweep.scheduler._LOOK_EVERY", 0.0)
    (run,) = seeds(1)

    def answer(run, attempt):
        folder = RunFolder.of(tmp_path, run)
        folder.path.mkdir()
        folder.write(result_of(run))  # by the process that held it
        return Held(run, 0)

    outcome, kinds, _, _ = schedule([run], answer, tmp_path)
    assert kinds == [Started, Held, Reused]
    assert list(outcome.reused) == [run.name]


def test_for_whom_a_held_run_waits_is_said_once(tmp_path, monkeypatch):
    for name in ("_LOOK_EVERY", "_SAY_AFTER"):
        monkeypatch.setattr(f"groupnorm_bench.sweep.scheduler.{name}", 0.0)
    (run,) = seeds(1)
    folder = RunFolder.of(tmp_path, run)
    with folder.claim():
        pass  # signed, and let go of
    heard = []

    def answer(run, attempt):
        return Held(run, 0) if attempt < 5 else Ended(run, 0, result_of(run), 1.0)

    Scheduler(Source([run]), Engine(answer), tmp_path, watch=heard.append).run()
    (said,) = [event for event in heard if isinstance(event, Said)]
    assert said.text == f"waiting for {folder.path}, in use by {folder.holder()}"
    assert f"process {os.getpid()} on " in said.text


def test_a_stopped_sweep_says_so_and_leaves_the_rest(tmp_path):
    stop = []

    def answer(run, attempt):
        stop.append(True)
        return Stopped(run, 0)

    outcome, kinds, source, _ = schedule(seeds(3), answer, tmp_path, should_stop=lambda: bool(stop))
    assert kinds == [Started, Stopped]
    assert outcome.stopped
    assert source.results == {}

"""The local executor and the scheduler on top of it, with trials that take milliseconds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from groupnorm_bench.runs import RunFolder
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.signals import StopSignal
from groupnorm_bench.sweep.executors.local.executor import LocalExecutor
from groupnorm_bench.sweep.executors.protocol import Ended, Lost, Progress, Started
from groupnorm_bench.sweep.scheduler import Retried, Reused, Scheduler
from tests.support.stand_in_trials import EPOCHS


class ListSource:
    """A plan that prunes the runs named in `prune` after their first epoch."""

    def __init__(self, runs, prune=()):
        self.runs, self.prune = list(runs), set(prune)
        self.results = {}

    def next(self):
        return self.runs.pop(0) if self.runs else None

    def report(self, config, row):
        return config.seed in self.prune

    def done(self, config, result):
        assert config.name not in self.results, "answered twice"
        self.results[config.name] = result


def seeds(count):
    return [TrainConfig(norm="batch", dataset="mnist-5k", seed=seed) for seed in range(count)]


def sweep(runs, runs_dir, trial="sleeper", slots=2, prune=(), max_failures=5, **options):
    """Run a sweep to its end; return the outcome and what was watched."""
    events = []
    source = ListSource(runs, prune)
    executor = LocalExecutor(
        runs_dir, slots=slots, trial=f"tests.support.stand_in_trials:{trial}", **options
    )
    scheduler = Scheduler(
        source, executor, runs_dir, max_failures=max_failures, watch=events.append
    )
    outcome = scheduler.run()
    return outcome, events, source


def begun(runs_dir):
    """How many times each run was begun."""
    log = runs_dir / "begun.log"
    return Counter(line.split()[0] for line in log.read_text().splitlines())


def test_every_run_ends_once_and_a_second_sweep_reuses_them_all(tmp_path):
    outcome, events, source = sweep(seeds(7), tmp_path)
    assert outcome.count("finished") == 7
    assert set(begun(tmp_path).values()) == {1}
    assert set(source.results) == {run.name for run in seeds(7)}
    assert {event.slot for event in events if isinstance(event, Started)} == {0, 1}
    rows = [e.row["epoch"] for e in events if isinstance(e, Progress) and e.row]
    assert Counter(rows) == {1: 7, 2: 7, 3: 7}

    again, events, _ = sweep(seeds(7), tmp_path)
    assert (len(again.results), len(again.reused)) == (0, 7)
    assert all(isinstance(event, Reused) for event in events)
    assert sum(begun(tmp_path).values()) == 7


def test_workers_live_on_from_run_to_run(tmp_path):
    sweep(seeds(6), tmp_path)
    pids = {line.split()[1] for line in (tmp_path / "begun.log").read_text().splitlines()}
    assert len(pids) == 2


def test_no_more_workers_than_runs(tmp_path):
    executor = LocalExecutor(tmp_path, slots=8, trial="tests.support.stand_in_trials:sleeper")
    scheduler = Scheduler(ListSource(seeds(1)), executor, tmp_path)
    started = []
    executor._start = lambda slot, start=executor._start: (started.append(slot), start(slot))[1]
    scheduler.run()
    assert started == [0]


def test_trouble_costs_a_run_one_retry_and_the_sweep_nothing(tmp_path):
    outcome, events, _ = sweep(seeds(8), tmp_path, "troubled")
    retried = {event.run.seed: event.reason for event in events if isinstance(event, Retried)}
    assert set(retried) == {1, 2, 3, 4, 5}
    assert retried[1] == "its worker was killed by SIGKILL (out of memory?)"
    assert retried[5].startswith("MemoryError")
    failed = {failure.run.seed: failure for failure in outcome.failures}
    assert set(failed) == {2, 4}
    assert failed[2].reason == "ValueError: no good at all"
    assert failed[4].reason == "its worker exited with code 7"
    assert outcome.count("finished") == 6
    for seed, words in [(2, "ValueError: no good"), (4, "last words")]:
        folder = RunFolder.of(tmp_path, seeds(8)[seed])
        assert words in folder.traceback_path.read_text()
        result = folder.read()
        assert result.status == "failed"
        assert result.summary["error"] == failed[seed].reason


def test_failures_in_a_row_end_the_sweep_with_the_first_traceback(tmp_path):
    runs = [seeds(3)[2].replace(lr=lr) for lr in (0.1, 0.2, 0.3, 0.4, 0.5)]
    outcome, events, _ = sweep(runs, tmp_path, "troubled", slots=1, max_failures=2)
    assert outcome.gave_up
    assert [failure.run.lr for failure in outcome.failures] == [0.1, 0.2]
    assert "ValueError: no good" in outcome.failures[0].traceback
    assert sum(isinstance(event, Started) for event in events) == 4  # two attempts each


def test_a_hung_run_is_killed_where_it_stood_and_tried_again(tmp_path):
    outcome, events, _ = sweep(seeds(3), tmp_path, "hanging", trial_timeout=1.0)
    assert outcome.count("finished") == 3
    (retried,) = [event for event in events if isinstance(event, Retried)]
    assert retried.run.seed == 1
    assert retried.reason == "no result within --trial-timeout 1 s"


def test_the_traceback_of_a_hung_run_shows_where_it_hung(tmp_path):
    executor = LocalExecutor(
        tmp_path, trial="tests.support.stand_in_trials:hanging", trial_timeout=0.5
    )
    (lost,) = [
        event
        for event in executor.submit(iter(seeds(2)[1:]), lambda run, row: False, lambda: False)
        if isinstance(event, Lost)
    ]
    assert "in hanging" in lost.traceback


def test_a_trial_that_cannot_be_imported_is_a_failure_with_its_traceback(tmp_path):
    outcome, _, _ = sweep(seeds(1), tmp_path, "not_there")
    assert outcome.failures[0].reason == "its worker exited with code 1"
    assert "AttributeError" in outcome.failures[0].traceback


def test_the_source_prunes_a_run(tmp_path):
    outcome, _, source = sweep(seeds(4), tmp_path, prune={1, 3})
    assert outcome.count("pruned") == 2
    assert outcome.count("finished") == 2
    pruned = source.results[seeds(4)[1].name]
    assert len(pruned.history) == 1


def test_stopping_leaves_every_run_resumable_and_none_is_begun_after(tmp_path):
    ended = []
    executor = LocalExecutor(tmp_path, slots=2, trial="tests.support.stand_in_trials:slow_sleeper")
    scheduler = Scheduler(
        ListSource(seeds(8)),
        executor,
        tmp_path,
        should_stop=lambda: len(ended) >= 3,
        watch=lambda event: ended.append(event) if isinstance(event, Ended) else None,
    )
    before = time.monotonic()
    outcome = scheduler.run()
    assert outcome.stopped
    assert outcome.count("finished") in (3, 4)
    assert time.monotonic() - before < 30
    begun_then = set(begun(tmp_path))
    assert len(begun_then) <= 5
    assert not any(RunFolder.of(tmp_path, run).is_claimed() for run in seeds(8))

    rest, _, _ = sweep(seeds(8), tmp_path)
    assert len(rest.results) + len(rest.reused) == 8
    assert {len(RunFolder.of(tmp_path, run).read().history) for run in seeds(8)} == {3}


def test_a_second_ctrl_c_kills_a_deaf_run_at_once(tmp_path):
    executor = LocalExecutor(tmp_path, trial="tests.support.stand_in_trials:hanging")
    over = threading.Event()

    def press_ctrl_c_twice() -> None:
        while (
            not (tmp_path / "hang.happened").exists() and not over.is_set()
        ):  # until the run is deaf
            time.sleep(0.05)
        for _ in range(2):
            if not over.wait(1):  # a signal that comes late would end pytest itself
                os.kill(os.getpid(), signal.SIGINT)

    with StopSignal() as stop:
        scheduler = Scheduler(ListSource(seeds(2)[1:]), executor, tmp_path, should_stop=stop)
        keyboard = threading.Thread(target=press_ctrl_c_twice)
        keyboard.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                scheduler.run()
        finally:
            over.set()
            keyboard.join()
    assert stop.received == signal.SIGINT
    assert not executor._workers


def test_two_sweeps_on_one_folder_share_the_work(tmp_path):
    outcomes = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(sweep(seeds(12), tmp_path, slots=1)[0]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(begun(tmp_path).values()) == {1}
    assert [len(o.results) + len(o.reused) for o in outcomes] == [12, 12]
    assert sum(len(o.results) for o in outcomes) == 12
    assert all(o.results for o in outcomes)


def test_looking_at_a_folder_keeps_nobody_from_claiming_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.claim():
        pass
    look = (
        "import sys; from pathlib import Path; from groupnorm_bench.runs import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1])); print(flush=True)\n"
        "while True: folder.is_claimed()"
    )
    command = [sys.executable, "-c", look, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as looker:
        looker.stdout.readline()
        try:
            for _ in range(3_000):
                with folder.claim():
                    pass
        finally:
            looker.kill()


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_workers_killed_at_random_lose_no_run(tmp_path, attempt):
    """What Pebble and loky did not survive: 40 kills, at any point of a worker's life."""
    chance = random.Random(attempt)
    runs = seeds(40)
    executor = LocalExecutor(tmp_path, slots=2, trial="tests.support.stand_in_trials:sleeper")
    scheduler = Scheduler(ListSource(runs), executor, tmp_path, max_failures=1000)
    kills = 0
    ended = threading.Event()

    def kill_some():
        nonlocal kills
        while kills < 40 and not ended.wait(chance.uniform(0.02, 0.3)):
            workers = list(executor._workers.values())
            if workers:
                os.kill(chance.choice(workers).process.pid, signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        outcome = scheduler.run()
    finally:
        ended.set()
        killer.join()
    assert kills >= 10
    assert len(outcome.results) == 40
    # A run killed twice is recorded failed, as promised; the same command again mends it. One
    # killed after its last epoch, before its result, has no step left: that counts as reused.
    results = [RunFolder.of(tmp_path, run).read() for run in runs]
    failed = [result for result in results if result.status == "failed"]
    assert len(failed) == outcome.count("failed")
    rest, _, _ = sweep(runs, tmp_path)
    assert rest.count("finished") == sum(len(result.history) < EPOCHS for result in failed)
    assert len(rest.results) + len(rest.reused) == 40
    assert {RunFolder.of(tmp_path, run).read().status for run in runs} == {"finished"}

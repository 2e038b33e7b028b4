"""The local executor's own ways, with trials that take milliseconds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from groupnorm_bench.runs import RunFolder
from groupnorm_bench.signals import StopSignal
from groupnorm_bench.sweep.executors.local.executor import _how_it_died
from groupnorm_bench.sweep.executors.protocol import Lost
from groupnorm_bench.sweep.scheduler import Scheduler
from tests.support.stand_in_trials import EPOCHS
from tests.support.sweeping import ListSource, make_engine, seeds, sweep


def test_workers_live_on_from_run_to_run(tmp_path):
    sweep(seeds(6), tmp_path)
    pids = {line.split()[1] for line in (tmp_path / "begun.log").read_text().splitlines()}
    assert len(pids) == 2


def test_no_more_workers_than_runs(tmp_path):
    executor = make_engine(tmp_path, slots=8)
    scheduler = Scheduler(ListSource(seeds(1)), executor, tmp_path)
    started = []
    executor._start = lambda slot, start=executor._start: (started.append(slot), start(slot))[1]
    scheduler.run()
    assert started == [0]


def test_a_run_may_start_processes_and_its_worker_is_missed_though_they_live(tmp_path):
    """As a DataLoader does: workers were daemons, which may have none; its pipe stays open."""
    started = time.monotonic()
    try:
        outcome, _, _ = sweep(seeds(2), tmp_path, "parental")
    finally:
        (tmp_path / "over").touch()
    assert [result.status for result in outcome.results.values()] == ["finished"] * 2
    assert time.monotonic() - started < 45
    assert (tmp_path / "kill.happened").exists()


def test_the_traceback_of_a_hung_run_shows_where_it_hung(tmp_path):
    executor = make_engine(tmp_path, "hanging", trial_timeout=0.5)
    (lost,) = [
        event
        for event in executor.submit(iter(seeds(2)[1:]), lambda run, row: False, lambda: False)
        if isinstance(event, Lost)
    ]
    assert "in hanging" in lost.traceback


def test_a_second_ctrl_c_kills_a_deaf_run_at_once(tmp_path):
    executor = make_engine(tmp_path, "hanging")
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
    executor = make_engine(tmp_path, slots=2)
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


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "killed by SIGKILL (out of memory?)"), (-40, "killed by signal 40"), (3, "with code 3")],
)
def test_how_a_worker_died_is_told_of_any_signal(code, words):
    assert words in _how_it_died(code)

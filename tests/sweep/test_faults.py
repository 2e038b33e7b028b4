"""Faults that a sweep survives. After each: no finished run is lost, none is trained twice, and
the results equal, bit for bit, those of a sweep that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import SETTLED, RunFolder
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.scheduler import Retried, Scheduler
from tests.support.sweeping import make_engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SWEEP = """
name: faults
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, group]}
  num_groups: {value: 8}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 128}
  epochs: {value: 2}
"""
SEEDS = 4
RUNS = [
    TrainConfig(norm=norm, batch_size=32, dataset="mnist-5k", train_limit=128, epochs=2, seed=seed)
    for seed in range(SEEDS)
    for norm in ("none", "group")
]
TIMES = ("perf/", "train_seconds", "images_per_second", "peak_memory_mb")


class Sweep:
    """`gnbench sweep` at work in a session of its own."""

    def __init__(self, folder, *options, text=SWEEP, seeds=SEEDS):
        (folder / "sweep.yaml").write_text(text)
        self.runs_dir = folder / "runs"
        self.log = folder / f"stderr-{time.monotonic_ns()}.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "groupnorm_bench.cli", "sweep", "sweep.yaml"),
                    *("--wandb", "disabled", "--workers", "2", "--json"),
                    *("--seeds", str(seeds), *options),
                ],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def finish(self):
        """Wait for the end; return the exit code and the JSON document."""
        stdout, _ = self.process.communicate(timeout=600)
        return self.process.returncode, json.loads(stdout)

    def workers(self):
        """Process ids of the workers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    command = (entry / "cmdline").read_bytes()
                except (OSError, IndexError):
                    continue
                if parent == self.process.pid and b"spawn_main" in command:
                    found.append(int(entry.name))
        return found

    def wait_until_a_run_is_at_work(self, epochs=0):
        """Wait until a run that is held has so many epochs behind it; return its folder."""

        def busy():
            assert self.process.poll() is None, self.log.read_text()
            for path in self.runs_dir.glob("*/result.json"):
                folder = RunFolder(path.parent)
                result = folder.read()
                far_enough = result.status == "interrupted" and len(result.history) >= epochs
                if far_enough and folder.is_claimed():
                    return folder
            return None

        return wait_for(busy)


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def essence(runs_dir):
    """Everything in the results that time does not change."""

    def lasting(row):
        return {key: value for key, value in row.items() if not key.startswith(TIMES)}

    found = {}
    for path in runs_dir.glob("*/result.json"):
        result = RunFolder(path.parent).read()
        found[path.parent.name] = (
            result.status,
            [lasting(row) for row in result.history],
            lasting(result.summary),
            RunFolder(path.parent).read_hits(1000).tolist(),
        )
    return found


def settled(runs_dir):
    """The text of every result that may never change again."""
    texts = {}
    for path in runs_dir.glob("*/result.json"):
        with contextlib.suppress(RunFolderError):
            if RunFolder(path.parent).read().status in SETTLED:
                texts[path.parent.name] = path.read_text()
    return texts


def assert_kept(runs_dir, before):
    after = settled(runs_dir)
    assert {name: after.get(name) for name in before} == before, "a finished run changed"


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a sweep leaves that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, document = Sweep(folder).finish()
    assert (code, document["finished"]) == (0, 2 * SEEDS)
    return essence(folder / "runs")


def test_a_worker_killed_in_mid_epoch_costs_one_retry(tmp_path, undisturbed):
    sweep = Sweep(tmp_path)
    sweep.wait_until_a_run_is_at_work(epochs=1)
    os.kill(sweep.workers()[0], signal.SIGKILL)
    code, document = sweep.finish()
    assert (code, document["finished"], document["failed"]) == (0, 2 * SEEDS, 0)
    assert sweep.log.read_text().count("was killed by SIGKILL (out of memory?); trying again") <= 1
    assert essence(tmp_path / "runs") == undisturbed


def test_the_parent_killed_at_20_random_moments(tmp_path, undisturbed):
    chance = random.Random(20)
    orphans = set()
    kept = {}
    for kill in range(20):
        sweep = Sweep(tmp_path, "--workers", str(1 + kill % 2))
        if kill % 4 == 0:  # while it starts
            time.sleep(chance.uniform(0, 2))
        else:
            try:
                sweep.wait_until_a_run_is_at_work()
            except AssertionError:
                sweep.process.communicate()
                break  # it was through
            time.sleep(chance.uniform(0, 0.25))
        orphans |= set(sweep.workers())
        sweep.process.kill()
        sweep.process.communicate()
        assert_kept(tmp_path / "runs", kept)
        kept = settled(tmp_path / "runs")
    assert kill >= 10, "the sweep was too short for this test"
    code, document = Sweep(tmp_path).finish()
    assert code == 0
    assert document["reused"] + document["finished"] == 2 * SEEDS
    assert_kept(tmp_path / "runs", kept)
    assert essence(tmp_path / "runs") == undisturbed
    wait_for(lambda: not any(is_alive(pid) for pid in orphans), seconds=60)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "inter")]
)
def test_a_signal_to_the_group_leaves_checkpoints(tmp_path, undisturbed, number, code, word):
    sweep = Sweep(tmp_path)
    sweep.wait_until_a_run_is_at_work(epochs=1)
    os.killpg(sweep.process.pid, number)
    returned, document = sweep.finish()
    log = sweep.log.read_text()
    assert returned == code, log
    last = log.strip().splitlines()[-1]
    assert last.startswith(f"error: {word}")
    assert "type the same command to go on" in last
    assert "Traceback" not in log
    assert document["finished"] < 2 * SEEDS
    assert list((tmp_path / "runs").glob("*/checkpoint.pt"))
    kept = settled(tmp_path / "runs")
    returned, document = Sweep(tmp_path).finish()
    assert (returned, document["failed"]) == (0, 0)
    assert_kept(tmp_path / "runs", kept)
    assert essence(tmp_path / "runs") == undisturbed


def test_damaged_run_folders_are_trained_again_and_only_those(tmp_path, undisturbed):
    assert Sweep(tmp_path).finish()[0] == 0
    runs = tmp_path / "runs"
    folders = sorted(path for path in runs.iterdir() if path.is_dir())
    for entry in folders[0].iterdir():
        entry.unlink()
    folders[0].rmdir()
    os.truncate(folders[1] / "result.json", 100)
    for name in ("result.json", "checkpoint.pt", "test_hits.npy"):
        (folders[2] / name).write_bytes(random.Random(0).randbytes(5000))
    (folders[3] / "result.json").unlink()
    (folders[3] / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut off")
    kept = settled(runs)
    assert len(kept) == 2 * SEEDS - 4
    sweep = Sweep(tmp_path)
    code, document = sweep.finish()
    assert (code, document["finished"], document["reused"]) == (0, 4, 2 * SEEDS - 4)
    assert_kept(runs, kept)
    assert essence(runs) == undisturbed
    assert sweep.log.read_text().count("skipped") == 2
    assert (folders[1] / "result.1.json").stat().st_size == 100  # set aside, not deleted


def test_two_sweeps_at_once_share_the_work(tmp_path, undisturbed):
    sweeps = [Sweep(tmp_path, "--workers", "1") for _ in range(2)]
    ends = [sweep.finish() for sweep in sweeps]
    assert [code for code, _ in ends] == [0, 0]
    assert sum(document["finished"] for _, document in ends) == 2 * SEEDS
    assert [d["finished"] + d["reused"] for _, d in ends] == [2 * SEEDS] * 2
    assert essence(tmp_path / "runs") == undisturbed


def test_a_changed_file_keeps_what_is_finished_and_mixes_nothing(tmp_path, undisturbed):
    assert Sweep(tmp_path, seeds=2).finish()[0] == 0
    kept = settled(tmp_path / "runs")
    changed = SWEEP.replace("[none, group]", "[batch, group]").replace(
        "epochs: {value: 2}", "lr: {value: 0.002}\n  epochs: {value: 2}"
    )
    code, document = Sweep(tmp_path, text=changed, seeds=1).finish()
    assert (code, document["reused"], document["finished"]) == (0, 0, 2)
    assert {row["arm"] for row in document["ranking"]} == {"batch", "group-g8"}
    assert all(row["setting"]["lr"] == 0.002 for row in document["ranking"])
    assert_kept(tmp_path / "runs", kept)
    code, document = Sweep(tmp_path).finish()
    assert (code, document["reused"]) == (0, 4)
    after = essence(tmp_path / "runs")
    assert {name: after[name] for name in undisturbed} == undisturbed


def test_a_run_that_diverges_is_a_result_and_not_tried_again(tmp_path, undisturbed):
    text = SWEEP.replace(
        "epochs:", "lr: {values: [0.001, 1.0e+30]}\n  optimizer: {value: sgd}\n  epochs:"
    )
    code, document = Sweep(tmp_path, text=text, seeds=1).finish()
    assert code == 3
    assert document["diverged"] >= 1
    assert document["failed"] == 0
    kept = settled(tmp_path / "runs")
    code, document = Sweep(tmp_path, text=text, seeds=1).finish()
    assert (code, document["todo"], document["reused"]) == (3, 0, 4)
    assert settled(tmp_path / "runs") == kept


class Plan:
    """The runs of the sweep above as a source, for faults that only a worker can cause."""

    def __init__(self, runs):
        self._runs = iter(runs)

    def next(self):
        return next(self._runs, None)

    def report(self, config, row):
        return False

    def done(self, config, result):
        pass


def schedule(runs_dir, trial, runs=RUNS, max_failures=100, **options):
    """Run the scheduler here, its workers calling a faulty trial."""
    runs_dir.mkdir(exist_ok=True)
    events = []
    executor = make_engine(runs_dir, f"tests.support.fault_trials:{trial}", slots=2, **options)
    outcome = Scheduler(
        Plan(runs), executor, runs_dir, max_failures=max_failures, watch=events.append
    ).run()
    return outcome, [event for event in events if isinstance(event, Retried)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "ValueError: a trial that raises"),
        ("memory", "can't allocate memory"),
        ("hang", "no result within --trial-timeout"),
    ],
)
def test_a_trial_that_raises_exhausts_memory_or_hangs(tmp_path, undisturbed, fault, reason):
    (tmp_path / f"{fault}.armed").touch()
    timeout = 40.0 if fault == "hang" else None
    outcome, retried = schedule(tmp_path, "troubled", trial_timeout=timeout)
    assert outcome.count("finished") == 2 * SEEDS
    (retry,) = retried
    assert reason in retry.reason
    assert essence(tmp_path) == undisturbed


def test_a_full_disk_fails_runs_and_loses_none(tmp_path, undisturbed):
    finished, _ = schedule(tmp_path, "full_disk", runs=RUNS[:4])
    assert finished.count("finished") == 4
    kept = settled(tmp_path)
    (tmp_path / "full.armed").touch()
    full, _ = schedule(tmp_path, "full_disk", max_failures=3)
    assert full.gave_up
    assert len(full.reused) == 4
    assert full.count("finished") == 0
    assert "checkpoint.pt: cannot be written" in full.failures[0].reason
    assert_kept(tmp_path, kept)
    assert not list(tmp_path.glob("*/.*")), "half-written files stay behind"
    (tmp_path / "full.armed").unlink()
    freed, retried = schedule(tmp_path, "full_disk")
    assert (len(freed.reused), freed.count("finished"), retried) == (4, 2 * SEEDS - 4, [])
    assert_kept(tmp_path, kept)
    assert not list(tmp_path.glob("*/traceback.txt"))
    assert essence(tmp_path) == undisturbed


def test_a_clock_set_back_changes_nothing(tmp_path, undisturbed, monkeypatch):
    real, looks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * next(looks))
    outcome, retried = schedule(tmp_path, "clock_set_back", runs=RUNS[:6], trial_timeout=300.0)
    assert (outcome.count("finished"), retried) == (6, [])
    for path in tmp_path.glob("*/result.json"):
        os.utime(path, (real() + 10**6, real() + 10**6))
    outcome, retried = schedule(tmp_path, "clock_set_back", trial_timeout=300.0)
    assert (outcome.count("finished"), len(outcome.reused), retried) == (2 * SEEDS - 6, 6, [])
    assert essence(tmp_path) == undisturbed

"""What the scheduler relies on, asked of every executor in the table: a new one inherits it.

Real trainings first, of any engine; then stand-ins that are killed, hang and fail, of those that
call `EngineOptions.trial` and not, as W&B's agents do, the command line. Slurm's commands are
stand-ins here; with SLURM_SITE=1 they are those of a real one of one node (some minutes more).
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.sweep.executors import EXECUTORS, EngineOptions
from groupnorm_bench.sweep.executors.protocol import Ended, Progress, Started
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import build_plan
from groupnorm_bench.sweep.plan.sources import make_source
from groupnorm_bench.sweep.scheduler import Retried, Reused, Scheduler
from groupnorm_bench.tracking.options import TrackingOptions
from tests.support import FAILS_LATE
from tests.support.sweeping import ListSource, begun, make_engine, seeds, sweep

SLOW = {"ray": pytest.mark.slow}
"""Engines that take seconds to start."""
ALL = [pytest.param(name, marks=SLOW.get(name, ())) for name in EXECUTORS]
CANNOT = {
    ("slurm", "failures_in_a_row"): "its array is in the queue whole, so later runs begin too; "
    "test_slurm.py asks that they are cancelled",
}
"""What an executor cannot keep of these tests, and why."""
STAND_INS = [each for each in ALL if not EXECUTORS[each.values[0]].needs_wandb]


EVERY = pytest.mark.parametrize("engine", [each.values[0] for each in STAND_INS], indirect=True)
"""For tests that are worth the start of a slow engine every time."""

SITE = bool(os.environ.get("SLURM_SITE"))
NEEDS = {"ray": "local_ray", "slurm": "slurm_here" if SITE else "slurm_stand_ins"}
"""Fixtures that an engine is not to be had without."""


def _prepare(request: pytest.FixtureRequest) -> None:
    if request.param in NEEDS:
        request.getfixturevalue(NEEDS[request.param])


@pytest.fixture(params=STAND_INS)
def engine(request: pytest.FixtureRequest):
    for (name, test), why in CANNOT.items():
        if name == request.param and test in request.node.name:
            pytest.skip(why)
    _prepare(request)
    return request.param


@dataclasses.dataclass
class Trained:
    """A plan of real trainings, each a moment long, on an executor of the table."""

    name: str
    home: Path

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    def sweep(self, norms: list[str], *, stop_after: int = 10**9):
        """Run a sweep of these norms; return the plan, the outcome, and the runs that ended."""
        path = self.home / "real.yaml"
        moment = {"max_steps": 2, "train_limit": 64, "batch_size": 32, "dataset": "mnist-5k"}
        constants = {key: {"value": value} for key, value in moment.items()}
        parameters = {"norm": {"values": norms}, **constants}
        path.write_text(yaml.safe_dump({"method": "grid", "parameters": parameters}))
        self.runs_dir.mkdir(exist_ok=True)
        found, _ = find_runs([self.runs_dir])
        plan = build_plan(read_spec(path), found=found)
        mode = "online" if EXECUTORS[self.name].needs_wandb else "disabled"
        options = EngineOptions(
            runs_dir=self.runs_dir,
            data_dir=self.home,
            tracking=TrackingOptions(mode=mode, project="p"),
        )
        ended = []
        outcome = Scheduler(
            make_source(plan, found),
            EXECUTORS[self.name].open(plan, options, print),
            self.runs_dir,
            should_stop=lambda: len(ended) >= stop_after,
            watch=lambda event: ended.append(event.run) if isinstance(event, Ended) else None,
        ).run()
        return plan, outcome, ended


@pytest.fixture(params=ALL)
def trained(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if EXECUTORS[request.param].needs_wandb:
        request.getfixturevalue("wandb_server")
        monkeypatch.delenv("WANDB_DIR")
    _prepare(request)
    home = request.getfixturevalue("tmp_path")
    monkeypatch.chdir(home)
    return Trained(request.param, home)


@pytest.mark.slow  # an agent of W&B looks every 5 s
def test_every_real_run_is_answered_once_and_a_broken_one_costs_the_others_nothing(trained):
    Path("fails_late.py").write_text(FAILS_LATE)
    norms = ["none", "fails_late:make", "batch"]
    plan, outcome, ended = trained.sweep(norms)
    assert outcome.count("finished") == 2
    (failure,) = outcome.failures
    assert failure.run.norm == "fails_late:make"
    assert "no such luck" in failure.reason
    for run in plan.runs:
        kept = RunFolder.of(trained.runs_dir, run).read()
        assert kept.summary == outcome.results[run.name].summary
        assert [kept.status, ended.count(run)] == (
            ["failed", 0] if run == failure.run else ["finished", 1]
        )
    plan, again, ended = trained.sweep(norms)
    assert (plan.num_todo, again.results, ended) == (0, {}, [])


@pytest.mark.slow
def test_stopped_it_answers_for_every_run_and_the_same_sweep_goes_on(trained):
    _, outcome, ended = trained.sweep(["none", "batch", "group"], stop_after=1)
    assert outcome.stopped
    assert 1 <= len(ended) < 3
    plan, rest, _ = trained.sweep(["none", "batch", "group"])
    assert not rest.stopped
    folders = [RunFolder.of(trained.runs_dir, run) for run in plan.runs]
    assert {folder.read().status for folder in folders} == {"finished"}
    assert not any(folder.is_claimed() for folder in folders)


@EVERY
def test_every_run_ends_once_and_a_second_sweep_reuses_them_all(tmp_path, engine):
    outcome, events, source = sweep(seeds(7), tmp_path, engine=engine)
    assert outcome.count("finished") == 7
    assert set(begun(tmp_path).values()) == {1}
    assert set(source.results) == {run.name for run in seeds(7)}
    assert {event.slot for event in events if isinstance(event, Started)} == {0, 1}
    rows = [e.row["epoch"] for e in events if isinstance(e, Progress) and e.row]
    assert Counter(rows) == {1: 7, 2: 7, 3: 7}

    again, events, _ = sweep(seeds(7), tmp_path, engine=engine)
    assert (len(again.results), len(again.reused)) == (0, 7)
    assert all(isinstance(event, Reused) for event in events)
    assert sum(begun(tmp_path).values()) == 7


@EVERY
def test_trouble_costs_a_run_one_retry_and_the_sweep_nothing(tmp_path, engine):
    outcome, events, _ = sweep(seeds(8), tmp_path, "troubled", engine=engine)
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


def test_failures_in_a_row_end_the_sweep_with_the_first_traceback(tmp_path, engine):
    runs = [seeds(3)[2].replace(lr=lr) for lr in (0.1, 0.2, 0.3, 0.4, 0.5)]
    outcome, events, _ = sweep(runs, tmp_path, "troubled", slots=1, max_failures=2, engine=engine)
    assert outcome.gave_up
    assert [failure.run.lr for failure in outcome.failures] == [0.1, 0.2]
    assert "ValueError: no good" in outcome.failures[0].traceback
    assert sum(isinstance(event, Started) for event in events) == 4  # two attempts each


def test_a_hung_run_is_killed_where_it_stood_and_tried_again(tmp_path, engine):
    outcome, events, _ = sweep(seeds(3), tmp_path, "hanging", trial_timeout=1.0, engine=engine)
    assert outcome.count("finished") == 3
    (retried,) = [event for event in events if isinstance(event, Retried)]
    assert retried.run.seed == 1
    assert retried.reason == "no result within --trial-timeout 1 s"


def test_a_trial_that_cannot_be_imported_is_a_failure_with_its_traceback(tmp_path, engine):
    outcome, _, _ = sweep(seeds(1), tmp_path, "not_there", engine=engine)
    assert outcome.failures[0].reason == "its worker exited with code 1"
    assert "AttributeError" in outcome.failures[0].traceback


def test_the_source_prunes_a_run(tmp_path, engine):
    outcome, _, source = sweep(seeds(4), tmp_path, prune={1, 3}, engine=engine)
    assert outcome.count("pruned") == 2
    assert outcome.count("finished") == 2
    pruned = source.results[seeds(4)[1].name]
    assert len(pruned.history) == 1


def test_stopping_leaves_every_run_resumable_and_none_is_begun_after(tmp_path, engine):
    ended = []
    executor = make_engine(tmp_path, "slow_sleeper", engine, slots=2)
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
    # those at work as the third ended; an array's tasks hear of it later, and begin their next
    assert len(begun_then) <= (7 if engine == "slurm" else 5)
    assert not any(RunFolder.of(tmp_path, run).is_claimed() for run in seeds(8))

    rest, _, _ = sweep(seeds(8), tmp_path, engine=engine)
    assert len(rest.results) + len(rest.reused) == 8
    assert {len(RunFolder.of(tmp_path, run).read().history) for run in seeds(8)} == {3}


def test_two_sweeps_on_one_folder_share_the_work(tmp_path, engine):
    outcomes = []
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(sweep(seeds(12), tmp_path, slots=1, engine=engine)[0])
        )
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

"""Seeds until it is decided, on trials whose true differences the test chose."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, deque
from collections.abc import Iterator

import numpy as np
import pytest

from groupnorm_bench.errors import SweepError
from groupnorm_bench.runs import RunFolder, RunResult, find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.protocol import Ended, Event, Lost, Started
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.deciding import DecidingSource, closing
from groupnorm_bench.sweep.plan.plan import build_plan
from groupnorm_bench.sweep.scheduler import Scheduler
from tests.support.command_line import gnbench, start

FILE = """
name: norms
method: grid
parameters:
  norm: {values: [none, batch, group, layer]}
  batch_size: {values: [8, 32]}
  dataset: {value: mnist}
  epochs: {value: 1}
  seed: {values: [0, 1]}
"""
GAINS = {"none": -2.0, "batch": 0.0, "group-g8": 0.15, "layer": 0.0}
"""In points; a pair's sd is 0.15."""


def accuracy_of(config: TrainConfig) -> float:
    """Return the trial's accuracy in whole images: the same for the same run, whoever asks."""
    arm = list(GAINS).index(config.arm)
    rng = np.random.default_rng([config.seed, arm, config.batch_size])
    points = 98.0 + GAINS[config.arm] + 0.15 / np.sqrt(2) * rng.normal()
    return float(np.round(points / 100, 4))


class Engine:
    """Works at some runs at once; ends the oldest whenever no more can be begun."""

    source = None

    def __init__(self, runs_dir, slots=1, fails=frozenset(), budget=10_000) -> None:
        self.runs_dir, self.slots, self.fails, self.budget = runs_dir, slots, fails, budget
        self.begun: list[TrainConfig] = []

    def submit(self, runs, judge, should_stop) -> Iterator[Event]:
        at_work: deque[TrainConfig] = deque()
        while True:
            while len(at_work) < self.slots and len(self.begun) < self.budget:
                run = next(runs, None)
                if run is None:
                    break
                at_work.append(run)
                self.begun.append(run)
                yield Started(run, 0)
            if not at_work:
                return
            run = at_work.popleft()
            if (run.arm, run.seed) in self.fails:
                yield Lost(run, 0, "no good", final=True)
                continue
            accuracy = accuracy_of(run)
            summary = {"status": "finished", "test/accuracy": accuracy, "val/accuracy": accuracy}
            result = RunResult(config=run, status="finished", summary=summary)
            with RunFolder.of(self.runs_dir, run).claim():
                RunFolder.of(self.runs_dir, run).write(result)
            yield Ended(run, 0, result, 0.1)


def prepare(tmp_path, question="", file=FILE):
    path = tmp_path / "norms.yaml"
    path.write_text(file)
    if question:
        (tmp_path / "norms.question.yaml").write_text(question)
    return path


def run_until_decided(path, max_seeds=60, **engine_options):
    runs_dir = path.parent / "runs"
    runs_dir.mkdir(exist_ok=True)
    found, _ = find_runs([runs_dir])
    source = DecidingSource(build_plan(read_spec(path), found=found), found, max_seeds)
    engine = Engine(runs_dir, **engine_options)
    outcome = Scheduler(source, engine, runs_dir).run()
    return source, engine, outcome


@pytest.mark.parametrize("slots", [1, 4])
def test_seeds_are_added_where_the_verdict_is_open_until_it_is_not(tmp_path, slots):
    path = prepare(tmp_path, "{margin: 0.3}")
    source, engine, outcome = run_until_decided(path, slots=slots)
    assert not outcome.stopped
    standing = source.standing
    assert (standing.open, len(standing.decided)) == ((), 6)
    verdicts = {(c.arm, c.setting["batch_size"]): c.verdict for c in standing.decided}
    assert verdicts["none", 8] == verdicts["none", 32] == "worse"
    assert {verdicts[arm, 8] for arm in ("group-g8", "layer")} <= {"better", "equal"}
    seeds = Counter(run.arm for run in engine.begun)
    assert seeds["none"] <= 2 * 7  # plain after the first look
    assert seeds["layer"] > seeds["none"]
    assert seeds["batch"] == max(seeds.values())  # the baseline goes on with whoever is open
    assert len(engine.begun) == source.num_spent < source.num_fixed
    assert f"{source.num_fixed - source.num_spent} runs saved" in closing(source)[-1]


def test_a_stopped_sweep_goes_on_and_ends_with_the_same_verdicts_and_runs(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = prepare(tmp_path / "whole", "{margin: 0.3}")
    straight, _, _ = run_until_decided(whole)
    (tmp_path / "parts").mkdir()
    path = prepare(tmp_path / "parts", "{margin: 0.3}")
    for budget in (5, 16, 30, 10_000):
        source, engine, _ = run_until_decided(path, budget=budget)
    assert [c.verdict for c in source.standing.decided] == [
        c.verdict for c in straight.standing.decided
    ]
    assert source.num_spent == straight.num_spent
    again, engine, outcome = run_until_decided(path)
    assert (engine.begun, again.has_more, outcome.stopped) == ([], False, False)


def test_stopped_before_a_pair_it_tells_of_how_many_contrasts_and_nothing_of_savings(tmp_path):
    path = prepare(tmp_path, "{margin: 0.3}")
    source = DecidingSource(build_plan(read_spec(path)), (), 40)
    assert closing(source, stopped=True) == ["0 of 6 contrasts decided by 0 runs"]


def test_max_seeds_ends_it_undecided(tmp_path):
    source, engine, outcome = run_until_decided(prepare(tmp_path), max_seeds=9)
    assert not outcome.stopped
    assert source.standing.open
    assert max(run.seed for run in engine.begun) == 8
    assert not source.has_more


def test_before_anything_can_be_decided_no_seed_waits_for_another(tmp_path):
    _, engine, _ = run_until_decided(prepare(tmp_path), slots=48, max_seeds=6)
    assert len(engine.begun) == 8 * 6
    first_wave = engine.begun[16:48]
    assert {run.seed for run in first_wave} == {2, 3, 4, 5}


def test_only_the_arms_of_the_question_are_decided(tmp_path):
    path = prepare(tmp_path, "{baseline: batch, arms: [none]}")
    source, engine, _ = run_until_decided(path)
    assert {c.arm for c in source.standing.decided} == {"none"}
    assert {c.family_size for c in source.standing.decided} == {2}
    late = {run.arm for run in engine.begun if run.seed > 1}
    assert late == {"none", "batch"}


def test_a_mean_over_settings_needs_seeds_at_all_of_them(tmp_path):
    path = prepare(tmp_path, "{decide: mean, arms: [group-g8], margin: 0.05}")
    source, engine, _ = run_until_decided(path)
    (contrast,) = source.standing.decided
    assert (contrast.arm, contrast.verdict) == ("group-g8", "better")
    late = Counter((run.arm, run.batch_size) for run in engine.begun if run.seed > 1)
    assert set(late) == {(arm, size) for arm in ("batch", "group-g8") for size in (8, 32)}
    assert len(set(late.values())) == 1


def test_an_arm_whose_run_failed_for_good_gets_no_more_seeds(tmp_path):
    path = prepare(tmp_path)
    source, engine, outcome = run_until_decided(path, fails={("layer", 3)}, max_seeds=12)
    assert {run.seed for run in engine.begun if run.arm == "layer"} <= set(range(6))
    assert len(outcome.failures) == 2
    assert {c.arm for c in source.standing.open} >= {"layer"}


REFUSED = [
    (FILE.replace("grid", "random"), "", "method random and --until-decided do not go together"),
    (FILE + "run_cap: 3\n", "", "run_cap and --until-decided do not go together"),
    (
        FILE + "metric: {name: val/accuracy, goal: maximize}\n"
        "early_terminate: {type: hyperband, min_iter: 1}\n",
        "",
        "early_terminate and --until-decided do not go together",
    ),
    (FILE.replace("[none, batch, group, layer]", "[batch]"), "", "has no two arms to decide"),
    (FILE, "{baseline: bacth}", "the sweep has no arm 'bacth'; did you mean 'batch'?"),
    (FILE, "{arms: [group-g4]}", "the sweep has no arm 'group-g4'; did you mean 'group-g8'?"),
    (FILE.replace("[0, 1]", "[0, 1, 2]"), "", "max_seeds=2 is fewer than the 3 seeds"),
]


@pytest.mark.parametrize(("file", "question", "message"), REFUSED)
def test_what_cannot_be_decided_is_refused_with_the_reason(tmp_path, file, question, message):
    path = prepare(tmp_path, question, file)
    with pytest.raises(SweepError, match=re.escape(message)):
        run_until_decided(path, max_seeds=2)


def test_equal_arms_are_rarely_told_apart_and_different_ones_always(tmp_path):
    """End to end over many sweeps of known difference: every seed is its own world."""
    false = right = 0
    for world in range(10):
        folder = tmp_path / str(world)
        folder.mkdir()
        start = 1_000 * world
        file = FILE.replace("[0, 1]", f"[{start}, {start + 1}]").replace("[8, 32]", "[8]")
        source, _, _ = run_until_decided(prepare(folder, file=file), max_seeds=12)
        for contrast in (*source.standing.decided, *source.standing.open):
            if contrast.arm == "layer":
                false += contrast.verdict != "undecided"
            if contrast.arm == "none":
                right += contrast.verdict == "worse"
    assert right == 10
    assert false <= 1


TINY = """
name: tiny
method: grid
parameters:
  norm: {values: [none, group]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 1}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_where_seeds_are_added_and_typed_again_it_goes_on_to_its_end(tmp_path):
    """By the command itself: SIGKILL to all of it once a seed was added, in mid-run."""
    prepare(tmp_path, "{alpha: 1.0e-9, first_look: 2}").rename(tmp_path / "tiny.yaml")
    (tmp_path / "norms.question.yaml").rename(tmp_path / "tiny.question.yaml")
    (tmp_path / "tiny.yaml").write_text(TINY)
    typed = ("sweep", "tiny.yaml", "--until-decided", "--max-seeds", "4", "--json", "--quiet")
    typed = (*typed, "--wandb", "disabled")
    process = start(*typed, cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "runs").glob("*-s1-*/result.json")), process)
    process.kill()
    process.communicate()
    before = len(find_runs([tmp_path / "runs"])[0])
    assert before < 8
    done = gnbench(*typed, cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    told = json.loads(done.stdout)
    assert (told["runs"], told["undecided"]) == (8, 1)
    assert told["contrasts"][0]["seeds"] == [0, 1, 2, 3]
    assert told["reused"] + told["finished"] == 8
    found, problems = find_runs([tmp_path / "runs"])
    assert ([run.result.status for run in found], problems) == (["finished"] * 8, [])
    record = json.loads((tmp_path / "runs" / "tiny.sweep.json").read_text())
    assert len(record["runs"]) == 8, "those that the killed call added are in it, too"


def wait_for(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before the test could kill it"
        assert time.monotonic() < deadline
        time.sleep(0.02)

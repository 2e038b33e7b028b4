"""Arms tuned on seeds of their own: planned, charged, chosen on validation, never reported."""

from __future__ import annotations

import json
import re

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import SweepError
from groupnorm_bench.runs import FoundRun, RunFolder, RunResult, find_runs
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.describe import count_contrasts
from groupnorm_bench.sweep.plan.plan import build_plan
from groupnorm_bench.sweep.plan.tuning import describe_tuning, tuned_plan, tuning_plan

FILE = """
name: norms
method: grid
parameters:
  norm: {values: [batch, group]}
  batch_size: {values: [8, 32]}
  dataset: {value: mnist-5k}
  epochs: {value: 1}
  seed: {values: [0, 1]}
"""
LR = "tune: {settings: {lr: [0.001, 1e-2, 0.1]}, seeds: [1000, 1001]}"
GROUPS = """
arms: [group]
tune:
  settings:
    lr: {batch: [0.001, 0.002, 0.004, 0.008], group: [0.001, 0.01]}
    num_groups: {group: [4, 16]}
  seeds: [7]
"""


def plan_of(tmp_path, question, file=FILE):
    (tmp_path / "norms.yaml").write_text(file)
    (tmp_path / "norms.question.yaml").write_text(question)
    return build_plan(read_spec(tmp_path / "norms.yaml"))


def results_of(runs, tmp_path, accuracy=lambda config: 0.9, diverged=lambda config: False):
    found = []
    for config in runs:
        value = accuracy(config)
        summary = {"val/accuracy": value, "test/accuracy": 1 - value}
        status = "diverged" if diverged(config) else "finished"
        result = RunResult(config=config, status=status, summary=summary)
        found.append(FoundRun(RunFolder.of(tmp_path, config), result))
    return found


def test_tuning_is_a_plan_of_as_many_values_for_every_arm_on_seeds_of_its_own(tmp_path):
    plan = plan_of(tmp_path, LR)
    tuning = tuning_plan(plan, ())
    assert (tuning.num_cells, tuning.num_runs, tuning.num_todo) == (12, 24, 24)
    assert {config.seed for config in tuning.runs} == {1000, 1001}
    assert {config.lr for config in tuning.runs} == {0.001, 0.01, 0.1}
    assert (tuning.spec.name, tuning.spec.tunes, tuning.spec.question) == (
        "norms-tuning",
        "norms",
        None,
    )
    some = results_of(list(tuning.runs)[:5], tmp_path)
    assert tuning_plan(plan, some).num_todo == 19
    assert describe_tuning(plan, tuning) == (
        "tuning: 3 values of lr for each cell, on seeds 1000, 1001, which are never reported: "
        "24 runs, 0 reused, 24 to do"
    )


def test_each_cell_gets_what_validates_best_for_it_and_one_that_diverged_loses(tmp_path):
    plan = plan_of(tmp_path, LR)
    tuning = tuning_plan(plan, ())
    best = {("batch", 8): 0.1, ("batch", 32): 0.01, ("group-g8", 8): 0.001, ("group-g8", 32): 0.1}

    def accuracy(config):
        return 0.9 + 0.05 * (config.lr == best[config.arm, config.batch_size])

    def diverged(config):
        return config.arm == "batch" and config.lr == 0.1 and config.seed == 1001

    found = results_of(tuning.runs, tmp_path, accuracy, diverged)
    done, lines = tuned_plan(plan, tuning_plan(plan, found), found)
    chosen = {(c.arm, c.batch_size): c.lr for c in done.runs}
    assert chosen == best | {("batch", 8): 0.001}
    assert (done.num_runs, done.num_todo, {c.seed for c in done.runs}) == (8, 8, {0, 1})
    assert "batch at batch_size=32: lr=0.01" in lines
    assert count_contrasts(done) == count_contrasts(plan) == 2


def test_groups_are_tuned_too_and_the_arm_is_called_by_what_is_not(tmp_path):
    plan = plan_of(tmp_path, GROUPS)
    tuning = tuning_plan(plan, ())
    assert tuning.num_cells == 16
    found = results_of(
        tuning.runs,
        tmp_path,
        lambda c: 0.9 + 0.01 * (c.norm == "group" and c.num_groups == 16 and c.lr == 0.01),
    )
    done, _ = tuned_plan(plan, tuning_plan(plan, found), found)
    assert {(c.arm, c.lr) for c in done.runs} == {("batch", 0.001), ("group-g16", 0.01)}
    assert count_contrasts(done) == 2
    assert done.spec.question.arm_of(done.runs[1]) in ("group", "batch")


REFUSED = [
    (LR.replace("lr", "epochs"), FILE, "tune epochs cannot be tuned"),
    (LR, FILE.replace("epochs:", "lr: {values: [0.1, 0.2]}\n  epochs:"), "tune lr is swept by"),
    (LR.replace("1001", "1"), FILE, "tune seeds=1 is a seed of the sweep's own runs"),
    (LR, FILE.replace("grid", "random") + "run_cap: 9\n", "tune needs method grid"),
    (GROUPS.replace("[4, 16]", "[4, 8, 16]"), FILE, "unequal numbers of values"),
    (LR.replace("[0.001, 1e-2, 0.1]", "{btach: [1, 2]}"), FILE, "no arm 'btach'; did you mean"),
    (LR.replace("0.1]", "1e-2]"), FILE, "names a value twice"),
]


@pytest.mark.parametrize(("question", "file", "message"), REFUSED)
def test_what_would_be_unfair_or_means_nothing_is_refused(tmp_path, question, file, message):
    with pytest.raises(SweepError, match=re.escape(message)):
        tuning_plan(plan_of(tmp_path, question, file), ())


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


def test_a_sweep_tunes_first_then_runs_and_decides_and_typed_again_it_goes_on(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "tiny.question.yaml").write_text(
        "{baseline: none, alpha: 1.0e-9, first_look: 2, max_seeds: 3,"
        " tune: {settings: {lr: [1.0e-9, 0.01]}, seeds: [1, 50]}}"
    )
    typed = ["sweep", "tiny.yaml", "--until-decided", "--wandb", "disabled", "--json"]
    assert run([*typed, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["tuning"]["runs"], planned["tuning"]["todo"], planned["plan"]) == (8, 8, [])
    assert planned["estimated_seconds"] > 0

    outcomes = []
    for _ in range(2):
        code = run(typed)
        outcomes.append((code, json.loads(capsys.readouterr().out)))
    (code, first), (again, second) = outcomes
    assert code == again == 5
    assert first["tuning"] == {"runs": 8, "trained": 8, "seeds": [1, 50], "done": 8}
    assert second["tuning"]["trained"] == second["finished"] == 0
    assert (first["finished"], first["runs"]) == (6, 14)
    assert first["contrasts"] == second["contrasts"]
    assert first["contrasts"][0]["seeds"] == [0, 2, 3], "a tuning seed is never reported"
    assert "decided by 6 runs and 8 runs to tune; 3 seeds for every" in first["closing"][-1]

    assert run(["compare", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [c["seeds"] for c in told["contrasts"]] == [[0, 2, 3]]
    assert [cell["n"] for cell in told["cells"]] == [3, 3]
    assert "8 runs that tuned a sweep not reported" in told["notes"]
    assert run(["report", "runs", "--out", "r.html"]) == 0
    found, _ = find_runs([tmp_path / "runs"])
    assert len(found) == 14
    lost = next(each for each in found if each.result.seed == 50)
    lost.folder.result_path.unlink()
    capsys.readouterr()
    assert run(typed) == 5
    mended = json.loads(capsys.readouterr().out)
    assert mended["tuning"]["trained"] == 1
    assert mended["contrasts"] == first["contrasts"]

"""What a plan says of itself, as text and as data."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml
from rich.console import Console

from groupnorm_bench.cli.views.plan import draw_plan
from groupnorm_bench.compare.anytime import anytime
from groupnorm_bench.runs import find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.describe import (
    cost_of,
    count_contrasts,
    plan_to_json,
    sample_todo,
    seeds_needed,
)
from groupnorm_bench.sweep.plan.plan import Plan, build_plan
from tests.support import ROOT
from tests.support.run_folders import make_run

SWEEPS = ROOT / "sweeps"
BUNDLED = TrainConfig(dataset="mnist-5k")


def norm_plan(**options) -> Plan:
    return build_plan(read_spec(SWEEPS / "norm.yaml"), base=BUNDLED, **options)


def text_of(plan: Plan, **options) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(draw_plan(plan, **options))
    return console.file.getvalue()


def test_the_json_has_the_counts_of_the_contract():
    document = json.loads(json.dumps(plan_to_json(norm_plan())))
    counts = {key: document[key] for key in ("grid_points", "cells", "runs", "reused", "todo")}
    assert counts == {"grid_points": 162, "cells": 24, "runs": 72, "reused": 0, "todo": 72}
    assert len(document["plan"]) == 72
    assert document["plan"][0] == {
        "run": "none-b32-mnist-5k-s0-" + document["plan"][0]["cell"][-8:],
        "arm": "none",
        "cell": document["plan"][0]["cell"],
        "seed": 0,
        "state": "todo",
        "settings": BUNDLED.replace(norm="none", batch_size=32).cell_settings,
    }


def test_the_plan_lists_what_is_reused_and_what_failed(tmp_path):
    runs = list(norm_plan().todo())
    make_run(tmp_path, runs[0])
    make_run(tmp_path, runs[24])  # the same cell's second seed
    make_run(tmp_path, runs[1], status="failed")
    plan = norm_plan(found=find_runs([tmp_path])[0])
    states = [run["state"] for run in plan_to_json(plan)["plan"]]
    assert states == ["reused", "failed", *["todo"] * 22, "reused", *["todo"] * 47]
    rows = [line.split("│") for line in text_of(plan).splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[1:5]] for row in rows[:3]] == [
        ["none", "32", "1", "2"],
        ["batch", "32", "2", ""],
        ["group-g1", "32", "3", ""],
    ]
    assert "69 to do, 2 reused, 1 failed before (--retry-failed)" in text_of(plan)


def test_the_text_names_each_reason_for_a_duplicate():
    text = text_of(norm_plan())
    assert "162 grid points" in text
    assert "45 fewer: norm=none does not read num_groups" in text
    assert "45 fewer: norm=batch does not read num_groups" in text


def test_a_capped_plan_shows_the_repeats_it_has(tmp_path):
    rows = [
        line.split("│")
        for line in text_of(norm_plan(run_cap=25)).splitlines()
        if line.startswith("│")
    ]
    assert [row[3].strip() for row in rows] == ["2"] + ["1"] * 23


def test_contrasts_are_arms_against_one_at_each_batch_size():
    assert count_contrasts(norm_plan()) == 7 * 3


@pytest.mark.parametrize(("question", "seeds"), [(None, 6), ("{first_look: 4}", 5)])
def test_the_fewest_seeds_are_those_with_which_a_plain_difference_is_decided(
    tmp_path, question, seeds
):
    text = "method: grid\nparameters: {norm: {values: [none, batch, layer, instance]}}\n"
    (tmp_path / "s.yaml").write_text(text)
    if question:
        (tmp_path / "s.question.yaml").write_text(question)
    plan = build_plan(read_spec(tmp_path / "s.yaml"))
    assert seeds_needed(plan) == seeds
    first_look = 4 if question else 6
    look = {"first_look": first_look}
    assert 3 * anytime(np.full(seeds, 0.5), 0.05, **look).p < 0.05
    assert 3 * anytime(np.full(seeds - 1, 0.5), 0.05, **look).p > 0.05


def test_too_few_seeds_are_told_before_anything_is_spent():
    few = text_of(norm_plan())
    assert "3 seeds can decide none of 21 contrasts: where differences are plain it takes" in few
    assert "--seeds 6" in few
    assert "--seeds" not in text_of(norm_plan(seeds=6))
    assert plan_to_json(norm_plan())["seeds_needed"] == 6


def test_a_single_arm_has_nothing_to_compare(tmp_path):
    (tmp_path / "s.yaml").write_text("method: grid\nparameters: {lr: {values: [0.1, 0.2]}}\n")
    plan = build_plan(read_spec(tmp_path / "s.yaml"))
    assert count_contrasts(plan) == 0
    assert plan_to_json(plan)["notes"] == []


def test_the_estimate_is_the_work_over_the_workers():
    plan = norm_plan()
    sample = sample_todo(plan)
    seconds = [float(config.batch_size) for config in sample]
    cost = cost_of(plan, sample, seconds, workers=4)
    assert cost.total == pytest.approx(24 * (32 + 128 + 512) / 4)
    assert cost.run == {32: 32.0, 128: 128.0, 512: 512.0}
    text = text_of(plan, cost=cost)
    assert "about 67 min with 4 workers; a run takes 32 s at batch size 32, 2 min at" in text
    assert plan_to_json(plan, cost)["estimated_seconds"] == pytest.approx(4032)


def test_no_number_of_workers_makes_a_run_faster():
    plan = norm_plan(run_cap=2)
    assert cost_of(plan, sample_todo(plan), [10.0, 20.0], workers=64).total == 20


def test_a_long_plan_is_estimated_from_a_part_of_it(tmp_path):
    document = {"method": "grid", "parameters": {"epochs": {"min": 1, "max": 100_000}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    plan = build_plan(read_spec(tmp_path / "s.yaml"))
    sample = sample_todo(plan)
    assert len(sample) == 1000
    total = cost_of(plan, sample, [float(c.epochs) for c in sample], workers=1).total
    assert total == pytest.approx(100_000 * 50_000, rel=0.01)
    document = plan_to_json(plan)
    assert (document["runs"], len(document["plan"]), document["plan_left_out"]) == (
        100_000,
        2_000,
        98_000,
    )
    assert "and 99,960 more" in text_of(plan)


def test_a_bayes_plan_is_estimated_from_draws_of_its_space():
    plan = build_plan(read_spec(SWEEPS / "bayes.yaml"), base=BUNDLED)
    sample = sample_todo(plan)
    assert 0 < len(sample) <= 50
    assert all(config in plan for config in sample)
    assert plan_to_json(plan)["plan"] == []
    assert f"{plan.num_runs} runs" in text_of(plan)


def test_a_run_cap_tells_what_it_cuts_and_counts_only_complete_seeds():
    plan = norm_plan(seeds=10, run_cap=24 * 2 + 5)
    assert plan_to_json(plan)["smallest_p"] == 0.5
    assert "run_cap=53 leaves 187 of 240 runs out; complete are 2 of 10 seeds" in text_of(plan)
    assert "2 seeds can decide none of 21 contrasts" in text_of(plan)
    assert "complete are 7 of 24 cells" in text_of(norm_plan(run_cap=7))
    assert "run_cap" not in text_of(norm_plan(run_cap=72))

"""What a plan can show before anything is spent, against the verdicts themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from groupnorm_bench.compare.question import Question
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.errors import ConfigError, SweepError
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.describe import Cost
from groupnorm_bench.sweep.plan.plan import Plan, build_plan
from groupnorm_bench.sweep.plan.power import plan_power
from tests.support.command_line import gnbench
from tests.support.run_folders import table_of

SWEEP = """method: {method}
parameters:
  norm: {{values: [{norms}]}}
  seed: {{values: [0, 1]}}
  dataset: {{value: mnist-5k}}
"""


def plan_of(
    folder: Path, norms: str = "batch, layer, none", question: str = "", method: str = "grid"
) -> Plan:
    file = folder / "three.yaml"
    file.write_text(SWEEP.format(norms=norms, method=method))
    if question:
        (folder / "three.question.yaml").write_text(question)
    return build_plan(read_spec(file), base=TrainConfig())


def test_the_seeds_are_those_after_which_compare_decides(tmp_path):
    power = plan_power(plan_of(tmp_path, "batch, layer"), 0.5, 0.5)
    rng = np.random.default_rng(0)
    needed = []
    for _ in range(60):
        accuracies: dict[str, list[float]] = {"batch": [], "layer": []}
        for pairs in range(1, 60):
            accuracies["batch"].append(0.9)
            accuracies["layer"].append(0.9 + rng.normal(0.5, 0.5) / 100)
            if pairs < 6:
                continue
            (contrast,) = compare_runs(table_of(accuracies), Question(baseline="batch")).contrasts
            if contrast.verdict != "undecided":
                needed.append(pairs)
                break
    assert power.one.low <= np.quantile(needed, 0.2)
    assert abs(power.one.middle - np.median(needed)) <= 3
    assert power.one.high >= np.quantile(needed, 0.8)


def test_a_family_takes_longer_than_one_and_a_plan_less_than_looking(tmp_path):
    power = plan_power(plan_of(tmp_path), 0.3, 0.5)
    planned = plan_power(plan_of(tmp_path), 0.3, 0.5, planned=True)
    assert power.contrasts == 2
    assert power.one.middle < power.all.middle
    assert planned.all.middle < power.all.middle


def test_the_question_tells_margin_alpha_and_arms(tmp_path):
    question = "baseline: batch\narms: [layer]\nmargin: 0.4\nalpha: 0.01\n"
    power = plan_power(plan_of(tmp_path, question=question), 0.0, 0.3)
    assert (power.contrasts, power.rule.margin, power.rule.alpha) == (1, 0.4, 0.01)
    assert power.all.high < 200  # equality decides


def test_time_is_that_of_every_cell_shared_by_the_workers(tmp_path):
    cost = Cost(total=12.0, mean=2.0, workers=2, run={64: 2.0})
    power = plan_power(plan_of(tmp_path), 3.0, 0.3, estimate=lambda: cost)
    assert power.seconds_per_seed == 3.0
    assert power.to_data()["all"][0] == {"share": 0.1, "seeds": 6, "seconds": 18.0}
    assert plan_power(plan_of(tmp_path), 3.0, 0.3).to_data()["all"][0]["seconds"] is None


@pytest.mark.parametrize(
    ("difference", "sd", "message"),
    [
        (0.2, 0.0, "sd=0.0 is not above 0"),
        (0.2, float("nan"), "sd=nan is not above 0"),
        (float("inf"), 0.3, "difference=inf is not a number"),
        (0.0, 0.3, "difference=0 is never decided without a margin"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_timed(
    tmp_path, difference, sd, message
):
    with pytest.raises(ConfigError, match=message):
        plan_power(plan_of(tmp_path), difference, sd, estimate=lambda: pytest.fail("timed"))


def test_a_plan_with_nothing_to_decide_is_refused(tmp_path):
    with pytest.raises(SweepError, match="has no two arms to decide between"):
        plan_power(plan_of(tmp_path, "batch"), 0.2, 0.3)


def test_on_the_command_line(tmp_path):
    typed = ("power", "quick", "--difference", "1", "--sd", "0.3", "--workers", "2")
    shown = gnbench(*typed, "-q", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "all 2" in shown.stdout
    assert "next: gnbench sweep quick --until-decided --max-seeds 6" in shown.stdout
    data = json.loads(gnbench(*typed, "--json", cwd=tmp_path).stdout)
    assert [step["seeds"] for step in data["one"]] == [6, 6, 6]
    assert data["seconds_per_seed"] > 0
    assert list(tmp_path.iterdir()) == []  # nothing is left

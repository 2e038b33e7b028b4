"""A third way, by pandas and scipy alone, agrees with `gnbench compare --json` to 1e-9."""

from __future__ import annotations

import html
import json
import re

import pytest

from groupnorm_bench.cli.app import run
from tests.support.run_folders import arms, make_runs
from tests.support.third_way import contrasts

NUMBERS = ("mean_difference", "ci_low", "ci_high", "p", "p_adjusted", "correlation")
NUMBERS += ("t_p", "t_p_adjusted")
INTEGRATED = ("e_value", "anytime_p", "anytime_p_adjusted", "anytime_low", "anytime_high")


def assert_agree(capsys, runs):
    """Return the contrasts of `gnbench compare`, once the third way has given the same."""
    assert run(["compare", str(runs), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)["contrasts"]
    theirs = contrasts(runs).to_dict("records")
    assert len(ours) == len(theirs) > 0
    by_cell = {(row["batch_size"], row["arm"]): row for row in theirs}
    for contrast in ours:
        row = by_cell[contrast["setting"]["batch_size"], contrast["arm"]]
        assert contrast["n_pairs"] == row["n_pairs"]
        assert contrast["verdict"] == row["verdict"]
        for name in NUMBERS:
            assert contrast[name] == pytest.approx(row[name], abs=1e-9), name
        for name in INTEGRATED:
            assert contrast[name] == pytest.approx(row[name], rel=1e-6, abs=1e-6), name
    return ours


@pytest.mark.parametrize("seeds", [6, 8, 12])
def test_the_third_way_agrees_on_synthetic_runs(capsys, tmp_path, seeds):
    make_runs(tmp_path, arms=arms(groups=(2, 8)), batch_sizes=(2, 32), seeds=seeds)
    assert_agree(capsys, tmp_path)


SWEEP = """
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, batch, group]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 200}
  epochs: {value: 1}
  seed: {values: [0, 1, 2, 3, 4, 5]}
"""


@pytest.mark.slow
def test_a_sweep_compared_reported_and_worked_out_a_third_way_gives_the_same(capsys, tmp_path):
    runs, page = tmp_path / "runs", tmp_path / "report.html"
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    sweep = ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(runs), "--wandb", "disabled"]
    assert run([*sweep, "--yes", "--quiet"]) == 0
    capsys.readouterr()
    contrasts = assert_agree(capsys, runs)
    assert len(contrasts) == 2
    assert run(["report", str(runs), "--out", str(page)]) == 0
    text = re.sub(r"\s+", " ", html.unescape(page.read_text(encoding="utf-8")))
    for contrast in contrasts:
        assert contrast["sentence"] in text

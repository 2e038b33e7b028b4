"""A third way, by pandas and scipy alone, agrees with `gnbench compare --json` to 1e-9."""

from __future__ import annotations

import json

import pytest
from run_folders import arms, make_runs
from third_way import contrasts

from groupnorm_bench.cli.app import run

NUMBERS = ("mean_difference", "ci_low", "ci_high", "p", "p_adjusted", "correlation")


def assert_agree(capsys, runs):
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


@pytest.mark.parametrize("seeds", [6, 8, 12])
def test_the_third_way_agrees_on_synthetic_runs(capsys, tmp_path, seeds):
    make_runs(tmp_path, arms=arms(groups=(2, 8)), batch_sizes=(2, 32), seeds=seeds)
    assert_agree(capsys, tmp_path)


@pytest.mark.slow
def test_the_third_way_agrees_on_trained_runs(capsys, tmp_path):
    for norm in ("none", "batch", "group"):
        for seed in range(6):
            args = ["--norm", norm, "--batch-size", "16", "--train-limit", "300", "--epochs", "1"]
            where = ["--dataset", "mnist-5k", "--wandb", "disabled", "--out", str(tmp_path)]
            assert run(["train", *args, "--seed", str(seed), *where, "--quiet"]) == 0
    capsys.readouterr()
    assert_agree(capsys, tmp_path)

"""A folder of data sets that is typed, and does nothing, is told; so is a place for no runs."""

import pytest

from groupnorm_bench.cli.app import run

SWEEP = """method: grid
parameters:
  norm: {values: [none, batch]}
  dataset: {value: mnist-5k}
  max_steps: {value: 1}
  train_limit: {value: 64}
"""
SMALL = ["--dataset", "mnist-5k", "--max-steps", "1", "--train-limit", "64", "--wandb", "disabled"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GNBENCH_DATA_DIR", raising=False)
    (tmp_path / "s.yaml").write_text(SWEEP)


@pytest.mark.parametrize(
    "typed",
    [
        ["train", *SMALL],
        ["sweep", "s.yaml", "--dry-run"],
        ["power", "s.yaml", "--difference", "1", "--sd", "1"],
    ],
)
def test_a_folder_of_data_sets_that_nothing_reads_is_told(typed, capsys, monkeypatch):
    line = "--data-dir is not read: mnist-5k is not kept there\n"
    assert run([*typed, "--data-dir", "elsewhere"]) == 0
    assert line in capsys.readouterr().err
    monkeypatch.setenv("GNBENCH_DATA_DIR", "elsewhere")  # meant for others, too
    assert run(typed) == 0
    assert line not in capsys.readouterr().err


def test_one_that_is_read_is_not_told(tmp_path, capsys):
    (tmp_path / "elsewhere").write_text("no folder")
    assert run(["train", "--dataset", "mnist", "--data-dir", "elsewhere"]) == 2
    assert "--data-dir is not read" not in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/x", "file/x/y", "link"])
def test_a_plan_for_a_place_that_can_hold_no_runs_is_refused(out, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert run(["sweep", "s.yaml", "--dry-run", "--out", out]) == 2
    told, err = capsys.readouterr()
    assert told == ""
    assert err.count("\n") == 1
    assert "folder" in err


def test_one_is_one(capsys):
    assert run(["sweep", "s.yaml", "--seeds", "1", "--workers", "1", "--wandb", "disabled"]) == 0
    out, err = capsys.readouterr()
    assert "s: 2 cells x 1 seed = 2 runs: 0 reused, 2 to do\n" in err
    assert "2 runs trained in" in out
    assert run(["sweep", "--norm", "none,none", *SMALL, "--seeds", "1"]) == 0
    out, err = capsys.readouterr()
    assert "1 cell x 1 seed = 1 run: 1 reused, 0 to do\n" in err

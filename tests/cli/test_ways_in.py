"""A sweep from typed lists, a file to edit, one run shown, settings as a file, runs listed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from groupnorm_bench.cli.app import run
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.layers import read_settings
from groupnorm_bench.sweep.file.shipped import shipped_sweeps
from groupnorm_bench.sweep.file.spec import read_spec
from tests.support.run_folders import config_of, make_run

LISTS = ["sweep", "--norm", "none,batch,group", "--num-groups", "4,8", "--batch-size", "32,128"]
TINY = ["--dataset", "mnist-5k", "--max-steps", "2", "--wandb", "disabled"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_lists_are_a_sweep(capsys):
    assert run([*LISTS, "--seeds", "8", *TINY, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["runs"]) == (8, 64)
    assert list(Path().iterdir()) == [], "a plan writes nothing"


def test_save_writes_a_file_that_is_the_same_sweep(capsys):
    assert run([*LISTS, "--seeds", "8", *TINY, "--dry-run", "--json", "--save", "s.yaml"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(["sweep", "s.yaml", "--wandb", "disabled", "--dry-run", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert [one["run"] for one in first["plan"]] == [one["run"] for one in second["plan"]]
    spec = read_spec(Path("s.yaml"))
    assert spec.name == "norm-num_groups-batch_size"
    assert spec.seeds == tuple(range(8))
    assert run([*LISTS, "--dry-run", "--save", "s.yaml"]) == 2
    assert "s.yaml' is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("sweep", "error: no sweep is named; name a file or one of ours"),
        ("sweep norm --lr 0.1,0.2", "error: lr=0.1,0.2 is a list, which makes a sweep of its own"),
        ("sweep --norm none,grup", "error: as typed: norm: norm='grup' is unknown; did you mean"),
        ("sweep --norm group --num-groups 3,4", "error: as typed: num_groups=3 does not divide"),
        ("sweep --norm none,batch --seeds 0", "error: seeds=0 is too small"),
        ("sweep norm --save s.yaml", "error: --save writes the sweep of typed lists"),
        ("train --norm none,batch", "error: norm='none,batch' is unknown"),
        ("init nrom", "error: name='nrom' is no sweep of ours; did you mean 'norm'?"),
        ("show none", "error: runs/none holds no run"),
        ("status --runs --json", "error: --runs lists runs once"),
        ("sweep --norm none,batch --seed 0,1 --seeds 8", "error: seeds=8 beside seed=0,1: both"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(typed, says, capsys):
    options = ["--dataset", "mnist-5k"] if typed.startswith("sweep") else []
    assert run([*typed.split(), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", shipped_sweeps())
def test_init_writes_an_editable_copy(name, capsys):
    assert run(["init", name, "mine.yaml"]) == 0
    assert capsys.readouterr().out.startswith("mine.yaml\nnext: gnbench sweep mine.yaml")
    text = Path("mine.yaml").read_text()
    assert text.startswith("#")
    assert yaml.safe_load(text) == yaml.safe_load(shipped_sweeps()[name].read_text())
    assert f"sweeps/{name}.yaml" not in text
    assert run(["init", name, "mine.yaml"]) == 2
    assert Path("mine.yaml").read_text() == text


def test_init_copies_ours_whatever_lies_here_and_both_its_files_or_none(capsys):
    os.mkfifo("norm")
    assert run(["init", "norm", "a\udcff.yaml"]) == 0
    Path("smoke").touch()
    Path("quick.question.yaml").symlink_to("nowhere")
    assert run(["init", "quick"]) == 2
    assert "quick.question.yaml is there already" in capsys.readouterr().err
    assert not Path("quick.yaml").exists()


def test_show_finds_a_run_by_folder_name_and_beginning(capsys):
    make_run(Path("runs"), config_of("batch", seed=1))
    make_run(Path("runs"), config_of("none"))
    name = config_of("batch", seed=1).name
    shown = set()
    for typed in (f"runs/{name}", name, "batch"):
        assert run(["show", typed]) == 0
        shown.add(capsys.readouterr().out)
    (text,) = shown
    assert text.startswith(f"{name}  finished\n  settings      norm=batch")
    assert "val/accuracy" in text
    assert " %" in text
    assert run(["show", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["config"]["seed"]) == (name, 1)
    assert run(["show", "runs"]) == 2
    assert "may be any of 2 runs" in capsys.readouterr().err
    assert run(["show", "bacth-b64-mnist-5k"]) == 2
    assert "did you mean batch-b64" in capsys.readouterr().err
    assert run(["show", "x"]) == 2
    assert "see gnbench status --runs" in capsys.readouterr().err


def test_show_takes_a_run_that_diverged_and_what_a_stranger_wrote_into_one(capsys):
    folder = make_run(Path("runs"), config_of("batch"), status="diverged")
    told = json.loads(folder.result_path.read_text())
    assert told["history"][-1]["train/loss"] is None
    told["history"].append({"train/loss": 1.5})
    told["summary"] |= {"\x1b[2J": 1, "error": "loss\x1b]0;owned\x07 is nan"}
    told["environment"]["host"] = "a\x1b[31m"
    told["wandb"] = {"url": "http://x/\x1b[0m"}
    folder.result_path.write_text(json.dumps(told))
    assert run(["show", "runs"]) == 0
    out = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert "error             loss\\x1b]0;owned" in out
    assert out.count(" - ") >= 2


def test_show_config_is_a_file_that_config_reads(capsys):
    options = ["--norm", "batch", "--lr", "0.01", "--epochs", "2"]
    assert run(["train", *options, "--show-config"]) == 0
    text = capsys.readouterr().out
    Path("c.yaml").write_text(text)
    expected = TrainConfig(norm="batch", lr=0.01, epochs=2)
    assert TrainConfig.from_mapping(read_settings(Path("c.yaml"))) == expected
    assert text.startswith(f"# {expected.name}\n")
    assert "num_groups: 8  # batch does not read it" in text
    assert not Path("runs").exists()


def test_status_lists_every_run_when_asked(capsys):
    names = [
        make_run(Path("runs"), config_of("batch", seed=seed)) and config_of("batch", seed=seed).name
        for seed in range(3)
    ]
    assert run(["status", "--runs"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names)
    assert out.count("finished") == 1 + 3


@pytest.mark.slow
def test_a_typed_sweep_is_kept_beside_its_runs_and_goes_on(capsys):
    typed = ["sweep", "--norm", "none,batch", "--seeds", "1", *TINY, "--train-limit", "128"]
    assert run(typed) == 0
    (file,) = Path("runs").glob("norm-*.yaml")
    capsys.readouterr()
    assert run([*typed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 2
    assert run(["sweep", str(file), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 2

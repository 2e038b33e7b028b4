"""`gnbench sweep` and `gnbench status`, run as a user runs them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig

SWEEP = """
name: tiny
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  norm: {values: [none, group]}
  num_groups: {values: [4, 8]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 2}
"""


def gnbench(*args, cwd, timeout=240, **environment):
    """Run gnbench; its W&B is offline and knows no login."""
    return subprocess.run(
        [sys.executable, "-m", "groupnorm_bench.cli", *map(str, args)],
        cwd=cwd,
        env=os.environ | {"WANDB_MODE": "offline"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def only_json(process):
    """Return the one JSON document on stdout."""
    return json.loads(process.stdout)


def trained(runs_dir):
    """When each run's training began, by its own account: changes if it is trained again."""
    return {
        path.parent.name: json.loads(path.read_text())["environment"]["started"]
        for path in runs_dir.glob("*/result.json")
    }


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder in which a tiny sweep has run to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "tiny.yaml").write_text(SWEEP)
    return folder, gnbench("sweep", "tiny.yaml", "--workers", "2", cwd=folder)


def test_a_sweep_trains_every_run_and_prints_a_ranking(swept):
    folder, process = swept
    assert process.returncode == 0, process.stderr
    arms = [line.split()[1] for line in process.stdout.splitlines()[1:4]]
    assert set(arms) == {"none", "group-g4", "group-g8"}
    assert process.stdout.splitlines()[0].split()[:4] == ["rank", "arm", "val/accuracy", "%"]
    assert "3 runs trained in" in process.stdout
    assert "next: gnbench compare runs" in process.stdout
    lines = [line for line in process.stderr.splitlines() if line.startswith("[")]
    assert len(lines) == 3
    assert lines[-1].startswith("[3/3] ")
    assert "tiny: 3 cells x 1 seed = 3 runs: 0 reused, 3 to do" in process.stderr
    for path in (folder / "runs").glob("*/result.json"):
        result = RunFolder(path.parent).read()
        assert result.status == "finished"
        assert result.environment["threads"] == 1
        assert result.wandb["mode"] == "offline"
    assert len(list((folder / "runs").glob("*/wandb/offline-run-*"))) == 3


def test_a_second_time_nothing_is_trained_and_torch_is_not_even_loaded(swept):
    folder, _ = swept
    before = trained(folder / "runs")
    process = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-m", "groupnorm_bench.cli"),
            *("sweep", "tiny.yaml", "--json"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    document = only_json(process)
    assert process.returncode == 0
    assert {key: document[key] for key in ("runs", "reused", "todo", "finished", "failed")} == {
        "runs": 3,
        "reused": 3,
        "todo": 0,
        "finished": 0,
        "failed": 0,
    }
    assert [row["rank"] for row in document["ranking"]] == [1, 2, 3]
    assert all(row["n"] == 1 and row["sd"] is None for row in document["ranking"])
    assert trained(folder / "runs") == before
    assert not any(line.endswith(" torch") for line in process.stderr.splitlines())


@pytest.mark.slow
def test_a_longer_plan_keeps_what_a_shorter_one_trained(swept):
    folder, _ = swept
    process = gnbench("sweep", "tiny.yaml", "--seeds", "2", "--dry-run", "--json", cwd=folder)
    document = only_json(process)
    assert {key: document[key] for key in ("grid_points", "cells", "runs", "reused", "todo")} == {
        "grid_points": 8,
        "cells": 3,
        "runs": 6,
        "reused": 3,
        "todo": 3,
    }
    assert document["estimated_seconds"] > 0
    assert [row["state"] for row in document["plan"]] == ["reused"] * 3 + ["todo"] * 3


def test_status_tells_what_the_folders_hold(swept, tmp_path):
    folder, _ = swept
    assert only_json(gnbench("status", "runs", "--json", cwd=folder)) == {
        "runs": 3,
        "counts": {"finished": 3},
        "unsettled": [],
        "problems": [],
        "questions": {},
    }
    assert gnbench("status", cwd=folder).stdout == "3 runs: 3 finished\n"
    process = gnbench("status", "missing", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr == ("error: missing is not a folder of runs; train one: gnbench train\n")


def test_status_knows_running_from_interrupted_by_the_lock(tmp_path):
    row = {"epoch": 1, "val/accuracy": 0.75}
    runs = [TrainConfig(norm="batch", dataset="mnist-5k", seed=seed) for seed in range(4)]
    folders = [RunFolder.of(tmp_path, run) for run in runs]
    for config, folder in zip(runs[:3], folders, strict=False):
        folder.path.mkdir()
        folder.write(RunResult(config=config, status="interrupted", history=[row]))
    folders[2].write(
        RunResult(config=runs[2], status="failed", summary={"error": "ValueError: no good"})
    )
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "result.json").write_text("{")
    with folders[0].claim(), folders[3].claim():
        document = only_json(gnbench("status", tmp_path, "--json", cwd=tmp_path))
        text = gnbench("status", tmp_path, cwd=tmp_path).stdout
    assert document["counts"] == {"running": 2, "interrupted": 1, "failed": 1}
    states = {run["run"]: (run["state"], run["epoch"]) for run in document["unsettled"]}
    assert states == {
        runs[0].name: ("running", 1),
        runs[1].name: ("interrupted", 1),
        runs[2].name: ("failed", 0),
        runs[3].name: ("running", 0),
    }
    assert len(document["problems"]) == 1
    assert "4 runs: 2 running, 1 interrupted, 1 failed" in text
    assert f"{runs[0].name}    1/5       75.00 %" in text
    assert f"failed: {runs[2].name}: ValueError: no good" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "workers='0' is not a number from 1 on; use 1, 2, ... or auto"),
        (["--workers", "two"], "workers='two' is not a number from 1 on; use 1, 2, ... or auto"),
        (["--seeds", "0"], "seeds=0 "),
        (["--executor", "locl"], "executor='locl' is unknown; did you mean 'local'?"),
        (["--wandb", "ofline"], "wandb='ofline' is unknown; did you mean 'offline'?"),
        (["--seed", "3"], "seed=3 does nothing in a sweep; use --seeds N"),
        (["--seed", "0"], "seed=0 does nothing in a sweep; use --seeds N"),
        (["--norm", "batch"], "norm=batch is swept by tiny.yaml; leave the option out"),
        (["--run-cap", "0"], "run_cap=0 is not a number of runs; use 1 or more"),
        (["--max-failures", "0"], "Invalid value for '--max-failures'"),
        (["--trial-timeout", "0"], "Invalid value for '--trial-timeout'"),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--out", "tiny.yaml"], "tiny.yaml is not a folder of runs"),
        (["--out", "tiny.yaml/runs"], "out=tiny.yaml/runs cannot be made: tiny.yaml is no folder"),
        (["--seeds", "1000"], "3,000 runs to do; type --yes to start so many, or --dry-run"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    assert run(["sweep", "tiny.yaml", *options]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    process = gnbench("sweep", "none.yaml", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.startswith("error: none.yaml")
    assert process.stderr.count("\n") == 1


def test_watch_and_json_exclude_each_other(capsys):
    assert run(["status", "--watch", "--json"]) == 2
    assert capsys.readouterr().err.startswith("error: watch does not go with --json")


def kept(runs_dir, norm, **summary):
    """Write a run as an earlier sweep would have left it; it belongs to the plan of SWEEP."""
    config = TrainConfig(
        norm=norm, batch_size=32, dataset="mnist-5k", train_limit=64, max_steps=2, num_groups=8
    )
    result = RunResult(config=config, status=summary["status"], summary=summary)
    folder = RunFolder.of(runs_dir, config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write(result)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_watch_looks_again_until_ctrl_c(tmp_path, monkeypatch, capsys, is_terminal):
    kept(tmp_path, "none", status="finished")
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 1:
            kept(tmp_path, "batch", status="finished")
        elif len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("groupnorm_bench.cli.status.time.sleep", sleep)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    assert run(["status", str(tmp_path), "--watch"]) == 0
    shown = capsys.readouterr().out
    if is_terminal:
        assert "2 runs: 2 finished" in shown
    else:
        assert shown == "1 run: 1 finished\n2 runs: 2 finished\n", "said again only if changed"


def test_what_failed_and_diverged_before_is_told_and_exits_3(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SWEEP.replace("[4, 8]", "[8]"))
    kept(tmp_path / "runs", "none", status="diverged")
    kept(tmp_path / "runs", "group", status="failed", error="ValueError: no")
    assert run(["sweep", "tiny.yaml", "--wandb", "disabled"]) == 3
    err = capsys.readouterr().err
    assert "1 reused, 1 failed before (--retry-failed), 0 to do" in err
    assert err.splitlines()[-1] == (
        "error: 1 of 2 runs failed and 1 diverged; --retry-failed tries them again"
    )


def test_a_very_large_plan_asks_a_person_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    person = io.StringIO("n\n")
    person.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", person)
    assert run(["sweep", "tiny.yaml", "--seeds", "1000"]) == 130
    assert "3,000 runs to do, about " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_search_prunes_ends_at_its_cap_and_goes_on_where_it_was(tmp_path):
    (tmp_path / "search.yaml").write_text(
        SWEEP.replace("method: grid", "method: bayes\nrun_cap: 6")
        .replace("max_steps: {value: 2}", "epochs: {value: 3}\n  lr: {min: 0.0001, max: 0.1}")
        .replace(
            "parameters:", "early_terminate: {type: hyperband, min_iter: 1, eta: 2}\nparameters:"
        )
    )
    first = gnbench("sweep", "search.yaml", "--run-cap", "4", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    document = only_json(first)
    assert document["finished"] + document["pruned"] == 4
    assert document["finished"] >= 1
    before = trained(tmp_path / "runs")
    second = only_json(gnbench("sweep", "search.yaml", "--json", cwd=tmp_path))
    assert (second["reused"], second["finished"] + second["pruned"]) == (4, 2)
    assert {name: trained(tmp_path / "runs")[name] for name in before} == before


@pytest.mark.slow
def test_failed_runs_exit_3_are_left_alone_and_then_tried_again(tmp_path):
    """A norm of the user's own that raises: a real trial, a real traceback."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Broken(nn.Identity):\n"
        "    def forward(self, x):\n"
        "        if len(x) > 16:\n"  # a plan tries fewer images
        "            raise ZeroDivisionError('my mistake')\n"
        "        return x\n"
        "def make(num_channels, num_groups):\n"
        "    return Broken()\n"
    )
    sweep = tmp_path / "own.yaml"
    sweep.write_text(SWEEP.replace("[none, group]", "['mine:make', none]").replace("[4, 8]", "[4]"))
    first = gnbench("sweep", "own.yaml", "--json", "--workers", "1", cwd=tmp_path)
    assert first.returncode == 3
    document = only_json(first)
    assert (document["finished"], document["failed"]) == (1, 1)
    assert document["failures"][0]["reason"].endswith("ZeroDivisionError: my mistake")
    assert "error: 1 of 2 runs failed and 0 diverged" in first.stderr
    (path,) = (tmp_path / "runs").glob("*/traceback.txt")
    assert "in forward" in path.read_text()

    again = gnbench("sweep", "own.yaml", "--json", cwd=tmp_path)
    assert again.returncode == 3
    document = only_json(again)
    assert (document["todo"], document["failed_before"], document["reused"]) == (0, 1, 1)

    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef make(num_channels, num_groups):\n    return nn.Identity()\n"
    )
    mended = gnbench(
        "sweep", "own.yaml", "--json", "--workers", "1", "--retry-failed", cwd=tmp_path
    )
    assert mended.returncode == 0, mended.stderr
    assert only_json(mended)["finished"] == 1
    assert not path.exists(), "the traceback of a run that is mended"


def test_until_decided_typed_again_answers_alike_on_all_its_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SWEEP.replace("[4, 8]", "[8]").replace(": 2}", ": 1}"))
    (tmp_path / "tiny.question.yaml").write_text("{baseline: none, alpha: 1.0e-9}")
    typed = ["sweep", "tiny.yaml", "--until-decided", "--max-seeds", "3", "--wandb", "disabled"]
    outcomes = []
    for _ in range(2):
        code = run([*typed, "--json", "--quiet"])
        outcomes.append((code, json.loads(capsys.readouterr().out)))
    (code, first), (again, second) = outcomes
    assert code == again == 5
    assert (first["runs"], first["reused"], first["undecided"]) == (6, 0, 1)
    assert (second["runs"], second["reused"], second["finished"]) == (6, 6, 0)
    assert {cell["n"] for cell in first["ranking"]} == {3}
    for key in ("ranking", "contrasts", "closing", "decided", "undecided"):
        assert first[key] == second[key]
    assert first["closing"][-1].startswith("0 of 1 contrast decided by 6 runs; 3 seeds for every")
    assert run(["status", "--json"]) == 0
    asked = {"tiny": {"baseline": "none", "alpha": 1e-9}}
    assert json.loads(capsys.readouterr().out)["questions"] == asked
    assert run(["report", "--format", "md", "--out", "r.md"]) == 0
    capsys.readouterr()
    assert "The question: alpha 1e-09. Looked at" in (tmp_path / "r.md").read_text()
    record = json.loads((tmp_path / "runs" / "tiny.sweep.json").read_text())
    assert len(record["runs"]) == 6, "those that were added, too"
    assert run(["compare", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["baseline"], told["alpha"]) == ("none", 1e-9)
    assert [c["n_pairs"] for c in told["contrasts"]] == [3]

    (tmp_path / "tiny.question.yaml").write_text("{baseline: none, alpha: 1.0e-6}")
    assert run(typed) == 5
    printed = capsys.readouterr()
    assert "the question of tiny has changed since its runs began" in printed.err
    assert run(["compare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alpha"] == 1e-6

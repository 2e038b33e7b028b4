"""Accuracies are per cent wherever a person reads them, and fractions wherever a program does."""

from __future__ import annotations

import json
import re

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import RunFolder, RunResult, find_runs
from groupnorm_bench.settings.config import TrainConfig

TINY = ("--dataset", "mnist-5k", "--train-limit", "64", "--batch-size", "32", "--epochs", "1")
FRACTION = re.compile(r"\b(accuracy\w*|val|train)\b[^0-9\n/]*[ :][01]\.[0-9]")


def test_what_is_found_as_a_fraction():
    for line in ("val/accuracy 0.9123  12 s", "best 0.91 accuracy 0.5 train", "val 1.000"):
        assert FRACTION.search(line)
    assert not FRACTION.search("val/accuracy 91.23 %  train/loss 0.5 val/loss 0.3")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("train", *TINY, "--wandb", "disabled"), 4),
        (("sweep", "--norm", "none,batch", "--seeds", "1", *TINY, "--wandb", "disabled"), 2),
    ],
)
def test_training_tells_per_cent_and_writes_fractions(tmp_path, monkeypatch, capsys, typed, told):
    monkeypatch.chdir(tmp_path)
    assert run(typed) == 0
    output = capsys.readouterr()
    shown = output.out + output.err
    assert not FRACTION.search(shown)
    assert len(re.findall(r"[0-9]{1,2}\.[0-9]{2} %", shown)) >= told
    assert run([*typed, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    if typed[0] == "train":
        assert 0 < document["summary"]["val/accuracy"] < 1
    found, _ = find_runs([tmp_path / "runs"])
    name = found[0].result.config.name
    for command in (("status", "--runs"), ("show", name), ("compare",)):
        assert run(command) == 0
        assert not FRACTION.search(capsys.readouterr().out)


def test_status_tells_per_cent_of_runs_at_work(tmp_path, capsys):
    config = TrainConfig(norm="batch", dataset="mnist-5k")
    folder = RunFolder.of(tmp_path, config)
    row = {"epoch": 1, "val/accuracy": 0.75}
    with folder.claim():
        folder.write(RunResult(config=config, status="interrupted", history=[row]))
        for options in ((), ("--runs",)):
            assert run(["status", str(tmp_path), *options]) == 0
            assert "75.00 %" in capsys.readouterr().out
        assert run(["status", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unsettled"][0]["val/accuracy"] == 0.75

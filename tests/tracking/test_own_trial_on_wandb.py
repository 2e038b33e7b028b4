"""Runs of a training function of the user's own on W&B: config both ways, history, agents."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.layers import make_config
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.readback import read_wandb
from groupnorm_bench.tracking.wire import from_wandb, to_wandb
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.trial import run_trial
from tests.support.wandb_server import WandbServer

STUDY = """
def train(run):
    run.norm_layer(16)
    for epoch in range(4):
        run.log({"val/dice": run.settings["width"] / 10 + epoch / 100 + run.seed / 1000})
        if run.should_stop():
            return
    return {"dice": run.settings["width"] / 10}
"""
SWEEP = """
name: shapes
method: grid
metric: {name: val/dice, goal: maximize}
parameters:
  trial: {value: "wandb_study:train"}
  norm: {value: group}
  width: {values: [4, 3, 2, 1]}
"""
HYPERBAND = "early_terminate: {type: hyperband, min_iter: 1, eta: 2}\n"


@pytest.fixture
def study(wandb_env: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.chdir(wandb_env)
    monkeypatch.syspath_prepend(wandb_env)
    (wandb_env / "wandb_study.py").write_text(STUDY)
    (wandb_env / "shapes.yaml").write_text(SWEEP)
    yield wandb_env
    sys.modules.pop("wandb_study", None)


@pytest.mark.parametrize("norm", ["batch", "group", "ghost-batch"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_groups": 4, "width": 0, "zero": 0.0, "flag": False},
        {"group_size": 2, "batch_size": 1, "max_steps": 0, "optimizer": "lamb", "model": "cnn"},
    ],
)
def test_settings_of_any_name_come_back_from_wandb(norm: str, settings: dict[str, object]):
    config = make_config([{"trial": "m:f", "norm": norm, "seed": 3}, settings])
    told = to_wandb(config, "suite") | {"_wandb": {"x": 1}, "variant": {"width": 2}}
    assert all(isinstance(value, str | int | float | dict) for value in told.values())
    back = from_wandb(told)
    assert back.name == config.name
    assert back.cell_settings == config.cell_settings


def test_a_run_of_gnbenchs_own_is_none_of_a_trial():
    assert type(from_wandb(to_wandb(TrainConfig(), "suite"))) is TrainConfig


def test_a_run_arrives_on_wandb_and_is_read_back_as_it_was(wandb_server: WandbServer, study: Path):
    config = make_config([{"trial": "wandb_study:train", "norm": "batch", "width": 3, "seed": 2}])
    options = TrackingOptions(mode="online", project="p")
    said: list[str] = []
    places = {"runs_dir": study / "runs", "tracking": options, "hooks": Hooks(say=said.append)}
    result = run_trial(config, dataset=None, **places)
    assert (result.wandb["mode"], said) == ("online", [])
    ((back,), problems) = read_wandb("tester/p")
    assert problems == []
    assert back.config == config
    assert back.summary["dice"] == result.summary["dice"]
    assert back.status == "finished"
    assert [row["val/dice"] for row in back.history] == [r["val/dice"] for r in result.history]


def test_offline_it_goes_up_later(wandb_server: WandbServer, study: Path):
    words = ["--norm", "batch", "--set", "width=3", "--wandb", "offline", "--project", "p"]
    assert run(["train", "--trial", "wandb_study:train", *words]) == 0
    assert run(["sync", "runs"]) == 0
    ((back,), problems) = read_wandb("tester/p")
    assert problems == []
    assert (back.arm, back.config.value("width"), back.summary["dice"]) == ("batch", 3, 0.3)
    assert len(back.history) == 4


def test_hyperband_judges_by_what_a_function_logs(study: Path, capsys: pytest.CaptureFixture[str]):
    (study / "shapes.yaml").write_text(SWEEP.replace("parameters:", f"{HYPERBAND}parameters:"))
    words = ["--executor", "local", "--workers", "1", "--wandb", "offline"]
    assert run(["sweep", "shapes.yaml", *words]) == 0
    found, _ = find_runs([study / "runs"])
    by_width = {each.result.config.value("width"): each.result for each in found}
    assert {width: result.status for width, result in by_width.items()} == {
        4: "finished",
        3: "pruned",
        2: "pruned",
        1: "pruned",
    }
    assert [len(by_width[width].history) for width in (4, 3)] == [4, 1]
    assert by_width[1].summary == {"val/dice": 0.1, "status": "pruned"}
    assert {each.result.wandb["mode"] for each in found} == {"offline"}


@pytest.mark.slow  # the agent looks every 5 s
def test_agents_run_a_function_of_the_users_own(wandb_server: WandbServer, study: Path, capsys):
    (study / "shapes.yaml").write_text(SWEEP.replace("4, 3, 2, 1", "2, 1"))
    assert run(["sweep", "shapes.yaml", "--workers", "1", "--project", "p"]) == 0
    assert "2 runs trained in" in capsys.readouterr().out
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    states = [row["state"] for row in wandb_server.runs(sweep["name"])]
    assert states == ["finished", "finished"]
    found, _ = find_runs([study / "runs"])
    assert sorted(each.result.summary["dice"] for each in found) == [0.1, 0.2]

"""Run folders that version 0.1.0 wrote (commit 0c53d7e) are read, compared and reused for ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import RunFolder, find_runs
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import build_plan
from groupnorm_bench.tracking.wire import from_wandb, to_wandb

FOLDERS = sorted(Path(__file__).with_name("folders_0_1_0").iterdir())


def test_they_hold_every_kind_of_setting_and_of_end():
    told = [json.loads((folder / "result.json").read_text()) for folder in FOLDERS]
    assert {each["status"] for each in told} == {"finished", "diverged", "failed"}
    assert {each["config"].get("group_size") for each in told} == {None, 4}
    assert {each["config"].get("max_steps") for each in told} > {None, 2}
    assert {each["environment"]["version"] for each in told} == {"0.1.0"}
    changed = {name for each in told for name in each["config"]}
    for name in changed - {"group_size", "num_groups", "device"}:
        assert len({each["config"].get(name) for each in told}) > (name == "dataset") - 1, name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_name_cell_and_settings_are_what_they_were(folder: Path):
    told = json.loads((folder / "result.json").read_text())
    result = RunFolder(folder).read()
    assert result is not None
    assert (result.config.name, result.cell, result.arm) == (
        folder.name,
        told["cell"],
        told["arm"],
    )
    assert told["config"].items() <= result.config.to_dict().items()
    assert from_wandb(to_wandb(result.config, "train")).name == folder.name
    again = json.loads(result.to_json())
    assert {key: again[key] for key in told if key != "config"} == {
        key: value for key, value in told.items() if key != "config"
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_sweep_that_asks_for_it_finds_it_done(tmp_path: Path, folder: Path):
    told = json.loads((folder / "result.json").read_text())
    settings = {name: value for name, value in told["config"].items() if value is not None}
    document = {"method": "grid", "parameters": {k: {"value": v} for k, v in settings.items()}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    found, problems = find_runs([folder])
    plan = build_plan(read_spec(tmp_path / "s.yaml"), found=found)
    assert problems == []
    failed = told["status"] == "failed"
    assert (plan.num_reused, plan.num_failed, plan.num_todo) == (1 - failed, failed, 0)


def test_a_sweep_over_all_of_them_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arms, runs = [], tmp_path / "runs"
    for folder in FOLDERS:
        told = json.loads((folder / "result.json").read_text())
        if told["status"] == "finished" and told["seed"] == 0:
            shutil.copytree(folder, runs / folder.name)
            arms.append({k: v for k, v in told["config"].items() if v is not None and k != "seed"})
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    document = {"method": "grid", "parameters": {"arm": {"values": arms}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    assert run(["sweep", str(tmp_path / "s.yaml"), "--out", str(runs), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["runs"], done["reused"], done["todo"]) == (len(arms), len(arms), 0)
    assert len(arms) > 6
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert after.items() >= before.items()

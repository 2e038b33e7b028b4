"""W&B as a sweep's engine, piece by piece; whole sweeps by agents are in `test_wandb_sweeps.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from groupnorm_bench.cli.app import run
from groupnorm_bench.runs import RunFolder, RunResult, Status, find_runs
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors import EngineOptions
from groupnorm_bench.sweep.executors.protocol import Ended, Lost, Progress, Started
from groupnorm_bench.sweep.executors.wandb.executor import WandbExecutor, open_plan
from groupnorm_bench.sweep.executors.wandb.local_sweep import LocalSweep
from groupnorm_bench.sweep.executors.wandb.watch import FolderWatch, SweepWatch
from groupnorm_bench.sweep.file.spec import read_spec
from groupnorm_bench.sweep.plan.plan import Plan, build_plan
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.sweeps import SweepRecord
from tests.support.wandb_server import WandbServer

SWEEP = {
    "name": "small",
    "method": "grid",
    "metric": {"name": "val/accuracy", "goal": "maximize"},
    "parameters": {
        "norm": {"values": ["none", "group"]},
        "num_groups": {"value": 8},
        "dataset": {"value": "mnist-5k"},
        "train_limit": {"value": 64},
        "max_steps": {"value": 1},
        "device": {"value": "cpu"},
    },
}
ONLINE = TrackingOptions(mode="online", project="p")


def the_plan(folder: Path, **changes: Any) -> Plan:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SWEEP | changes))
    return build_plan(read_spec(path))


def judge(config: TrainConfig, row: Any) -> bool:
    return False


def write(runs_dir: Path, config: TrainConfig, status: Status, **parts: Any) -> None:
    folder = RunFolder.of(runs_dir, config)
    folder.path.mkdir(parents=True, exist_ok=True)
    before = folder.result_path.stat().st_mtime_ns if folder.result_path.exists() else 0
    folder.write(RunResult(config=config, status=status, **parts))
    os.utime(folder.result_path, ns=(before + 1, before + 1))  # however coarse the disk's clock


def test_a_folder_watch_tells_each_step_of_a_run_once(tmp_path: Path):
    first, second, old = (TrainConfig(seed=seed) for seed in range(3))
    write(tmp_path, old, "failed")
    watch = FolderWatch(tmp_path, [first, second, old])
    assert list(watch.news()) == [], "what was there before is no news"
    row = {"step": 10, "val/accuracy": 0.5}
    write(tmp_path, first, "interrupted")
    assert [type(event) for event in watch.news()] == [Started]
    write(tmp_path, first, "interrupted", history=[row])
    (event,) = watch.news()
    assert event == Progress(first, 0, 10, 0.5, row)
    assert list(watch.news()) == []
    RunFolder.of(tmp_path, first).result_path.write_text("{half")
    assert list(watch.news()) == []
    write(tmp_path, first, "finished", history=[row, row | {"step": 20}])
    events = list(watch.news())
    assert [type(event) for event in events] == [Progress, Ended]
    write(tmp_path, second, "failed")
    assert [type(event) for event in watch.news()] == [Started, Ended]
    assert watch.open == [old]


def test_a_sweep_watch_tells_only_the_ended_runs_of_its_sweep(tmp_path: Path):
    ours, other, unfinished, old = (TrainConfig(seed=seed) for seed in range(4))
    place = {"sweep_id": "abc"}
    assert list(SweepWatch(tmp_path / "none", "abc").news()) == []
    write(tmp_path, old, "finished", wandb=place)
    watch = SweepWatch(tmp_path, "abc")
    write(tmp_path, ours, "failed", wandb=place)
    write(tmp_path, other, "finished", wandb={"sweep_id": "xyz"})
    write(tmp_path, unfinished, "interrupted", wandb=place)
    assert [result.config for result in watch.news()] == [ours]
    assert list(watch.news()) == []


def state_of(server: WandbServer, path: str, state: str) -> None:
    """Set a sweep's state, as its page does."""
    server.store.update("sweeps", server.sweep(path.rpartition("/")[2])["id"], state=state)


def test_a_plan_typed_again_finds_its_sweep_and_a_changed_or_cancelled_one_makes_another(
    wandb_server: WandbServer, tmp_path: Path
):
    said: list[str] = []
    runs_dir = tmp_path / "runs"
    first = open_plan(the_plan(tmp_path), runs_dir, ONLINE, said.append)
    assert said == [
        f"W&B sweep: {first.url}",
        f"join it from another machine: gnbench agent {first.path}",
    ]
    assert open_plan(the_plan(tmp_path), runs_dir, ONLINE, said.append).path == first.path
    longer = the_plan(tmp_path, parameters=SWEEP["parameters"] | {"seed": {"values": [0, 1]}})
    second = open_plan(longer, runs_dir, ONLINE, said.append)
    assert second.path != first.path
    state_of(wandb_server, second.path, "CANCELED")
    assert open_plan(longer, runs_dir, ONLINE, said.append).path not in (first.path, second.path)


def test_a_local_sweep_is_one_wandb_sweep_and_ends(wandb_server: WandbServer, tmp_path: Path):
    said: list[str] = []
    plan = the_plan(tmp_path)
    (tmp_path / "runs").mkdir()
    sweep = LocalSweep(plan, tmp_path / "runs", ONLINE, said.append)
    options = sweep.begin()
    (stored,) = wandb_server.store.all("SELECT * FROM sweeps")
    assert options.sweep_id == stored["name"]
    assert said == [f"W&B sweep: {wandb_server.url}/tester/p/sweeps/{stored['name']}"]
    again = LocalSweep(plan, tmp_path / "runs", ONLINE, said.append)
    assert again.begin().sweep_id == stored["name"], "typed again, it goes on"
    again.end(["one-more"], is_done=True)
    assert wandb_server.sweep(stored["name"])["state"] == "FINISHED"
    record = SweepRecord.read(tmp_path / "runs" / "small.sweep.json")
    assert record.runs == (*(config.name for config in plan.runs), "one-more")


@pytest.mark.slow  # the agent looks every 5 s
def test_a_grid_is_trained_by_agents_to_a_ranking(
    wandb_server: WandbServer, wandb_env: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """W&B: a grid hands out each point once, and the agent ends with it."""
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.chdir(wandb_env)
    the_plan(wandb_env, parameters=SWEEP["parameters"] | {"norm": {"value": "group"}})
    assert run(["sweep", "small.yaml", "--workers", "1", "--project", "p"]) == 0
    out, err = capsys.readouterr()
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    runs = wandb_server.runs(sweep["name"])
    assert [(r["state"], r["offers"], r["completions"]) for r in runs] == [("finished", 1, 1)]
    assert f"W&B sweep: {wandb_server.url}/tester/p/sweeps/{sweep['name']}" in err
    assert "1 run trained in" in out
    found, _ = find_runs([wandb_env / "runs"])
    assert {each.result.wandb["sweep_id"] for each in found} == {sweep["name"]}
    assert run(["agent", f"tester/p/{sweep['name']}"]) == 2
    assert "is finished; see " in capsys.readouterr().err


def test_what_wandb_lost_is_trained_here_within_its_sweep(
    wandb_server: WandbServer, wandb_env: Path, monkeypatch: pytest.MonkeyPatch
):
    """W&B: a run whose agent died is not handed out again, nor is any of a sweep that is over."""
    monkeypatch.delenv("WANDB_DIR")
    plan = the_plan(wandb_env)
    said: list[str] = []
    runs_dir = wandb_env / "runs"
    sweep = open_plan(plan, runs_dir, ONLINE, said.append)
    state_of(wandb_server, sweep.path, "FINISHED")
    options = EngineOptions(runs_dir=runs_dir, data_dir=wandb_env, tracking=ONLINE)
    executor = WandbExecutor(plan, options, said.append)
    config = plan.runs[0]
    missing = TrainConfig(norm="no.such:norm", dataset="mnist-5k", device="cpu")
    attempts: list[TrainConfig | None] = [config, None, config, missing]

    events = list(executor.submit(iter(attempts), judge, lambda: False))
    over, ended, lost = [event for event in events if isinstance(event, Lost | Ended)]
    assert isinstance(over, Lost)
    assert over.reason == f"sweep {sweep.path} is over"
    assert isinstance(ended, Ended)
    assert ended.result.status == "finished"
    assert ended.result.wandb["sweep_id"] == sweep.path.rpartition("/")[2]
    (stored,) = wandb_server.runs(ended.result.wandb["sweep_id"])
    assert (stored["state"], stored["summary"]["status"]) == ("finished", "finished")
    assert isinstance(lost, Lost)
    assert "No module named 'no'" in lost.reason


def test_told_to_stop_wandb_as_the_engine_begins_nothing_more(
    wandb_server: WandbServer, wandb_env: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_DIR")
    plan = the_plan(wandb_env)
    runs_dir = wandb_env / "runs"
    sweep = open_plan(plan, runs_dir, ONLINE, lambda line: None)
    state_of(wandb_server, sweep.path, "FINISHED")
    options = EngineOptions(runs_dir=runs_dir, data_dir=wandb_env, tracking=ONLINE)
    executor = WandbExecutor(plan, options, lambda line: None)
    runs = iter([plan.runs[0], None, plan.runs[0]])
    (lost,) = executor.submit(runs, judge, lambda: True)
    assert isinstance(lost, Lost)
    assert next(runs) == plan.runs[0], "not drawn"

"""A run that W&B's agent asked for, seen from inside: why it was stopped, what it is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groupnorm_bench.tracking.agent_run import answer_from_folder, report_failure, why_stopped
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.sweeps import create_sweep
from tests.support.offline_runs import configs, track_one
from tests.support.wandb_server import WandbServer

GRID = {"method": "grid", "parameters": {"norm": {"values": ["batch", "none"]}}}
HYPERBAND = GRID | {
    "metric": {"name": "val/loss", "goal": "minimize"},
    "early_terminate": {"type": "hyperband", "min_iter": 1},
}


def begin(server: WandbServer, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> Any:
    """Make a sweep with one run at work, and stand where an agent would start that run."""
    place = create_sweep(config, project="p")
    sweep = server.sweep(place["sweep_id"])
    run = server.store.insert(
        "runs",
        project=sweep["project"],
        name=f"run-of-{place['sweep_id']}",
        sweep=place["sweep_id"],
        state="running",
        heartbeat=sweep["created"],
    )
    monkeypatch.setenv("WANDB_ENTITY", place["entity"])
    monkeypatch.setenv("WANDB_PROJECT", place["project"])
    monkeypatch.setenv("WANDB_SWEEP_ID", place["sweep_id"])
    monkeypatch.setenv("WANDB_RUN_ID", f"run-of-{place['sweep_id']}")
    return run, sweep


def test_why_a_run_was_stopped(wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch):
    """W&B: `shouldStop` is set by the page's button and by hyperband, not by a preemption."""
    store = wandb_server.store
    for config, reason in ((GRID, "stopped"), (HYPERBAND, "pruned")):
        run, sweep = begin(wandb_server, monkeypatch, config)
        name = f"run-of-{sweep['name']}"
        assert why_stopped(name) == "preempted", "W&B asked for nothing"
        store.update("runs", run, stop_requested=1)
        assert why_stopped(name) == reason
        assert why_stopped("another") == "preempted"
        store.update("sweeps", sweep["id"], state="CANCELED")
        assert why_stopped(name) == "stopped", "a cancelled sweep wants none of its runs"
    monkeypatch.setenv("WANDB_SWEEP_ID", "gone")
    assert why_stopped(name) == "preempted", "no answer: handed out again rather than lost"


def test_a_run_done_before_is_answered_with_its_history(wandb_server: WandbServer, wandb_env: Path):
    (config,) = configs(1)
    folder = track_one(wandb_env / "runs", config)
    result = folder.read()
    assert result is not None
    said: list[str] = []
    options = TrackingOptions(mode="online", project="p")
    answer_from_folder(result, wandb_env / "again", options, said.append)
    assert said == []
    (run,) = wandb_server.runs()
    assert run["state"] == "finished"
    assert run["tags"] == ["group-g8", "reused"]
    assert [row["epoch"] for row in run["history"]] == [1, 2]
    assert run["summary"]["status"] == "finished"


def test_a_setting_that_cannot_be_built_is_a_failed_run_with_its_reason(
    wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch
):
    report_failure(ValueError("not under an agent"))
    assert wandb_server.runs() == []
    begin(wandb_server, monkeypatch, GRID)
    report_failure(ValueError("norm='x' is unknown"))
    (run,) = wandb_server.runs()
    assert run["state"] == "failed"
    assert "norm='x' is unknown" in run["summary"]["error"]

"""The W&B run of a trial, online: what arrives, and that no fault of W&B hurts a training."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groupnorm_bench.runs import RunFolder
from groupnorm_bench.tracking import run as tracking
from groupnorm_bench.tracking.login import resolve_mode
from groupnorm_bench.tracking.options import TrackingOptions
from groupnorm_bench.tracking.run import track
from groupnorm_bench.tracking.sweeps import create_sweep
from tests.support.offline_runs import configs, track_one
from tests.support.wandb_server import API_KEY, WandbServer

SWEEP = {"method": "grid", "parameters": {"norm": {"values": ["batch", "group"]}}}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines for the user; retries are made short, as a user cannot."""
    for kind in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):
        monkeypatch.setenv(f"WANDB_X_{kind}_RETRY_MAX", "1")
        monkeypatch.setenv(f"WANDB_X_{kind}_RETRY_WAIT_MIN_SECONDS", "1")
        monkeypatch.setenv(f"WANDB_X_{kind}_RETRY_WAIT_MAX_SECONDS", "1")
    monkeypatch.setattr(tracking, "_refused", set())
    return []


def track_run(runs_dir: Path, said: list[str], **options: object) -> dict[str, object]:
    """Track a run of one epoch; return what the folder keeps of it."""
    config = configs(1)[0]
    folder = RunFolder.of(runs_dir, config)
    folder.path.mkdir(parents=True)
    with track(config, folder.path, TrackingOptions(**options), said.append) as tracker:
        tracker.log({"epoch": 1, "val/accuracy": 0.5})
        tracker.summarize({"status": "finished"})
    return tracker.info


def test_an_online_run_arrives_with_name_group_tags_and_flat_config(
    wandb_server: WandbServer, wandb_env: Path
):
    config = configs(2)[1]
    track_one(wandb_env / "runs", config, mode="online")
    (run,) = wandb_server.runs()
    assert run["display_name"] == config.name
    assert (run["group_name"], run["job_type"]) == (config.cell, "norm")
    assert run["tags"] == ["batch"]
    assert run["config"]["num_groups"] == 0, "a missing value drops a line from parallel plots"
    assert run["config"]["arm"] == "batch"
    assert not any("." in key for key in run["config"])
    assert None not in run["config"].values()
    assert [row["epoch"] for row in run["history"]] == [1, 2]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 404},
        {"kind": "rubbish"},
        {"kind": "drop"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_a_refusal_is_one_line_and_the_run_goes_on_offline(
    wandb_server: WandbServer, wandb_env: Path, said: list[str], fault: dict[str, object]
):
    wandb_server.fail(**fault)
    began = time.monotonic()
    info = track_run(wandb_env / "runs", said)
    assert info["mode"] == "offline"
    assert len(said) == 1
    assert said[0].startswith("W&B: not online (")
    assert said[0].endswith("keeping the run offline (later: gnbench sync)")
    assert API_KEY not in said[0]
    assert time.monotonic() - began < 40
    assert list((wandb_env / "runs").glob(f"*/wandb/offline-run-*-{info['id']}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 500},
        {"kind": "late", "seconds": 20},
    ],
    ids=["429", "500", "late"],
)
def test_a_server_that_stalls_delays_a_run_by_seconds(
    wandb_server: WandbServer, wandb_env: Path, said: list[str], fault: dict[str, object]
):
    wandb_server.fail(**fault)
    began = time.monotonic()
    info = track_run(wandb_env / "runs", said)
    assert time.monotonic() - began < 60
    assert info["mode"] == "offline"
    assert len(said) == 1


@pytest.mark.parametrize("entity", ["nobody", "forbidden"])
def test_an_entity_out_of_reach_keeps_the_run_offline(
    wandb_server: WandbServer, wandb_env: Path, said: list[str], entity: str
):
    info = track_run(wandb_env / "runs", said, entity=entity)
    assert info["mode"] == "offline"
    assert len(said) == 1
    assert "not found" in said[0] or "permission denied" in said[0]


def test_without_a_key_the_run_is_offline_and_nobody_is_asked(
    wandb_server: WandbServer, wandb_env: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_API_KEY")
    assert track_run(wandb_env / "runs", said)["mode"] == "offline"
    assert "no login found" in said[0]
    assert wandb_server.operations() == []


def test_under_an_agent_nobody_asks_again_whether_we_are_logged_in(
    wandb_server: WandbServer, said: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "run")
    assert resolve_mode("auto", said.append) == "online"
    assert resolve_mode("offline", said.append) == "offline"
    assert said == []
    assert wandb_server.operations() == []


def test_a_run_of_a_local_sweep_joins_the_sweep_under_its_own_id(
    wandb_server: WandbServer, wandb_env: Path, said: list[str]
):
    """W&B: a run may name a sweep that did not hand it out."""
    place = create_sweep(SWEEP, project="groupnorm-bench")
    info = track_run(wandb_env / "runs", said, sweep_id=place["sweep_id"])
    (run,) = wandb_server.runs(place["sweep_id"])
    assert run["name"] == info["id"]
    assert said == []


def test_where_the_sweep_is_refused_the_run_stands_in_a_group(
    wandb_server: WandbServer, wandb_env: Path, said: list[str]
):
    track_run(wandb_env / "runs", said, sweep_id="nosuch", suite="norm")
    (run,) = wandb_server.runs()
    assert (run["group_name"], run["state"]) == ("norm", "finished")
    assert len(said) == 1
    assert "W&B takes no run into its sweep" in said[0]
    assert "see group norm" in said[0]


@pytest.mark.slow
def test_an_outage_of_30_seconds_in_mid_run_loses_nothing(
    wandb_server: WandbServer, wandb_env: Path, said: list[str]
):
    config = configs(1)[0]
    folder = RunFolder.of(wandb_env / "runs", config)
    folder.path.mkdir(parents=True)
    for kind in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):
        del os.environ[f"WANDB_X_{kind}_RETRY_MAX"]  # W&B's own persistence is what counts here
    with track(config, folder.path, TrackingOptions(), said.append) as tracker:
        tracker.log({"epoch": 1})
        wandb_server.wait_for(lambda: wandb_server.runs())
        wandb_server.stop()
        tracker.log({"epoch": 2})
        time.sleep(30)
        tracker.log({"epoch": 3})
        wandb_server.start()
        tracker.log({"epoch": 4})
    (run,) = wandb_server.runs()
    assert run["state"] == "finished"
    assert [row["epoch"] for row in run["history"]] == [1, 2, 3, 4]
    assert said == []


def test_the_key_is_in_no_file_of_a_run(wandb_server: WandbServer, wandb_env: Path):
    folder = track_one(wandb_env / "runs", configs(1)[0], mode="online")
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert API_KEY.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_server_gone_for_good_ends_the_run_and_sync_completes_it(
    wandb_server: WandbServer, wandb_env: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 5)
    runs_dir = wandb_env / "runs"
    fault = wandb_server.fail("drop", matching="file_stream")
    began = time.monotonic()
    folder = track_one(runs_dir, configs(1)[0], mode="online")
    assert time.monotonic() - began < 60
    assert fault.hits
    wandb_server.heal()
    done = subprocess.run(
        [sys.executable, "-m", "groupnorm_bench.cli", "sync", str(runs_dir)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (run,) = wandb_server.runs()
    assert (run["display_name"], run["state"]) == (folder.path.name, "finished")
    assert {row["epoch"] for row in run["history"]} == {1, 2}

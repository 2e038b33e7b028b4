"""W&B sweeps end to end: `wandb sweep`, W&B's agents, and our runs under them.

The test server decides; each test names the W&B behaviour that it leans on.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from groupnorm_bench.runs import find_runs
from tests.support import ROOT
from tests.support.wandb_server import WandbServer

pytestmark = pytest.mark.slow  # agents look every 5 s, and each run imports torch

SMALL = {
    "dataset": {"value": "mnist-5k"},
    "train_limit": {"value": 100},
    "epochs": {"value": 1},
    "device": {"value": "cpu"},
}
LONG = SMALL | {"epochs": {"value": 400}}


@pytest.fixture
def place(wandb_server: WandbServer, wandb_env: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with `gnbench` and `wandb` of this interpreter on PATH."""
    bin_dir = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([bin_dir, os.environ["PATH"]]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.chdir(wandb_env)
    return wandb_env


@pytest.fixture
def started(place: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that the test starts; those still there at its end are killed."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            for _ in range(4):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def cli(*args: str, module: str = "groupnorm_bench.cli") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def spawn(started: list[subprocess.Popen[str]], *args: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "groupnorm_bench.cli", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started.append(process)
    return process


def make_sweep(server: WandbServer, parameters: dict[str, Any], **keys: Any) -> str:
    """Create a sweep with W&B's own command; return its path."""
    config = {
        "method": "grid",
        "command": ["gnbench", "train", "--quiet", "${args}"],
        "parameters": parameters,
    }
    Path("sweep.yaml").write_text(yaml.safe_dump(config | keys))
    done = cli("sweep", "--project=p", "sweep.yaml", module="wandb")
    assert done.returncode == 0, done.stderr
    return f"tester/p/{server.store.all('SELECT name FROM sweeps ORDER BY id')[-1]['name']}"


def sweep_of(path: str) -> str:
    return path.rpartition("/")[2]


def running(server: WandbServer) -> dict[str, Any]:
    """Wait until a run has logged an epoch, and return it."""
    return server.wait_for(
        lambda: next((r for r in server.runs() if r["state"] == "running" and r["history"]), None),
        seconds=150,
    )


def test_two_agents_share_the_smoke_sweep_and_each_run_is_done_once(
    wandb_server: WandbServer, place: Path, started: list[subprocess.Popen[str]]
):
    """W&B: `${args}` spells options with underscores; a grid hands out each point once."""
    sweep_file = ROOT / "sweeps" / "smoke.yaml"
    spec = yaml.safe_load(sweep_file.read_text())
    spec["parameters"] |= {"train_limit": {"value": 100}, "norm": {"values": ["none", "group"]}}
    Path("smoke.yaml").write_text(yaml.safe_dump(spec))
    assert cli("sweep", "smoke.yaml", module="wandb").returncode == 0
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    path = f"tester/groupnorm-bench/{sweep['name']}"
    other = subprocess.Popen(
        [sys.executable, "-m", "wandb", "agent", path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    done = cli("agent", path, "--json")
    assert other.wait(120) == 0
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"W&B sweep: {wandb_server.url}/tester/")
    runs = wandb_server.runs(sweep["name"])
    assert len(runs) == 4
    assert {(r["state"], r["offers"], r["completions"]) for r in runs} == {("finished", 1, 1)}
    points = {(r["config"]["norm"], r["config"]["seed"]) for r in runs}
    assert points == {("none", 0), ("none", 1), ("group", 0), ("group", 1)}
    assert len({run["agent"] for run in runs}) == 2
    for run in runs:
        assert run["config"]["num_groups"] == 8, "a key that the sweep set is never rewritten"
        assert len(run["history"]) == 1
        assert run["summary"]["status"] == "finished"
        assert any(name.startswith("media/") for name in run["files"])
    assert wandb_server.sweep(sweep["name"])["state"] == "FINISHED"
    assert json.loads(done.stdout)["state"] == "finished"


def test_a_run_done_before_is_answered_from_its_folder(wandb_server: WandbServer, place: Path):
    """W&B: random search proposes a point again and again."""
    first = make_sweep(wandb_server, SMALL | {"norm": {"values": ["batch"]}})
    assert cli("agent", first, "--quiet").returncode == 0
    again = make_sweep(
        wandb_server, SMALL | {"norm": {"values": ["batch"]}}, method="random", run_cap=2
    )
    before = find_runs([place / "runs"])[0][0].folder.result_path.stat().st_mtime_ns
    done = cli("agent", again)
    assert done.returncode == 0, done.stderr
    (trained,) = wandb_server.runs(sweep_of(first))
    reused = wandb_server.runs(sweep_of(again))
    assert [run["tags"] for run in reused] == [["batch", "reused"]] * 2
    keys = ("epoch", "train/loss", "val/accuracy")
    for run in reused:
        assert [[row[k] for k in keys] for row in run["history"]] == [
            [row[k] for k in keys] for row in trained["history"]
        ]
        assert run["summary"]["test/accuracy"] == trained["summary"]["test/accuracy"]
    assert find_runs([place / "runs"])[0][0].folder.result_path.stat().st_mtime_ns == before


def test_failed_trials_are_failed_runs_with_tracebacks_and_max_failures_ends_the_agent(
    wandb_server: WandbServer, place: Path
):
    """W&B: an agent ends by itself after three failures in its first minute; ours must not."""
    bad = ["no.such:norm", "no.such:norm2", "no.such:norm3", "no.such:norm4", "none"]
    path = make_sweep(wandb_server, SMALL | {"norm": {"values": bad}})
    done = cli("agent", path, "--max-failures", "5")
    runs = wandb_server.runs(sweep_of(path))
    assert [run["state"] for run in runs] == ["failed"] * 4 + ["finished"], done.stderr
    assert "No module named 'no'" in runs[0]["summary"]["error"]
    assert "Traceback" in runs[0]["summary"]["traceback"]
    path = make_sweep(wandb_server, SMALL | {"norm": {"values": bad}})
    done = cli("agent", path, "--max-failures", "2")
    assert len(wandb_server.runs(sweep_of(path))) == 2
    assert done.returncode == 3
    assert "stopped after 2 failed runs in a row" in done.stderr


def test_a_preempted_run_is_handed_out_again_and_goes_on(
    wandb_server: WandbServer, place: Path, started: list[subprocess.Popen[str]]
):
    """W&B: `mark_preempting` and a non-zero exit put the run back in the sweep's queue."""
    path = make_sweep(wandb_server, LONG | {"norm": {"values": ["batch"]}})
    agent = spawn(started, "agent", path)
    run = running(wandb_server)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(90) == 143
    preempted = wandb_server.run(run["name"])
    assert (preempted["state"], preempted["preempting"]) == ("preempted", 1)
    (found,) = find_runs([place / "runs"])[0]
    assert found.result.status == "interrupted"
    assert found.folder.checkpoint_path.exists()
    epochs = len(preempted["history"])

    spawn(started, "agent", path)
    wandb_server.wait_for(
        lambda: len(wandb_server.run(run["name"])["history"]) > epochs, seconds=120
    )
    again = wandb_server.run(run["name"])
    assert again["offers"] == 2
    assert len(wandb_server.runs(sweep_of(path))) == 1
    assert [row["epoch"] for row in again["history"]] == list(
        range(1, len(again["history"]) + 1)
    ), "continued from its checkpoint: no epoch twice, none left out"


def test_stopping_a_run_on_its_page_checkpoints_it_and_the_agent_goes_on(
    wandb_server: WandbServer, place: Path, started: list[subprocess.Popen[str]]
):
    """W&B: the stop button makes the agent send SIGTERM; a stopped run is not handed out again."""
    path = make_sweep(wandb_server, LONG | {"norm": {"values": ["batch", "none"]}})
    spawn(started, "agent", path)
    run = running(wandb_server)
    wandb_server.store.update("runs", run["id"], stop_requested=1)
    wandb_server.wait_for(lambda: wandb_server.run(run["name"])["state"] == "failed", seconds=90)
    wandb_server.wait_for(lambda: len(wandb_server.runs(sweep_of(path))) == 2, seconds=60)
    stopped = next(r for r in find_runs([place / "runs"])[0] if r.result.config.norm == "batch")
    assert stopped.result.status == "interrupted"
    assert stopped.folder.checkpoint_path.exists()
    assert wandb_server.run(run["name"])["preempting"] == 0


def test_hyperband_of_the_sweep_prunes_a_run(
    wandb_server: WandbServer, place: Path, started: list[subprocess.Popen[str]]
):
    """W&B: hyperband counts logged rows of the metric, and stops runs below the top 1/eta."""
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    path = make_sweep(
        wandb_server,
        LONG | {"norm": {"values": ["batch"]}, "seed": {"values": [0]}},
        metric={"name": "val/loss", "goal": "minimize"},
        early_terminate=early,
    )
    sweep = wandb_server.sweep(sweep_of(path))
    better = wandb_server.store.insert(
        "runs",
        project=sweep["project"],
        name="best",
        sweep=sweep["name"],
        state="finished",
        heartbeat=sweep["created"],
    )
    lines = [json.dumps({"_step": i, "val/loss": 0.0}) for i in range(500)]
    wandb_server.store.put_lines(better, "wandb-history.jsonl", 0, lines)
    spawn(started, "agent", path)
    wandb_server.wait_for(
        lambda: [r for r in wandb_server.runs() if r["summary"].get("status") == "pruned"],
        seconds=150,
    )
    (found,) = find_runs([place / "runs"])[0]
    assert found.result.status == "pruned"
    assert found.result.summary["val/accuracy_best"] > 0
    assert not found.folder.checkpoint_path.exists()


def test_pause_starts_no_run_and_resume_goes_on(
    wandb_server: WandbServer, place: Path, started: list[subprocess.Popen[str]]
):
    """W&B: a paused sweep lets runs end and starts none."""
    path = make_sweep(wandb_server, SMALL | {"norm": {"values": ["batch", "none"]}})
    agent = spawn(started, "agent", path)
    wandb_server.wait_for(lambda: wandb_server.runs(), seconds=60)
    assert cli("sweep", "--pause", path, module="wandb").returncode == 0
    wandb_server.wait_for(lambda: wandb_server.runs()[0]["state"] == "finished", seconds=120)
    beats = wandb_server.operations().count("Heartbeat")
    wandb_server.wait_for(lambda: wandb_server.operations().count("Heartbeat") > beats + 1, 60)
    assert len(wandb_server.runs()) == 1
    assert cli("sweep", "--resume", path, module="wandb").returncode == 0
    assert agent.wait(120) == 0
    assert [run["state"] for run in wandb_server.runs()] == ["finished", "finished"]


def test_cancel_kills_the_run_and_its_last_checkpoint_stays(
    wandb_server: WandbServer, place: Path, started: list[subprocess.Popen[str]]
):
    """W&B: cancelling a sweep has agents SIGKILL their runs."""
    path = make_sweep(wandb_server, LONG | {"norm": {"values": ["batch"]}})
    agent = spawn(started, "agent", path)
    running(wandb_server)
    assert cli("sweep", "--cancel", path, module="wandb").returncode == 0
    agent.wait(90)
    (found,) = find_runs([place / "runs"])[0]
    assert found.result.status == "interrupted"
    assert found.folder.checkpoint_path.exists()
    done = cli("agent", path)
    assert done.returncode == 2
    assert f"sweep {path} is canceled" in done.stderr


@pytest.mark.parametrize("path", ["tester/p/none", "nobody/p/x", "tester/none/x"])
def test_a_sweep_that_is_not_there_is_one_line(wandb_server: WandbServer, place: Path, path: str):
    done = cli("agent", path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1

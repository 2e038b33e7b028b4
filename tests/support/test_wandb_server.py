"""The test server holds up its end of the protocol, with the unmodified wandb client as judge."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.wandb_server import API_KEY, WandbServer
from tests.support.wandb_server.sweeps import next_point, runs_to_stop

TRIAL = """
import sys, wandb
with wandb.init(project="p", config={"lr": 0.1}, settings={"x_disable_stats": True}) as run:
    for epoch in range(3):
        row = {"epoch": epoch, "val/accuracy": epoch * run.config["lr"], "loss": float("nan")}
        run.log(row)
    if "fail" in sys.argv:
        raise RuntimeError("on purpose")
    run.summary["status"] = "finished"
"""


def python(code: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def wandb_cli(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return python("from wandb.cli.cli import cli; cli()", *args, **env)


def test_an_online_run_arrives_whole_and_is_read_back(wandb_server: WandbServer):
    done = python(TRIAL)
    assert done.returncode == 0, done.stderr
    (run,) = wandb_server.runs()
    assert (run["state"], run["exitcode"], run["completions"]) == ("finished", 0, 1)
    assert run["config"] == {"lr": 0.1}
    assert [row["val/accuracy"] for row in run["history"]] == [0.0, 0.1, 0.2]
    assert run["summary"]["status"] == "finished"
    assert "wandb-metadata.json" in run["files"]
    code = f"""
import json, wandb
run = wandb.Api().run("tester/p/{run["name"]}")
rows = [row["epoch"] for row in run.scan_history()]
print(json.dumps([run.state, run.config, rows, run.summary["status"]]))
"""
    read = python(code)
    assert json.loads(read.stdout) == ["finished", {"lr": 0.1}, [0, 1, 2], "finished"]


MEDIA = """
import wandb
with wandb.init(project="p", settings={"x_disable_stats": True}) as run:
    chart = wandb.plot.confusion_matrix(y_true=[0, 1], preds=[1, 1], class_names=["a", "b"])
    run.log({"test/confusion_matrix": chart})
"""


@pytest.mark.slow
def test_a_logged_table_arrives_as_a_file_and_as_an_artifact(wandb_server: WandbServer):
    done = python(MEDIA)
    assert done.returncode == 0, done.stderr
    (run,) = wandb_server.runs()
    assert any(name.startswith("media/table/test/confusion_matrix") for name in run["files"])
    (artifact,) = wandb_server.store.all("SELECT * FROM artifacts")
    assert (artifact["state"], artifact["run"]) == ("COMMITTED", run["name"])


@pytest.mark.slow
def test_a_run_that_raises_is_failed(wandb_server: WandbServer):
    assert python(TRIAL, "fail").returncode == 1
    (run,) = wandb_server.runs()
    assert (run["state"], run["exitcode"]) == ("failed", 1)


@pytest.mark.slow
def test_an_offline_run_arrives_by_wandb_sync(wandb_server: WandbServer, wandb_env: Path):
    assert python(TRIAL, WANDB_MODE="offline").returncode == 0
    assert wandb_server.runs() == []
    (folder,) = (wandb_env / "wandb-dir" / "wandb").glob("offline-run-*")
    assert wandb_cli("sync", str(folder)).returncode == 0
    (run,) = wandb_server.runs()
    assert (run["state"], len(run["history"])) == ("finished", 3)


@pytest.mark.slow
def test_a_wrong_key_is_refused(wandb_server: WandbServer):
    done = python(TRIAL, WANDB_API_KEY="f" * 40)
    assert done.returncode == 1
    assert "not logged in" in done.stderr
    assert wandb_server.runs() == []


@pytest.mark.parametrize(
    ("entity", "message"), [("forbidden", "permission denied"), ("nobody", "not found")]
)
@pytest.mark.slow
def test_an_entity_out_of_reach_is_refused(wandb_server: WandbServer, entity: str, message: str):
    done = python(TRIAL, WANDB_ENTITY=entity)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.slow  # agents look every 5 s
def test_wandb_sweep_and_agent_walk_a_grid_once(wandb_server: WandbServer, wandb_env: Path):
    trial = wandb_env / "trial.py"
    trial.write_text(TRIAL)
    sweep = wandb_env / "sweep.yaml"
    command = [sys.executable, str(trial), "${args}"]
    parameters = {"lr": {"values": [0.1, 0.2]}}
    sweep.write_text(json.dumps({"method": "grid", "command": command, "parameters": parameters}))
    assert wandb_cli("sweep", "--project", "p", str(sweep)).returncode == 0
    name = wandb_server.store.all("SELECT name FROM sweeps")[0]["name"]
    assert wandb_cli("agent", f"tester/p/{name}").returncode == 0
    runs = wandb_server.runs(name)
    assert [run["config"] for run in runs] == [{"lr": 0.1}, {"lr": 0.2}]
    assert {(run["state"], run["offers"], run["completions"]) for run in runs} == {
        ("finished", 1, 1)
    }
    assert wandb_server.sweep(name)["state"] == "FINISHED"


@pytest.mark.slow
def test_an_outage_in_mid_run_loses_nothing(wandb_server: WandbServer):
    fault = wandb_server.fail("status", status=500, matching="file_stream", times=2)
    env = {"WANDB_X_FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "1"}
    assert python(TRIAL, **env).returncode == 0
    assert fault.hits == 2
    assert len(wandb_server.runs()[0]["history"]) == 3


def post(server: WandbServer, query: str) -> tuple[int, dict[str, object]]:
    import base64

    key = base64.b64encode(f"api:{API_KEY}".encode()).decode()
    request = urllib.request.Request(
        f"{server.url}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Authorization": f"Basic {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_what_the_server_does_not_play_is_refused_loudly(wandb_server: WandbServer):
    status, answer = post(wandb_server, "query Launch { launchAgent(id: 1) { id } }")
    assert status == 400
    assert "launchAgent" in json.dumps(answer)
    assert "launchAgent" in wandb_server.refusals[0]
    wandb_server.refusals.clear()


def run_of(values: dict[str, object], state: str = "finished") -> dict[str, object]:
    config = {name: {"value": value} for name, value in values.items()}
    return {"config": json.dumps(config), "state": state}


def test_grid_tells_points_apart_by_recorded_values():
    sweep = {"method": "grid", "parameters": {"norm": {"values": ["batch", "group"]}}}
    assert next_point(sweep, []) == {"norm": "batch"}
    assert next_point(sweep, [run_of({"norm": "batch", "arm": "x"})]) == {"norm": "group"}
    rewritten = [run_of({"norm": "batch"}), run_of({"norm": "Group"})]
    assert next_point(sweep, rewritten) == {"norm": "group"}, "a rewritten key never ends the grid"
    assert next_point(sweep, [run_of({"norm": n}) for n in ("batch", "group")]) is None


def test_a_categorical_may_hold_dictionaries():
    sweep = {"method": "grid", "parameters": {"arm": {"values": [{"norm": "none"}, {"g": 2.0}]}}}
    assert next_point(sweep, [run_of({"arm": {"norm": "none"}})]) == {"arm": {"g": 2.0}}
    assert next_point(sweep, [run_of({"arm": a}) for a in ({"norm": "none"}, {"g": 2})]) is None


def test_run_cap_ends_random_search():
    sweep = {"method": "random", "run_cap": 1, "parameters": {"lr": {"min": 0.1, "max": 0.2}}}
    point = next_point(sweep, [])
    assert point is not None
    assert 0.1 <= point["lr"] <= 0.2
    assert next_point(sweep, [run_of(point)]) is None


def test_hyperband_keeps_the_top_third_at_a_band():
    sweep = {
        "metric": {"name": "acc", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 3},
    }
    runs = [
        (run_of({"a": 1}), [0.1, 0.9, 0.9]),
        (run_of({"a": 2}, "running"), [0.1, 0.2]),
        (run_of({"a": 3}, "running"), [0.3]),
    ]
    assert runs_to_stop(sweep, runs) == [runs[1][0]]

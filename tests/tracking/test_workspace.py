"""`gnbench dashboard`: the workspace as a golden file, and saved to the test server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.tracking.workspace import PanelSubject, build_workspace, spec_of, view_name
from tests.support.run_folders import arms, make_runs
from tests.support.wandb_server import WandbServer

pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic V1 style:DeprecationWarning"  # wandb-workspaces 0.4.13, on import
)

GOLDEN = Path(__file__).parent / "golden" / "workspace.json"


def dashboard(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "groupnorm_bench.cli", "dashboard", *args],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def panels(spec: dict, section: int = 0) -> list[dict]:
    return spec["spec"]["section"]["panelBankConfig"]["sections"][section]["panels"]


def test_the_workspace_is_the_golden_file(wandb_env: Path):
    """A change of it is to be looked at: compare `json.dumps(spec, indent=1)` with the file."""
    spec = spec_of(build_workspace("entity", "project", "norm", "the verdict"))
    assert spec == json.loads(GOLDEN.read_text())


def test_every_panel_that_was_asked_for_is_there():
    spec = spec_of(build_workspace("entity", "project", None, "the verdict"))
    kinds = [panel["viewType"] for panel in panels(spec)]
    assert kinds == [
        "Markdown Panel",
        "Parallel Coordinates Plot",
        "Parameter Importance",
        "Bar Chart",
        "Run History Line Plot",
        "Scatter Plot",
        "Bar Chart",
        "Run Comparer",
    ]
    parallel = panels(spec)[1]["config"]["columns"]
    assert [column["accessor"] for column in parallel] == [
        "config:norm.value",
        "config:num_groups.value",
        "config:batch_size.value",
        "summary:val/accuracy",
    ]
    assert panels(spec)[2]["config"]["targetKey"] == "val/accuracy"
    assert panels(spec)[3]["config"]["groupBy"] == "arm.value"
    assert panels(spec)[3]["config"]["groupArea"] == "stderr"
    assert panels(spec)[5]["config"]["xAxisLogScale"] is True
    assert spec["spec"]["section"]["settings"]["maxRuns"] >= 1000, "W&B's default shows ten runs"
    assert spec["spec"]["section"]["runSets"][0]["grouping"] == [], (
        "importance stays empty on grouped runs"
    )
    keys = [panel["config"]["metrics"][0] for panel in panels(spec, 1)]
    assert "norm/eval_gap" in keys
    assert "norm/norm2/activation_std" in keys


def test_dry_run_needs_no_login_and_holds_the_verdict_of_the_folders(wandb_env: Path):
    runs_dir = wandb_env / "runs"
    make_runs(runs_dir, arms=arms(groups=(8,)), batch_sizes=(8,), seeds=3)
    done = dashboard(str(runs_dir), "--dry-run", "--project", "p")
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)
    text = panels(spec)[0]["config"]["value"]
    assert "| batch" in text
    assert "group-g8" in text


def test_panels_follow_the_metric_the_settings_and_the_layers_of_the_runs():
    row = {"epoch": 2, "train/loss": 0.1, "val/loss": 0.2, "val/accuracy": 0.9}
    layers = {f"norm/stage{i}/activation_std": 1.0 for i in range(19)}
    drawn = PanelSubject.of("test/loss", ("batch_size", "lr"), [row | layers], True)
    assert drawn.tuned_by == "val/loss"
    assert drawn.layers == [f"stage{i}" for i in range(8)]
    spec = spec_of(build_workspace("entity", "project", None, "the verdict", drawn))
    shown = json.dumps(spec)
    assert '"config:lr.value"' in shown
    assert '"summary:test/loss"' in shown
    assert "val/accuracy" not in shown
    assert "norm/stage7/activation_mean" in shown
    assert "norm/norm2" not in shown
    same = PanelSubject.of("test/accuracy", ("batch_size",), [row], True)
    assert (same.tuned_by, same.metric) == ("val/accuracy", "test/accuracy")


@pytest.mark.slow
def test_saving_twice_updates_the_same_view(wandb_server: WandbServer, wandb_env: Path):
    wandb_server.store.project("tester", "p", create=True)
    first = dashboard("--project", "p", "--suite", "norm")
    second = dashboard("--project", "p", "--suite", "norm")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.startswith(f"{wandb_server.url}/tester/p?nw=")
    (view,) = wandb_server.store.all("SELECT * FROM views")
    assert (view["name"], view["type"]) == (view_name("norm"), "project-view")
    assert view["display_name"] == "gnbench / norm"
    assert dashboard("--project", "p").returncode == 0
    assert len(wandb_server.store.all("SELECT * FROM views")) == 2, "another suite, another view"


def test_a_project_that_is_not_there_is_one_line(wandb_server: WandbServer, wandb_env: Path):
    done = dashboard("--project", "none", str(wandb_env))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: W&B has no project tester/none; train something into it first"
    )


@pytest.mark.parametrize("suite", [None, "norm", "a/b"])
def test_a_view_has_a_name_that_wandb_finds_again(suite: str | None):
    assert view_name(suite).startswith("nw-")
    assert view_name(suite).endswith("-v")
    assert "-" not in view_name(suite)[3:-2]


@pytest.mark.parametrize("suite", ["lr+1", "group norm \U0001f4a5", "o'neil", 'say "x"', "\\"])
def test_a_sweep_of_any_name_has_a_view_of_its_own_runs(suite):
    spec = json.dumps(spec_of(build_workspace("us", "norms", suite)), ensure_ascii=False)
    assert json.dumps(suite, ensure_ascii=False) in spec  # the filter asks for the name as it is
    assert view_name(suite) != view_name(suite + "-")


def test_a_name_that_wandbs_client_cannot_look_for_is_refused():
    with pytest.raises(TrackingError, match="suite='a=b': W&B's client cannot look for a name"):
        build_workspace("us", "norms", "a=b")

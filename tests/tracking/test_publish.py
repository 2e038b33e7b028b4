"""`gnbench publish`: the report printed without a login, and saved to the test server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.tracking.publish import build_report, report_name, spec_of
from tests.support.run_folders import arms, make_runs
from tests.support.wandb_server import WandbServer

pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic V1 style:DeprecationWarning"  # wandb-workspaces 0.4.13, on import
)


def publish(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "groupnorm_bench.cli", "publish", *map(str, args)],
        stdin=subprocess.DEVNULL,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def runs(wandb_env: Path) -> Path:
    make_runs(wandb_env / "runs", arms=arms(groups=(8,)), batch_sizes=(2, 32), seeds=8)
    return wandb_env / "runs"


def texts(spec: dict, kind: str) -> list[str]:
    blocks = [block for block in spec["spec"]["blocks"] if block["type"] == kind]
    return [block.get("content") or block["children"][0]["text"] for block in blocks]


def test_dry_run_needs_no_login_and_tells_verdict_panels_and_provenance(runs: Path):
    done = publish(runs, "--dry-run", "--project", "p")
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)
    assert texts(spec, "heading") == [
        "Which normalisation, and is the difference real?",
        "Verdicts",
        "Notes",
        "The runs on W&B",
        "Where this comes from",
    ]
    written = texts(spec, "markdown-block")
    assert "| group-g8" in written[1]
    assert "group-g8 against batch at batch_size=2: significantly better" in written[1]
    assert "by gnbench 0." in written[-1]
    (grid,) = [block for block in spec["spec"]["blocks"] if block["type"] == "panel-grid"]
    kinds = [p["viewType"] for p in grid["metadata"]["panelBankSectionConfig"]["panels"]]
    assert {"Parallel Coordinates Plot", "Parameter Importance"} < set(kinds)
    assert "Run History Line Plot" in kinds


def test_the_same_text_gives_the_same_spec():
    first, second = (spec_of(build_report("", "p", "t", "### A\n\nb", "norm")) for _ in range(2))
    assert first == second
    assert first["name"] == report_name("t") != report_name("u")


@pytest.mark.slow
def test_typed_again_it_updates_the_same_report(wandb_server: WandbServer, runs: Path):
    missing = publish(runs, "--project", "p")
    assert missing.returncode == 2
    assert missing.stderr.splitlines()[-1] == (
        "error: W&B has no project tester/p; upload the runs first: gnbench sync"
    )
    wandb_server.store.project("tester", "p", create=True)
    first = publish(runs, "--project", "p")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(f"{wandb_server.url}/tester/p/reports/Which-normalisation")
    (view,) = wandb_server.store.all("SELECT * FROM views")
    assert (view["type"], view["name"]) == (
        "runs",
        report_name("Which normalisation, and is the difference real?"),
    )
    assert "significantly better" in view["spec"]
    second = publish(runs, "--project", "p", "--suite", "norm")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    (again,) = wandb_server.store.all("SELECT * FROM views")
    assert (again["id"], again["created"]) == (view["id"], view["created"])
    assert again["spec"] != view["spec"]
    other = publish(runs, "--project", "p", "--title", "Another")
    assert other.returncode == 0, other.stderr
    assert len(wandb_server.store.all("SELECT * FROM views")) == 2


@pytest.mark.parametrize("title", ["", "x" * 129])
def test_a_title_that_wandb_refuses_is_one_line(title: str, capsys: pytest.CaptureFixture[str]):
    from groupnorm_bench.cli.app import run

    assert run(["publish", "--title", title]) == ConfigError.exit_code
    assert capsys.readouterr().err.count("\n") == 1

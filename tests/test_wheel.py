"""The built wheel alone, in an empty folder: from nothing to a decided verdict and its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import groupnorm_bench
from tests.support import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it into a folder; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("groupnorm_bench-*.whl")
    target = folder / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def run(installed: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "groupnorm_bench", *args]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280
    )


def test_two_commands_lead_to_a_decided_verdict_and_a_page(installed, tmp_path):
    quick = run(installed, tmp_path, "quick")
    assert quick.returncode == 0, quick.stderr
    assert "\ndecided: " in quick.stdout
    assert (tmp_path / "quick.html").stat().st_size > 100_000
    told = run(installed, tmp_path, "compare", "quick", "--json")
    verdicts = {c["arm"]: c["verdict"] for c in json.loads(told.stdout)["contrasts"]}
    assert verdicts.keys() == {"none", "group-g8"}
    assert {"better", "worse"} & set(verdicts.values())


def test_sweeps_come_with_the_wheel(installed, tmp_path):
    planned = run(installed, tmp_path, "sweep", "norm", "--dry-run", "--json", "--seeds", "1")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["cells"] == 24
    assert not any((installed / "groupnorm_bench" / "shipped" / "sweeps").glob("*.py"))


def test_the_wheel_tells_what_it_is(installed):
    assert (installed / "groupnorm_bench" / "py.typed").exists()
    (told,) = installed.glob("groupnorm_bench-*.dist-info/METADATA")
    text = told.read_text()
    for line in (
        f"Version: {groupnorm_bench.__version__}",
        "Author: the groupnorm-bench authors",
        "Classifier: Typing :: Typed",
        "Project-URL: Paper, https://arxiv.org/abs/1803.08494",
    ):
        assert f"\n{line}\n" in text, line

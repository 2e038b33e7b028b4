"""The built wheel alone, in an empty folder: from nothing to a decided verdict and its page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import groupnorm_bench
from tests.docs import shown
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


def typed(installed: Path, cwd: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Type a line in a shell that has the installed `gnbench` on its PATH."""
    path = os.pathsep.join([str(installed / "bin"), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(installed), "PATH": path}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def shape(line: str) -> str:
    """Return a line of the answer without what another processor may change."""
    line = re.sub(r"[-+]?\d+(\.\d+)?", "0", line)
    line = re.sub(r"\b(better|worse|equal|undecided)\b", "so", line)
    return " ".join(re.sub("─+", "─", line).split())


def test_two_commands_lead_to_a_decided_verdict_and_a_page(installed, tmp_path):
    """The README's first screen: the second of its two commands, and what it shows of it."""
    quick = typed(installed, tmp_path, "gnbench quick")
    assert quick.returncode == 0, quick.stderr
    assert "\ndecided: " in quick.stdout
    ((_, answer),) = [b for b in shown.read(ROOT / "README.md").blocks if b[0] == "text"]
    told = {shape(line) for line in quick.stdout.splitlines()}
    assert {shape(line) for line in answer.splitlines()} <= told, quick.stdout
    assert (tmp_path / "quick.html").stat().st_size > 100_000
    answered = typed(installed, tmp_path, "gnbench compare quick --json")
    verdicts = {c["arm"]: c["verdict"] for c in json.loads(answered.stdout)["contrasts"]}
    assert verdicts.keys() == {"none", "group-g8"}
    assert {"better", "worse"} & set(verdicts.values())
    why = typed(installed, tmp_path, "gnbench compare quick --explain")
    assert (why.returncode, "p Holm" in why.stdout) == (0, True), why.stderr


def test_sweeps_come_with_the_wheel(installed, tmp_path):
    planned = typed(installed, tmp_path, "gnbench sweep norm --dry-run --json --seeds 1")
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

"""Large folders: processor time and memory of what reads them stay within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.offline_runs import configs, record_of, track_one
from tests.support.run_folders import make_runs
from tests.support.wandb_server import WandbServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def measured(*args: object, cwd: Path) -> tuple[subprocess.CompletedProcess[str], float, float]:
    """Run a command; return it, its seconds of processor time and its peak memory in MB."""
    program = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run([sys.executable, '-m', 'groupnorm_bench.cli', *sys.argv[1:]])\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=sys.stderr)\n"
        "sys.exit(code.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        cwd=cwd,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, megabytes = map(float, done.stderr.splitlines()[-1].split())
    return done, seconds, megabytes


def test_20000_folders(tmp_path):
    """4 arms, 5,000 seeds: made once for all three commands."""
    arms = ({"norm": "none"}, {"norm": "batch"}, {"norm": "layer"}, {"norm": "group"})
    make_runs(tmp_path / "runs", arms=arms, seeds=5_000, epochs=1, hits=False)
    for command, seconds, megabytes in (
        (("status", "runs", "--json"), 60, 1_000),
        (("compare", "runs", "--json"), 120, 1_500),
        (("report", "runs", "--out", "report.html"), 240, 3_000),
    ):
        done, used, peak = measured(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        assert used < seconds, command
        assert peak < megabytes, command
        if command[0] == "status":
            assert json.loads(done.stdout)["runs"] == 20_000


@pytest.mark.parametrize("command", [("compare", "runs", "--json"), ("report", "runs")])
def test_200_arms(tmp_path, command):
    """100 learning rates for each of two norms: 200 cells, three seeds each."""
    lrs = [1e-4 * 1.05**step for step in range(100)]
    arms = ({"norm": "batch"}, {"norm": "group"})
    make_runs(tmp_path / "runs", arms=arms, lrs=lrs, seeds=3, epochs=1)
    done, used, peak = measured(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert used < 120
    assert peak < 2_000


@pytest.mark.parametrize(
    "command", [("compare", "runs", "--json"), ("status", "runs"), ("report", "runs")]
)
def test_histories_of_3000_epochs(tmp_path, command):
    arms = ({"norm": "batch"}, {"norm": "group"})
    make_runs(tmp_path / "runs", arms=arms, seeds=6, epochs=3_000)
    done, used, peak = measured(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert used < 60
    assert peak < 2_000
    page = tmp_path / "report.html"
    assert not page.exists() or page.stat().st_size < 30 * 2**20


def test_200_runs_are_uploaded_once_each_and_make_one_sweep(
    wandb_env: Path, wandb_server: WandbServer
):
    runs_dir = wandb_env / "runs"
    folders = [track_one(runs_dir, config) for config in configs(200)]
    record_of([folder.path.name for folder in folders]).write(runs_dir)
    done, _, peak = measured("sync", runs_dir, "--json", cwd=wandb_env)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout)
    assert len(outcome["uploaded"]) == 200
    assert outcome["failed"] == {}
    (sweep,) = wandb_server.store.all("SELECT * FROM sweeps")
    runs = wandb_server.runs(sweep["name"])
    assert len(runs) == len(wandb_server.runs()) == 200
    assert {(run["state"], run["completions"], len(run["history"])) for run in runs} == {
        ("finished", 1, 2)
    }
    assert peak < 2_000

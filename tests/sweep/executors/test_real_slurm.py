"""A real Slurm of one node: sweeps on it, jobs that end early, commands that are closed.

Skipped where `slurm-wlm` and `munge` are not installed; `.ci/run` installs them.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from groupnorm_bench.runs import find_runs
from groupnorm_bench.sweep.executors import SlurmOptions
from groupnorm_bench.sweep.executors.protocol import Started, Stopped
from groupnorm_bench.sweep.executors.slurm import queue
from groupnorm_bench.sweep.executors.slurm.batch import HOME
from groupnorm_bench.sweep.scheduler import Retried
from tests.support.command_line import COMMAND, gnbench
from tests.support.slurm import real
from tests.support.sweeping import begun, seeds, sweep

pytestmark = pytest.mark.slow

MINE = """
import torch

def make(num_channels, num_groups):
    return torch.nn.GroupNorm(2, num_channels)
"""
SWEEP = """
method: grid
parameters:
  norm: {values: [none, batch, "mine:make"]}
  seed: {values: [0, 1, 2, 3]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 2}
"""
LONG = """
method: grid
parameters:
  norm: {value: group}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 640}
  epochs: {value: 40}
"""


def on_slurm(folder: Path, *options: str) -> subprocess.Popen[str]:
    typed = ["sweep", "s.yaml", "--executor", "slurm", *options]
    return subprocess.Popen(
        [*COMMAND, *typed],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses(runs: Path) -> dict[str, list[float]]:
    """Return what depends on every step of each run; its hits are compared bit for bit."""
    found, _ = find_runs([runs])
    assert {run.result.status for run in found} == {"finished"}
    return {
        run.result.config.name: [
            *(row[name] for row in run.result.history for name in ("train/loss", "val/loss")),
            run.result.summary["test/loss"],
            run.folder.hits_path.read_bytes(),
        ]
        for run in found
    }


def until(condition, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_sweep_that_is_killed_and_typed_again_equals_the_local_one(tmp_path, slurm_here):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "s.yaml").write_text(SWEEP)
        (folder / "mine.py").write_text(MINE)
    options = ("--jobs", "3", "--slurm", "time=10,mem=0", "--wandb", "disabled")
    with on_slurm(there, *options) as first:
        until(lambda: list((there / "runs").glob("*/test_hits.npy")))
        first.send_signal(signal.SIGKILL)
    again = on_slurm(there, *options)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert "of an earlier call goes on" in said
    assert "Invalid job array specification" not in said  # that was the first one's to hear
    assert not (there / "runs" / HOME).exists()
    local = gnbench("sweep", "s.yaml", "--wandb", "disabled", "--workers", "2", cwd=here)
    assert local.returncode == 0, local.stderr
    assert len(losses(here / "runs")) == 12
    assert losses(there / "runs") == losses(here / "runs")


def test_a_job_that_is_cancelled_in_mid_run_goes_on_in_the_next(tmp_path, slurm_here):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "s.yaml").write_text(LONG)
    with on_slurm(there, "--jobs", "1", "--wandb", "offline") as process:
        until(lambda: list((there / "runs").glob("*/checkpoint.pt")))
        (job,) = {line.split()[0].partition("_")[0] for line in real.queue().splitlines()}
        subprocess.run(["scancel", job], check=True)
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert said.count("Slurm job ") == 2
    assert list((there / "runs").glob("*/wandb/offline-run-*"))
    local = gnbench("sweep", "s.yaml", "--wandb", "disabled", cwd=here)
    assert local.returncode == 0, local.stderr
    assert losses(there / "runs") == losses(here / "runs")


def test_a_time_limit_has_runs_checkpoint_and_go_on_in_another_job(
    tmp_path, slurm_here, monkeypatch
):
    monkeypatch.setattr(queue, "SIGNAL_SECONDS", 15)  # Slurm looks at limits twice a minute
    limit = SlurmOptions(sbatch=("--time=1",))
    outcome, events, _ = sweep(
        seeds(1), tmp_path, "very_slow_sleeper", engine="slurm", slots=1, slurm=limit
    )
    assert outcome.count("finished") == 1
    assert [type(e) for e in events if isinstance(e, Started | Stopped)][:3] == [
        *(Started, Stopped, Started),
    ]
    assert not any(isinstance(event, Retried) for event in events)
    assert begun(tmp_path)[seeds(1)[0].name] >= 2


def test_what_slurm_itself_refuses_is_one_line_in_its_own_words(tmp_path, slurm_here):
    (tmp_path / "s.yaml").write_text(SWEEP.replace('"mine:make"', "group"))
    typed = ["sweep", "s.yaml", "--executor", "slurm", "--jobs", "2", "--wandb", "disabled"]
    for options, words in [
        ("partition=gpy", "invalid partition specified: gpy; Batch job submission failed"),
        ("partitoin=all", "unrecognized option '--partitoin=all'"),
        ("gres=gpu:1", "Invalid generic resource (gres) specification"),
    ]:
        done = gnbench(*typed, "--quiet", "--slurm", options, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: sbatch: {words}")
        assert done.stderr.count("\n") == 1


def test_no_daemon_outlives_its_site(tmp_path):
    if not real.is_installed():
        pytest.skip("needs slurm-wlm and munge, and root")
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with real.real_slurm(folder):
            pids = [int(path.read_text()) for path in folder.glob("*.pid")]
            assert len(pids) == 3
            assert all(map(real.is_alive, pids))
        assert not any(map(real.is_alive, pids))
    finally:
        shutil.rmtree(folder)

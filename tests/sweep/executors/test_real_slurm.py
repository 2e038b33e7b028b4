"""A real Slurm of one node: limits of time, refusals, and that nothing of it is left.

Skipped where `slurm-wlm` and `munge` are not installed; `.ci/run` installs them.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from groupnorm_bench.sweep.executors import SlurmOptions
from groupnorm_bench.sweep.executors.protocol import Started, Stopped
from groupnorm_bench.sweep.executors.slurm import queue
from groupnorm_bench.sweep.scheduler import Retried
from tests.support.command_line import gnbench
from tests.support.slurm import real
from tests.support.sweeping import begun, seeds, sweep

pytestmark = pytest.mark.slow

SWEEP = """
method: grid
parameters:
  norm: {values: [none, batch, group]}
  seed: {values: [0, 1, 2, 3]}
  batch_size: {value: 32}
  dataset: {value: mnist-5k}
  train_limit: {value: 64}
  max_steps: {value: 2}
"""


@pytest.fixture
def site(slurm_site, monkeypatch):
    """Name the site to Slurm's commands; nothing may be in its queue in the end."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_site))
    yield
    deadline = time.monotonic() + 30
    while (left := real.queue()) and time.monotonic() < deadline:
        time.sleep(0.2)
    subprocess.run(["scancel", "--user=root"], check=True)  # for the tests after this one
    assert left == ""


def test_a_time_limit_has_runs_checkpoint_and_go_on_in_another_job(tmp_path, site, monkeypatch):
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


def test_what_slurm_itself_refuses_is_one_line_in_its_own_words(tmp_path, site):
    (tmp_path / "s.yaml").write_text(SWEEP)
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

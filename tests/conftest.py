"""Isolation that every test has, and fixtures that several test modules share.

A test finds no login, no cache and no data of the machine it runs on; the network is loopback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.slurm import slurm_stand_ins
from tests.support.slurm.real import slurm_site
from tests.support.wandb_server.fixture import wandb_env, wandb_server

__all__ = ["slurm_site", "slurm_stand_ins", "wandb_env", "wandb_server"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # from a script's background: we send it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; children inherit it
hypothesis.settings.register_profile(  # the same examples everywhere; a busy machine is no failure
    "gnbench", deadline=None, derandomize=True, database=None, max_examples=50
)
hypothesis.settings.load_profile("gnbench")
_FULL_DATA_DIR = os.environ.get("GNBENCH_DATA_DIR")


@pytest.fixture(autouse=True)
def isolated(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Hide the machine: home, caches, W&B's settings, data sets; leave no login to the next test.

    `--dataset auto` is told that a fetch has just failed, so that no test tries the network.
    """
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("WANDB_", "GNBENCH_")):
            monkeypatch.delenv(name)
    data_dir = home / "data"
    data_dir.mkdir()
    (data_dir / ".fetch-mnist.failed").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    # Compiled once for all tests, not once for each hidden home: it takes 9 s.
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(request.config.cache.mkdir("loops")))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("GNBENCH_DATA_DIR", str(data_dir))
    yield
    client = sys.modules.get("wandb.sdk.wandb_setup")  # keeps the first key it saw in the process
    if client is not None and client._singleton and client._singleton.settings.api_key:
        client.teardown()


@pytest.fixture
def full_data_dir() -> Path:
    """Return the folder of the full data sets, or skip."""
    if _FULL_DATA_DIR is None:
        pytest.skip("GNBENCH_DATA_DIR does not name a folder with the full MNIST")
    return Path(_FULL_DATA_DIR)

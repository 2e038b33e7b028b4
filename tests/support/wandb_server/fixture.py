"""The pytest fixtures `wandb_env` (isolation) and `wandb_server` (isolation and a server)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wandb_server.server import API_KEY, WandbServer


@pytest.fixture
def wandb_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point all that wandb reads and writes into `tmp_path`; no key, no server, no login."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    places = {
        "HOME": home,
        "NETRC": home / "netrc",
        "WANDB_DIR": tmp_path / "wandb-dir",
        "WANDB_CONFIG_DIR": tmp_path / "wandb-config",
        "WANDB_CACHE_DIR": tmp_path / "wandb-cache",
        "WANDB_DATA_DIR": tmp_path / "wandb-data",
    }
    for name, path in places.items():
        monkeypatch.setenv(name, str(path))
        if name.startswith("WANDB_"):
            path.mkdir()
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    _forget_settings()
    yield tmp_path
    _forget_settings()


def _forget_settings() -> None:
    """Have wandb read the environment again: it keeps the first address it saw in the process."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture
def wandb_server(
    wandb_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WandbServer]:
    """Run a test server and point wandb at it, logged in; a refused request fails the test."""
    server = WandbServer(tmp_path / "server.sqlite").start()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")
    _forget_settings()
    try:
        yield server
    finally:
        _forget_settings()
        server.close()
    assert not server.refusals, f"the test server does not play: {server.refusals}"

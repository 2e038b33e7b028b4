"""What tests of engines share."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.slurm import real


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for the tests of a module: each engine in it joins, and leaves it running."""
    from groupnorm_bench.sweep.executors.ray.cluster import connected

    with connected(None, []) as ray:
        yield ray


@pytest.fixture
def slurm_here(slurm_site, monkeypatch):
    """Name a real Slurm to its commands; nothing may be in its queue in the end."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_site))
    yield
    left = real.left_in_queue()
    subprocess.run(["scancel", "--user=root"], check=True)  # for the tests after this one
    assert left == ""

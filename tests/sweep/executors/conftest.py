"""What tests of engines share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for the tests of a module: each engine in it joins, and leaves it running."""
    from groupnorm_bench.sweep.executors.ray.cluster import connected

    with connected(None, []) as ray:
        yield ray

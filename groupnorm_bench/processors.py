"""The processors that are ours to use, and how threads wait on them beside others."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""For GNU's OpenMP, and for LLVM's and Intel's."""


def wait_without_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep where they wait; to be called before torch is loaded.

    By themselves they spin at the end of every operation until all have come. Beside one busy
    process a core, a training falls to a quarter of its speed that way, and holds up the others
    (docs/performance.md). What the user has set stays; child processes inherit it.
    """
    for name, value in _PASSIVE.items():
        environment.setdefault(name, value)


def available() -> int:
    """Return how many processors this process may use: a mask and a cgroup's quota count."""
    import joblib  # type: ignore[import-untyped]

    return joblib.cpu_count()


def give_torch_threads(threads: int | None) -> None:
    """Have torch compute on this many threads.

    Args:
        threads: how many; None for torch's own choice (or that of `OMP_NUM_THREADS`), but no more
            than are `available`: torch counts what is there, not what a CPU quota leaves of it.
    """
    import torch

    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = min(torch.get_num_threads(), available())
    if threads is not None:
        torch.set_num_threads(threads)

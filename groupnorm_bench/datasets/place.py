"""Where data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""MNIST's four, and those of the data sets in its format."""


def default_data_dir() -> Path:
    """Return the folder of data sets: one per user, so that nothing is fetched twice.

    `GNBENCH_DATA_DIR` wins, also where no command line reads it.
    """
    if named := os.environ.get("GNBENCH_DATA_DIR"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "groupnorm-bench" / "data"

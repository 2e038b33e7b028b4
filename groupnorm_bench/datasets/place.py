"""Where data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path

from groupnorm_bench.errors import DataError

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


def require_folder(data_dir: Path | None) -> Path | None:
    """Return the folder of data sets, which need not be there yet; None where none is named.

    Raises:
        DataError: it is there, and no folder.
    """
    if data_dir is not None and data_dir.exists() and not data_dir.is_dir():
        raise DataError(f"data_dir={str(data_dir)!r} is not a folder; give another --data-dir")
    return data_dir

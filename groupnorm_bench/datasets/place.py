"""Where data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """Return the folder of data sets: one per user, so that nothing is fetched twice.

    `GNBENCH_DATA_DIR` wins, also where no command line reads it.
    """
    if named := os.environ.get("GNBENCH_DATA_DIR"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "groupnorm-bench" / "data"

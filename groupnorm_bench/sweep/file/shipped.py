"""The sweep files that come with the package, by name: `gnbench sweep norm` from any folder."""

from __future__ import annotations

from pathlib import Path

import groupnorm_bench
from groupnorm_bench.errors import SweepError, nearest

_PACKAGE = Path(groupnorm_bench.__file__).parent


def shipped_folder(name: str) -> Path:
    """Return where `sweeps` or `configs` lie: in an installed package, or in a checkout of it."""
    installed = _PACKAGE / "shipped" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def shipped_sweeps() -> dict[str, Path]:
    """Return the sweep files that come with the package, by name."""
    files = sorted(shipped_folder("sweeps").glob("*.yaml"))
    return {path.stem: path for path in files if "." not in path.stem}


def find_sweep(name: str | Path) -> Path:
    """Return the sweep file that a person names: a path where there is one, else one of ours.

    Raises:
        SweepError: it looks like a name, and none of ours has it.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path  # whether it can be read, `read_spec` says
    ours = shipped_sweeps()
    if path.name not in ours:
        raise SweepError(
            f"{path} is no file here, and no sweep of that name comes with gnbench"
            f"{nearest(path.name, ours)}"
        )
    return ours[path.name]

"""groupnorm-bench: which normalisation should I use, and is the difference real?"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing itself is not loaded: until main() is there, Ctrl-C is a traceback
if TYPE_CHECKING:
    from typing import Any

    from groupnorm_bench import compare, report
    from groupnorm_bench.bench.layers import bench_layers
    from groupnorm_bench.compare.load import load_runs
    from groupnorm_bench.models.swap import swap_norms
    from groupnorm_bench.norms import NORMS, make_norm
    from groupnorm_bench.settings.config import TrainConfig
    from groupnorm_bench.sweep.session import sweep
    from groupnorm_bench.training.build import build_model
    from groupnorm_bench.training.loop import train

__version__ = "0.2.0"
__all__ = [
    "NORMS",
    "TrainConfig",
    "bench_layers",
    "build_model",
    "compare",
    "load_runs",
    "make_norm",
    "report",
    "swap_norms",
    "sweep",
    "train",
]

_HOMES = {
    "NORMS": "norms",
    "TrainConfig": "settings.config",
    "bench_layers": "bench.layers",
    "load_runs": "compare.load",
    "build_model": "training.build",
    "make_norm": "norms",
    "swap_norms": "models.swap",
    "train": "training.loop",
}


_CALLABLE_PACKAGES = ("compare", "report", "sweep")
"""Sub-packages that are functions as well: see `callable_package`."""


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `import groupnorm_bench` costs nothing."""
    if name in _CALLABLE_PACKAGES:
        return importlib.import_module(f"groupnorm_bench.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'groupnorm_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"groupnorm_bench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

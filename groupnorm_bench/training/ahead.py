"""What takes long and can begin before torch is loaded. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig


def compile_ahead(runs: Iterable[TrainConfig], say: Callable[[str], None]) -> None:
    """Start compiling what these runs take, where that is not there yet, and say so."""
    runs = [run for run in runs if not isinstance(run, OwnConfig)]
    try:
        from groupnorm_bench import fast
    except ImportError:  # without it everything works, slower
        return
    fast.compile_ahead(runs, say)

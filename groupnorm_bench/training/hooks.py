"""What a caller hears of a training in progress, and what it may say to it. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from groupnorm_bench.metrics import EpochRow


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callables that go unchanged from whoever asked for a run down to its training loop."""

    say: Callable[[str], None] = lambda line: None
    """Called with lines for the user."""
    note: Callable[[str], None] = lambda line: None
    """Called with what was decided for this machine: compilation, how bf16 is done."""
    on_start: Callable[[int], None] = lambda total_steps: None
    """Called with the number of steps once nothing stands in the training's way."""
    on_step: Callable[[int, float, float], None] = lambda step, loss, accuracy: None
    """Called with the step and the epoch's running mean loss and accuracy so far."""
    on_epoch: Callable[[EpochRow], None] = lambda row: None
    """Called with each new row; those of an earlier, interrupted process are not repeated."""
    should_stop: Callable[[], bool] = lambda: False
    should_prune: Callable[[EpochRow], bool] = lambda row: False
    """Asked after each epoch but the last, of whose row `on_epoch` has heard."""
    save: Callable[[dict[str, Any], list[EpochRow]], None] = lambda state, history: None
    """Called with a checkpoint and the rows so far, after each epoch and when asked to stop."""

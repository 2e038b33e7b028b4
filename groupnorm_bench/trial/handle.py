"""What a training function of the user's own is given: its run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import TrialError
from groupnorm_bench.metrics import METRICS, EpochRow
from groupnorm_bench.runs import WHOLE_NUMBERS, RunFolder
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.wording import printable

if TYPE_CHECKING:
    import torch

    from groupnorm_bench.models.blocks import NormLayer

MAX_ROWS = 10_000
_MAX_NAME = 100
_RESERVED = ("status", "error")


class Settings(Mapping[str, Any]):
    """A function's settings by name, which remember what was read of them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self.unread = set(values)

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            known = ", ".join(self._values) or "none"
            raise KeyError(f"this run has no setting {name!r}; it has {known}")
        self.unread.discard(name)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class TrialRun:
    """One run, as the function that trains it sees it.

    Args:
        config: its settings.
        folder: its run folder.
        device: where to train.
        norm_layer: the arm's factory of norms.
        rows: those of an earlier process that kept a checkpoint.
        on_row: called with each new row; returns whether hyperband stops the run there.
        on_save: called before the function keeps a checkpoint.
        should_stop: whether the run was asked to end.
    """

    def __init__(
        self,
        config: OwnConfig,
        folder: RunFolder,
        device: torch.device,
        norm_layer: NormLayer,
        *,
        rows: list[EpochRow],
        on_row: Callable[[EpochRow], bool],
        on_save: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.norm_layer = norm_layer
        """`norm_layer(num_channels)` is the arm's norm; `.activation()` the ReLU behind it, for
        norms that bring their own; `.conv(...)` the convolution before it."""
        self.settings = Settings(dict(config.own))
        """What the sweep file or `--set` gives the function, by name."""
        self.norm: str = config.norm
        self.seed: int = config.seed
        self.device = device
        self.folder: Path = folder.path
        """The run folder: what is left in it stays."""
        self.rows = rows
        self.was_told: str | None = None
        """Why the function was told to stop, `stopped` or `pruned`, once it has asked."""
        self._checkpoint_dir = folder.own_checkpoint_dir
        self._on_row, self._on_save, self._asked_to_stop = on_row, on_save, should_stop
        self._is_pruned = False

    @property
    def checkpoint_dir(self) -> Path:
        """A folder that is there until the run has its result: what lies in it when the function
        is called is of the same run, cut off before."""
        if self.rows:
            self._on_save()
        self._checkpoint_dir.mkdir(exist_ok=True)
        return self._checkpoint_dir

    def log(self, row: Mapping[str, Any]) -> None:
        """Keep one epoch's numbers, as `run.log({"val/dice": 0.71})`; hyperband judges by them.

        Args:
            row: names to numbers. `epoch` counts from 1 where it is left out; a row of an epoch
                that is there already takes the place of it and of all that follow.

        Raises:
            TrialError: a name or a value is none.
        """
        if not isinstance(row, Mapping) or not row:
            raise TrialError(f"run.log({shown(row)}) is no row; as run.log({{'val/dice': 0.71}})")
        kept = {name: number(name, value) for name, value in row.items()}
        for name in WHOLE_NUMBERS:
            if name in kept:
                kept[name] = _whole(name, kept[name])
        epoch = kept.get("epoch", (self.rows[-1]["epoch"] if self.rows else 0) + 1)
        if epoch < 1:
            raise TrialError(f"run.log: epoch={epoch:g} is no whole number from 1 on")
        if len(self.rows) >= MAX_ROWS:
            raise TrialError(f"run.log: {MAX_ROWS:,} rows are the most; log once an epoch")
        self.rows[:] = [one for one in self.rows if one["epoch"] < epoch]
        self.rows.append({**kept, "epoch": epoch})
        self._is_pruned = self._on_row(self.rows[-1]) or self._is_pruned

    def should_stop(self) -> bool:
        """Return whether to save what is needed to go on, and return: anything will do."""
        if self._is_pruned:
            self.was_told = "pruned"
        elif self._asked_to_stop():
            self.was_told = "stopped"
        return self.was_told is not None


def number(name: Any, value: Any) -> float:
    """Return a metric's value as a float, or an int where it is one; NaN and infinity pass.

    Raises:
        TrialError: the name or the value is none, or out of the metric's bounds.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise TrialError(f"{shown(name)} is no name of a metric; as 'dice'")
    if name.startswith("_") or name in _RESERVED:
        raise TrialError(f"metric {name!r} is a word of others; call it otherwise")
    if not isinstance(value, int | float) and getattr(value, "size", None) is not None:
        value = value.item() if _is_single(value) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TrialError(f"{name}={shown(value)} is not a number")
    if isinstance(value, int) and abs(value) >= 2**53:
        raise TrialError(f"{name}={shown(value)} is too large")
    spec = METRICS.get(name)
    if spec is not None and spec.bounds is not None and math.isfinite(value):
        low, high = spec.bounds
        if not low <= value <= high:
            raise TrialError(f"{name}={value:g} is not between {low:g} and {high:g}: a fraction")
    return value


def _whole(name: str, value: float) -> int:
    """Return a count as one, as `result.json` keeps it: 3.0 is 3."""
    if not (math.isfinite(value) and value == int(value) and 0 <= value < 2**53):
        least = 1 if name == "epoch" else 0
        raise TrialError(f"run.log: {name}={value:g} is no whole number from {least} on")
    return int(value)


def _is_single(value: Any) -> bool:
    """Return whether an array, a tensor or a number of numpy's holds one number."""
    size = value.numel() if hasattr(value, "numel") else value.size
    return size == 1 and hasattr(value, "item")


def shown(value: Any) -> str:
    """Return a value of the function's as part of a line."""
    try:
        return printable(repr(value), 60)
    except Exception:  # code of others may raise anything
        return f"a {type(value).__name__}"

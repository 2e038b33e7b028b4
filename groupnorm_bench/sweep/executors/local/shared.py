"""The trial of a local worker: data mapped from one file by all of them, W&B asked once."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import groupnorm_bench.training.loop  # noqa: F401  # torch, imported while the worker starts
from groupnorm_bench.datasets import dataset_spec
from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.naming import is_own_data, short_name
from groupnorm_bench.datasets.own_data import adopt, facts_of
from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.errors import CheckpointError
from groupnorm_bench.runs import RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.own_config import OwnConfig
from groupnorm_bench.tracking.login import resolve_mode
from groupnorm_bench.tracking.options import Mode, TrackingOptions
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.trial import run_trial

_PARTS = ("train", "val", "test")


def run_shared_trial(
    config: TrainConfig,
    *,
    runs_dir: Path,
    data_dir: Path,
    shared_dir: Path,
    tracking: TrackingOptions,
    hooks: Hooks,
) -> RunResult:
    """Run one trial as `run_trial` does, on the workers' common copy of the data.

    A checkpoint that cannot be continued is set aside and the run starts again: nobody is there
    to be asked.
    """
    dataset = None
    if not isinstance(config, OwnConfig):
        dataset = shared_dataset(config.dataset, data_dir, shared_dir)
    mode = _mode(tracking.mode, hooks.say)
    arguments: dict[str, Any] = {
        "runs_dir": runs_dir,
        "dataset": dataset,
        "tracking": dataclasses.replace(tracking, mode=mode),
        "hooks": hooks,
    }
    try:
        return run_trial(config, **arguments)
    except CheckpointError as error:
        hooks.say(f"{str(error).split(';')[0]}; set aside, training again")
        return run_trial(config, **arguments, force=True)


_modes: dict[Mode, Mode] = {}


def _mode(asked: Mode, say: Callable[[str], None]) -> Mode:
    """Resolve W&B's mode once a process: asking its server may take seconds."""
    if asked not in _modes:
        _modes[asked] = resolve_mode(asked, say)
    return _modes[asked]


@functools.cache
def shared_dataset(name: str, data_dir: Path, shared_dir: Path) -> Dataset:
    """Return a data set whose tensors are mapped from one file under `shared_dir`.

    The first process to ask loads it and writes the file; all map the same pages of memory.

    Raises:
        DataError: it cannot be had.
    """
    import torch

    path = shared_dir / data_file(name)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):  # no locks here: each loads it
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(f".part-{os.getpid()}")
            torch.save(_content(name, data_dir), unfinished)
            os.replace(unfinished, path)
    finally:
        os.close(lock)
    stored = torch.load(path, mmap=True, weights_only=True)
    if is_own_data(name):
        adopt(name, stored["facts"])
    parts = {part: Split(*stored[part]) for part in _PARTS}
    return Dataset(name=name, spec=dataset_spec(name), **parts)


def data_file(name: str) -> str:
    """Return what the file of a data set is called, under `shared_dir`."""
    return f"{short_name(name) if is_own_data(name) else name}.pt"


def pack_data(name: str, data_dir: Path) -> bytes:
    """Return the content of that file; of one's own data, what is known of them as well.

    Raises:
        DataError: it cannot be had.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(_content(name, data_dir), buffer)
    return buffer.getvalue()


def _content(name: str, data_dir: Path) -> dict[str, Any]:
    dataset = load_dataset(name, data_dir)
    splits = {part: getattr(dataset, part) for part in _PARTS}
    content: dict[str, Any] = {part: (s.images, s.labels) for part, s in splits.items()}
    if is_own_data(name):
        content["facts"] = facts_of(name)
    return content

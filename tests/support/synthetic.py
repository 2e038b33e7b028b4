"""Run folders as training writes them, with numbers that a test chose: no training needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.runs import RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig

ENVIRONMENT = {
    "version": "0.1.0",
    "commit": "0123456789abcdef",
    "torch": "2.15.0",
    "device": "cpu",
    "threads": 1,
}


def config_of(arm: str = "batch", **settings: Any) -> TrainConfig:
    """Return a config from an arm's name: `batch`, `group-g8`."""
    norm, _, groups = arm.rpartition("-g")
    if norm:
        settings |= {"norm": norm, "num_groups": int(groups)}
    else:
        settings["norm"] = arm
    return TrainConfig(**{"dataset": "mnist-5k", "epochs": 2, **settings})


def result_of(
    arm: str = "batch", accuracy: float | None = 0.97, *, status: Any = "finished", **settings: Any
) -> RunResult:
    """Return a run of two epochs that ended with a test accuracy (a fraction)."""
    config = config_of(arm, **settings)
    last = accuracy if accuracy is not None else 0.1
    history = [
        {"epoch": epoch, "step": 10 * epoch, "val/accuracy": last - 0.01 * (config.epochs - epoch)}
        for epoch in range(1, config.epochs + 1)
    ]
    summary: dict[str, Any] = {"status": status}
    if status == "finished":
        summary |= {
            "test/accuracy": accuracy,
            "val/accuracy": last,
            "test/loss": 1.0 - last,
            "train_seconds": 4.0,
            "images_per_second": 2000.0,
            "peak_memory_mb": 100.0,
        }
    return RunResult(
        config=config,
        status=status,
        history=history,
        summary=summary,
        environment=dict(ENVIRONMENT),
    )


def row_of(arm: str = "batch", accuracy: float | None = 0.97, **settings: Any) -> RunRow:
    result = result_of(arm, accuracy, **settings)
    return RunRow(result=result, source=f"runs/{result.config.name}")


def table_of(accuracies: dict[str, Sequence[float]], **settings: Any) -> RunTable:
    """Return finished runs: each arm's accuracies by seed 0, 1, 2, ..."""
    return RunTable(
        rows=tuple(
            row_of(arm, value, seed=seed, **settings)
            for arm, values in accuracies.items()
            for seed, value in enumerate(values)
        )
    )


def write_run(
    runs_dir: Path, result: RunResult, hits: np.ndarray[Any, Any] | None = None
) -> RunFolder:
    """Write a result as training does, into the folder that its name gives it."""
    folder = RunFolder.of(runs_dir, result.config)
    with folder.claim():
        if hits is not None:
            folder.write_hits(hits)
        folder.write(result)
    return folder


def hits_of(accuracy: float, num_images: int = 1000, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return booleans [num_images], round(accuracy * num_images) of them true."""
    hits = np.zeros(num_images, dtype=bool)
    hits[: round(accuracy * num_images)] = True
    return np.random.default_rng(seed).permutation(hits)

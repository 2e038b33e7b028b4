"""Run folders as training writes them, made without training.

`result_of`, `row_of` and `table_of` take the numbers that a test chose. `make_run` and `make_runs`
draw them from a model with a known truth: a base, an arm's effect at a batch size (BatchNorm
suffers at small batches), an effect of the seed that all arms share (so seeds pair), and noise.
Their generator is seeded by the run's name: the same call writes the same run.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from groupnorm_bench.compare.rows import RunRow, RunTable
from groupnorm_bench.datasets.load import read_test
from groupnorm_bench.runs import RunFolder, RunResult, Status
from groupnorm_bench.settings.config import TrainConfig

TEST_IMAGES = {"mnist-5k": 1_000, "mnist": 10_000, "fashion-mnist": 10_000, "kmnist": 10_000}
LAYERS = ("norm1", "norm2")
ENVIRONMENT: dict[str, Any] = {
    "version": "0.1.0",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "python": "3.11.7",
    "torch": "2.13.0",
    "platform": "Linux-6.1-x86_64",
    "host": "laptop",
    "device": "cpu",
    "device_name": "Some CPU @ 2.00GHz",
    "threads": 1,
    "command": ["gnbench", "sweep", "sweeps/norm.yaml"],
    "started": "2026-11-22T10:00:00+00:00",
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
    runs_dir: Path,
    result: RunResult,
    hits: np.ndarray[Any, Any] | None = None,
    read_as: np.ndarray[Any, Any] | None = None,
) -> RunFolder:
    """Write a result as training does, into the folder that its name gives it."""
    folder = RunFolder.of(runs_dir, result.config)
    with folder.claim():
        if hits is not None:
            folder.write_hits(hits, read_as)
        folder.write(result)
    return folder


def hits_of(accuracy: float, num_images: int = 1000, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return booleans [num_images], round(accuracy * num_images) of them true."""
    hits = np.zeros(num_images, dtype=bool)
    hits[: round(accuracy * num_images)] = True
    return np.random.default_rng(seed).permutation(hits)


def arms(*, groups: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> list[dict[str, Any]]:
    """Return the settings of none, batch, layer, instance and group with each of `groups`."""
    plain = [{"norm": norm} for norm in ("none", "batch", "layer", "instance")]
    return plain + [{"norm": "group", "num_groups": count} for count in groups]


def true_accuracy(config: TrainConfig) -> float:
    """Return the expected test accuracy (a fraction) of a config in the synthetic world."""
    effect = {"none": -0.004, "instance": -0.008, "layer": 0.0005}.get(config.norm, 0.0)
    if config.norm == "batch":
        effect = 0.002 - 0.05 / config.batch_size
    if config.norm == "group":
        effect = 0.002 - 0.0006 * abs(np.log2(config.num_groups) - 3)
    return float(0.975 + effect - 0.002 * abs(np.log2(config.lr / 1e-3)))


def make_run(
    runs_dir: Path,
    config: TrainConfig,
    *,
    status: Status = "finished",
    accuracy: float | None = None,
    noise: float = 0.0015,
    seed_effect: float = 0.003,
    hits: bool = True,
    environment: dict[str, Any] | None = None,
) -> RunFolder:
    """Write one run's folder and return it.

    Args:
        runs_dir: the folder of runs.
        config: its `dataset` must be resolved ("mnist-5k", not "auto").
        status: "diverged" and "failed" get a short history and no test accuracy, "pruned" and
            "interrupted" a short history.
        accuracy: test accuracy; drawn from the model if None. It is rounded to whole images, so
            that it equals the mean of the hits.
        noise: sd of what one run has for itself.
        seed_effect: sd of what all runs with one seed share.
        hits: write `test_hits.npy` as well (finished runs only).
        environment: added to, or replacing, the keys of `ENVIRONMENT`.
    """
    rng = np.random.default_rng(zlib.crc32(config.name.encode()))
    if accuracy is None:
        shared = np.random.default_rng(config.seed).normal(0, seed_effect)
        accuracy = float(np.clip(true_accuracy(config) + shared + rng.normal(0, noise), 0.0, 1.0))
    right = _right_images(config, accuracy, rng)
    accuracy = float(right.mean())
    history = _history(config, accuracy, rng)
    if status != "finished":
        history = history[: max(1, len(history) // 2)]
    if status == "diverged":
        history[-1] |= {"train/loss": float("nan"), "val/loss": float("nan")}
    result = RunResult(
        config=config,
        status=status,
        history=history,
        summary=_summary(history, accuracy if status == "finished" else None) | {"status": status},
        environment=ENVIRONMENT | (environment or {}),
    )
    if not hits or status != "finished":
        return write_run(runs_dir, result)
    return write_run(runs_dir, result, right, _read_as(config))


def _read_as(config: TrainConfig) -> np.ndarray[Any, Any] | None:
    """Return a class that each test image may be taken for, the next one mostly; never its own."""
    if config.dataset != "mnist-5k":
        return None
    rng = np.random.default_rng(zlib.crc32(f"read {config.name}".encode()))
    labels = _labels()
    return (labels + rng.choice([1, 2, 5], len(labels), p=[0.7, 0.2, 0.1])) % 10


@functools.cache
def _labels() -> np.ndarray[Any, Any]:
    _, labels = read_test("mnist-5k", Path())
    return np.asarray(labels, dtype=np.int64)


def make_runs(
    runs_dir: Path,
    *,
    arms: Iterable[dict[str, Any]],
    batch_sizes: Iterable[int] = (8,),
    seeds: int | Iterable[int] = 6,
    lrs: Iterable[float] = (1e-3,),
    epochs: int = 3,
    dataset: str = "mnist-5k",
    **of_each_run: Any,
) -> list[RunFolder]:
    """Write the full grid of arms x batch sizes x learning rates x seeds and return its folders.

    Args:
        arms: settings of each arm, as `arms()` returns them.
        seeds: a count (0 to seeds - 1), or the seed values.
        of_each_run: passed on to `make_run`.
    """
    values = range(seeds) if isinstance(seeds, int) else list(seeds)
    grid = [
        TrainConfig.from_mapping(
            {
                **arm,
                "batch_size": size,
                "lr": lr,
                "seed": seed,
                "epochs": epochs,
                "dataset": dataset,
            }
        )
        for arm in arms
        for size in batch_sizes
        for lr in lrs
        for seed in values
    ]
    with mock.patch.object(os, "fsync"):  # no power cut is played here, and it is nine parts of ten
        return [make_run(runs_dir, config, **of_each_run) for config in grid]


def _right_images(config: TrainConfig, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    """Return which test images were right: the same few are hard for every run."""
    count = TEST_IMAGES[config.dataset]
    difficulty = np.random.default_rng(7).exponential(1.0, count)
    wrong = round((1 - accuracy) * count)
    score = difficulty + rng.exponential(0.6, count)
    right = np.ones(count, dtype=bool)
    right[np.argsort(-score, kind="stable")[:wrong]] = False
    return right


def _history(
    config: TrainConfig, accuracy: float, rng: np.random.Generator
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    images, speed = 3_500 if config.dataset == "mnist-5k" else 55_000, rng.normal(4_000, 60)
    if config.norm == "batch":
        speed *= 0.8
    for epoch in range(1, config.epochs + 1):
        left = np.exp(-1.2 * (epoch - 1) - 0.2) * (config.epochs > 1) * (epoch < config.epochs)
        value = float(np.clip(accuracy - 0.08 * left + rng.normal(0, 0.001), 0, 1))
        row = {
            "epoch": epoch,
            "step": epoch * -(-images // config.batch_size),
            "images_seen": epoch * images,
            "train/loss": float(max(1e-4, 3.0 * (1 - value) * 0.8)),
            "train/accuracy": min(1.0, value + 0.004),
            "val/loss": float(3.2 * (1 - value)),
            "val/accuracy": value,
            "perf/images_per_second": float(speed),
        }
        if config.norm == "batch":
            row["norm/eval_gap"] = float(0.06 / config.batch_size + rng.normal(0, 0.001))
        if config.norm != "none":
            for depth, layer in enumerate(LAYERS):
                row[f"norm/{layer}/activation_mean"] = float(rng.normal(0.02 * epoch * depth, 0.01))
                row[f"norm/{layer}/activation_std"] = float(1 + 0.05 * epoch + rng.normal(0, 0.02))
        rows.append(row)
    return rows


def _summary(history: list[dict[str, float]], accuracy: float | None) -> dict[str, Any]:
    best = max(history, key=lambda row: row["val/accuracy"])
    speed = history[-1]["perf/images_per_second"]
    summary: dict[str, Any] = {
        "val/accuracy": history[-1]["val/accuracy"],
        "val/accuracy_best": best["val/accuracy"],
        "val/best_epoch": best["epoch"],
        "train_seconds": history[-1]["images_seen"] / speed,
        "images_per_second": speed,
        "peak_memory_mb": 310.0,
    }
    if accuracy is not None:
        summary |= {"test/accuracy": accuracy, "test/loss": 3.1 * (1 - accuracy)}
    return summary

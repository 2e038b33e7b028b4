"""Run folders with real offline W&B files, made without training: for tests of sync."""

from __future__ import annotations

import sys
from pathlib import Path

from groupnorm_bench.runs import RunFolder, RunResult
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.tracking.options import Mode, TrackingOptions
from groupnorm_bench.tracking.run import track
from groupnorm_bench.tracking.sweeps import SweepRecord


def configs(count: int) -> list[TrainConfig]:
    """Return `count` configs: two arms, as many seeds as it takes."""
    return [
        TrainConfig(norm="batch" if i % 2 else "group", seed=i // 2, dataset="mnist-5k", epochs=2)
        for i in range(count)
    ]


def track_one(runs_dir: Path, config: TrainConfig, mode: Mode = "offline") -> RunFolder:
    """Track a run with two epochs of history, as `run_trial` does, and keep its result."""
    folder = RunFolder.of(runs_dir, config)
    folder.path.mkdir(parents=True)
    history = [
        {"epoch": epoch, "step": epoch * 10, "val/accuracy": 0.5 + epoch / 10 + config.seed / 1000}
        for epoch in (1, 2)
    ]
    summary = {"val/accuracy": history[-1]["val/accuracy"], "status": "finished"}
    options = TrackingOptions(mode=mode, suite="norm")
    with track(config, folder.path, options, lambda line: None) as tracker:
        for row in history:
            tracker.log(row)
        tracker.summarize(summary)
    result = RunResult(
        config=config, status="finished", history=history, summary=summary, wandb=tracker.info
    )
    folder.write(result)
    return folder


def record_of(names: list[str]) -> SweepRecord:
    """Return the record of a sweep over the runs called `names`."""
    parameters = {"norm": {"values": ["batch", "group"]}, "seed": {"values": [0, 1, 2]}}
    config = {"method": "grid", "parameters": parameters}
    return SweepRecord(name="norm", config=config, runs=tuple(names))


if __name__ == "__main__":
    for made in configs(int(sys.argv[2])):
        track_one(Path(sys.argv[1]), made)

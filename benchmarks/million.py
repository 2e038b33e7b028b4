"""A million results: made, packed, and read back, each with its seconds and its memory.

    python benchmarks/million.py make FILE.gnb [--cells 500] [--seeds 2000] [--epochs 5]
    python benchmarks/million.py read FILE.gnb [--report]

`make` packs results as training writes them, whole `result.json` documents with their history and
the hits of 1,000 test images, from a known truth, without folders: a million would take four
million inodes. Cells are ten arms at each setting, of which there are as many as it takes. `read`
times `gnbench status`, `compare` and, if asked for, `report`, each in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from groupnorm_bench.runs import RunFolder, RunResult, pack_runs
from groupnorm_bench.settings.config import TrainConfig

IMAGES, TEST_IMAGES = 3_500, 1_000
ARMS: list[dict[str, Any]] = [
    *({"norm": norm} for norm in ("none", "batch", "layer", "instance")),
    *({"norm": "group", "num_groups": groups} for groups in (1, 2, 4, 8, 16, 32)),
]
EFFECTS = (-0.004, -0.003, 0.0005, -0.008, 0.0005, 0.0008, 0.0014, 0.002, 0.0014, 0.0008)
ENVIRONMENT: dict[str, Any] = {
    "version": "0.2.0",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "python": "3.11.7",
    "torch": "2.14.1",
    "platform": "Linux-6.1-x86_64",
    "device": "cpu",
    "device_name": "Some CPU @ 2.00GHz",
    "threads": 1,
    "command": ["gnbench", "sweep", "sweeps/million.yaml"],
}


class MadeRun(RunFolder):
    """A run that lies nowhere: its files are made when they are asked for."""

    def __init__(self, config: TrainConfig, effect: float) -> None:
        super().__init__(Path(config.name))
        self._config = config
        self._effect = effect

    def file(self, name: str, limit: int) -> bytes:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        seed_effect = np.random.default_rng(self._config.seed).normal(0, 0.003)
        accuracy = 0.975 + self._effect + seed_effect + rng.normal(0, 0.0015)
        right = rng.random(TEST_IMAGES) < accuracy
        if name == "test_hits.npy":
            buffer = io.BytesIO()
            np.save(buffer, np.packbits(right))
            return buffer.getvalue()
        return self._result(rng, float(right.mean())).to_json().encode()

    def _result(self, rng: np.random.Generator, accuracy: float) -> RunResult:
        config, speed = self._config, float(rng.normal(4_000, 60))
        rows = []
        for epoch in range(1, config.epochs + 1):
            value = min(1.0, accuracy - 0.08 * float(np.exp(-epoch)) + float(rng.normal(0, 0.001)))
            norm = rng.normal(1.0, 0.02, 4).tolist()
            row = {
                "epoch": epoch,
                "step": epoch * -(-IMAGES // config.batch_size),
                "images_seen": epoch * IMAGES,
                "train/loss": 2.4 * (1 - value),
                "train/accuracy": min(1.0, value + 0.004),
                "val/loss": 3.2 * (1 - value),
                "val/accuracy": value,
                "perf/images_per_second": speed,
                "perf/train_seconds": IMAGES / speed,
            }
            names = [f"norm/norm{n}/activation_{what}" for n in (1, 2) for what in ("mean", "std")]
            rows.append(row | dict(zip(names, norm, strict=True)))
        best = max(rows, key=lambda row: row["val/accuracy"])
        summary = {
            "val/accuracy": rows[-1]["val/accuracy"],
            "val/accuracy_best": best["val/accuracy"],
            "val/best_epoch": best["epoch"],
            "train_seconds": config.epochs * IMAGES / speed,
            "images_per_second": speed,
            "peak_memory_mb": 310.0,
            "test/accuracy": accuracy,
            "test/loss": 3.1 * (1 - accuracy),
            "val/num_images": 500,
            "test/num_images": TEST_IMAGES,
            "status": "finished",
        }
        day, second = divmod(config.seed, 86_400)
        started = (
            f"2026-11-{22 + day % 8:02d}T{second // 3600:02d}:{second // 60 % 60:02d}:00+00:00"
        )
        host = f"node{config.seed % 32:02d}"
        return RunResult(
            config=config,
            status="finished",
            history=rows,
            summary=summary,
            environment=ENVIRONMENT | {"host": host, "started": started},
        )


def made_runs(cells: int, seeds: int, epochs: int) -> Iterator[MadeRun]:
    """Yield `cells` times `seeds` runs: ten arms at each of as many learning rates as it takes."""
    for cell in range(cells):
        setting, arm = divmod(cell, len(ARMS))
        config = TrainConfig(
            **ARMS[arm],
            lr=float(f"{1e-4 * 1.001**setting:.6g}"),
            batch_size=32,
            epochs=epochs,
            dataset="mnist-5k",
        )
        for seed in range(seeds):
            yield MadeRun(config.replace(seed=seed), EFFECTS[arm])


def make(path: Path, cells: int, seeds: int, epochs: int) -> None:
    began, spent = time.monotonic(), time.process_time()
    packed = pack_runs(made_runs(cells, seeds, epochs), path)
    print(
        f"{path}: {packed.added:,} runs of {cells:,} cells in {time.monotonic() - began:.0f} s "
        f"({time.process_time() - spent:.0f} s of processor, half of it making them), "
        f"{path.stat().st_size / 1e6:,.0f} MB"
    )


def timed(*args: str) -> tuple[float, float, float, str]:
    """Run `gnbench`; return its seconds, those of the processor, its peak in MB, and its output."""
    program = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'groupnorm_bench', *sys.argv[1:]])\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=sys.stderr)\n"
        "sys.exit(done.returncode)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    spent, megabytes = map(float, done.stderr.splitlines()[-1].split())
    return time.monotonic() - began, spent, megabytes, done.stdout


def read(path: Path, report: bool) -> None:
    print(
        "| command | seconds | of processor | peak MB | printed |\n"
        "| --- | ---: | ---: | ---: | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        commands = [("status", str(path), "--json"), ("compare", str(path))]
        if report:
            commands.append(("report", str(path), "--out", f"{folder}/report.html"))
        for command in commands:
            seconds, spent, megabytes, output = timed(*command)
            told = f"{json.loads(output)['runs']:,} runs" if command[0] == "status" else ""
            told = told or f"{len(output.splitlines()):,} lines"
            if command[0] == "report":
                told = f"a page of {Path(command[-1]).stat().st_size / 1e6:.1f} MB"
            name = f"gnbench {command[0]}"
            print(f"| {name} | {seconds:.1f} | {spent:.1f} | {megabytes:,.0f} | {told} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["make", "read"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="write a report as well")
    args = parser.parse_args()
    if args.what == "make":
        make(args.file, args.cells, args.seeds, args.epochs)
    else:
        read(args.file, args.report)


if __name__ == "__main__":
    main()

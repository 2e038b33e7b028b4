"""A million results: made, packed, and read back, each with its seconds and its memory.

    python benchmarks/million.py make FILE.gnb [--cells 500] [--seeds 2000] [--epochs 3]
    python benchmarks/million.py read FILE.gnb [--report]

`make` packs results as training writes them, whole `result.json` documents with their history and
the hits of 1,000 test images, from a known truth, without folders: a million would take four
million inodes. Cells are ten arms at each setting, of which there are as many as it takes; with
`--from N` those after the first N, which the pack has already. `read` times `gnbench status`,
`compare` and, if asked for, `report`, each in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
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
from groupnorm_bench.settings.config import TrainConfig, run_name

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


class Cell:
    """Documents of one cell's runs: as training writes them, but for the numbers set in anew.

    Writing a document with `RunResult.to_json` takes longer than packing it, so that each cell has
    it written once, with marks where the numbers of a run go. `check` holds that to the real way.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.epochs = range(1, config.epochs + 1)
        size = len(self.numbers(np.zeros(6 * config.epochs), 0.5, 1.0))
        marks = [1e6 + mark / 8 for mark in range(size)]
        text = self.result(config.replace(seed=10**9), marks, "@host", "@started").to_json()
        text = text.replace("%", "%%")
        for i, mark in enumerate(marks):
            text = text.replace(f": {mark!r}", f": %({i})s")
        self._text = text.replace(f'"seed": {10**9}', '"seed": %(seed)s')

    @staticmethod
    def numbers(noise: np.ndarray[Any, Any], accuracy: float, speed: float) -> list[float]:
        """Return the numbers of a run, those of its history first, from what is drawn."""
        rows = noise.reshape(-1, 6)
        found: list[float] = []
        for epoch, row in enumerate(rows.tolist(), start=1):
            value = min(1.0, accuracy - 0.08 * 0.4**epoch + 0.001 * row[0])
            found += [2.4 * (1 - value) + 0.01 * row[1], min(1.0, value + 0.004)]
            found += [3.2 * (1 - value), value]
            found += [speed, IMAGES / speed, *(1 + 0.02 * one for one in row[2:])]
        values = found[3::10]
        found += [values[-1], max(values), len(rows) * IMAGES / speed, speed]
        return [*found, accuracy, 3.1 * (1 - accuracy)]

    def result(
        self, config: TrainConfig, numbers: list[float], host: str, started: str
    ) -> RunResult:
        """Return a run with these numbers."""
        names = ["train/loss", "train/accuracy", "val/loss", "val/accuracy"]
        names += ["perf/images_per_second", "perf/train_seconds"]
        names += [f"norm/norm{n}/activation_{what}" for n in (1, 2) for what in ("mean", "std")]
        rows = [
            {"epoch": epoch, "step": epoch * -(-IMAGES // 32), "images_seen": epoch * IMAGES}
            | dict(zip(names, numbers[10 * (epoch - 1) :], strict=False))
            for epoch in self.epochs
        ]
        names = ["val/accuracy", "val/accuracy_best", "train_seconds", "images_per_second"]
        summary = dict(
            zip([*names, "test/accuracy", "test/loss"], numbers[10 * len(rows) :], strict=True)
        )
        summary |= {"val/best_epoch": len(rows), "peak_memory_mb": 310.0}
        summary |= {"val/num_images": 500, "test/num_images": TEST_IMAGES, "status": "finished"}
        return RunResult(
            config=config,
            status="finished",
            history=rows,
            summary=summary,
            environment=ENVIRONMENT | {"host": host, "started": started},
        )

    def write(self, seed: int, numbers: list[float], host: str, started: str) -> str:
        """Return the document of a run."""
        told = {str(i): repr(number) for i, number in enumerate(numbers)} | {"seed": seed}
        text = self._text % told
        return text.replace("@host", host).replace("@started", started)


class MadeRun(RunFolder):
    """A run that lies nowhere: its files are made when they are asked for."""

    def __init__(self, cell: Cell, name: str, seed: int, effect: float) -> None:
        super().__init__(Path(name))
        self._cell, self._seed, self._effect = cell, seed, effect
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        own, *noise = rng.standard_normal(2 + 6 * cell.config.epochs)
        accuracy = 0.975 + effect + 0.003 * seed_effect(seed) + 0.0015 * own
        self._right = rng.random(TEST_IMAGES) < accuracy
        speed = 4_000 + 60 * float(noise[0])
        self.numbers = cell.numbers(np.array(noise[1:]), float(self._right.mean()), speed)
        day, second = divmod(seed, 86_400)
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        self.where = f"node{seed % 32:02d}", f"2026-11-{22 + day % 8:02d}T{clock}+00:00"

    def has_result(self) -> bool:
        return True

    def file(self, name: str, limit: int) -> bytes:
        if name == "result.json":
            return self._cell.write(self._seed, self.numbers, *self.where).encode()
        buffer = io.BytesIO()
        np.save(buffer, np.packbits(self._right))
        return buffer.getvalue()

    def check(self) -> None:
        """Hold the document to that of `RunResult.to_json`."""
        config = self._cell.config.replace(seed=self._seed)
        real = self._cell.result(config, self.numbers, *self.where).to_json()
        assert self.file("result.json", 0).decode() == real


@functools.cache
def seed_effect(seed: int) -> float:
    return float(np.random.default_rng(seed).standard_normal())


def made_runs(cells: range, seeds: int, epochs: int) -> Iterator[MadeRun]:
    """Yield as many runs of each cell: ten arms at each of as many learning rates as it takes."""
    for cell in cells:
        setting, arm = divmod(cell, len(ARMS))
        config = TrainConfig(
            **ARMS[arm],
            lr=float(f"{1e-4 * 1.001**setting:.6g}"),
            batch_size=32,
            epochs=epochs,
            dataset="mnist-5k",
        )
        documents = Cell(config)
        for seed in range(seeds):
            run = MadeRun(documents, run_name(config.cell, seed), seed, EFFECTS[arm])
            if not seed:
                run.check()
            yield run


def make(path: Path, cells: range, seeds: int, epochs: int) -> None:
    began, spent = time.monotonic(), time.process_time()
    packed = pack_runs(made_runs(cells, seeds, epochs), path)
    seconds = time.monotonic() - began
    print(
        f"{path}: {packed.added:,} runs of {len(cells):,} cells in {seconds:.0f} s "
        f"({time.process_time() - spent:.0f} s of processor, making them included), "
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
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="write a report as well")
    args = parser.parse_args()
    if args.what == "make":
        make(args.file, range(args.first, args.cells), args.seeds, args.epochs)
    else:
        read(args.file, args.report)


if __name__ == "__main__":
    main()

"""Seconds from Enter to the end of the first training step, and of scoring the test set.

    python benchmarks/startup.py --data-dir DATA [--repeats 5]

`gnbench train` on the full MNIST with W&B offline, each time in a fresh process, after one that
is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import json, sys, time
from pathlib import Path

entered, result_path = float(sys.argv.pop(1)), Path(sys.argv.pop(1))
seconds = {}

from groupnorm_bench.training import loop
from groupnorm_bench.cli import main

train_step, evaluate = loop.Training._train_step, loop.evaluate


def timed_step(self, *args, **kwargs):
    outcome = train_step(self, *args, **kwargs)
    seconds.setdefault("first step", time.time() - entered)
    return outcome


def timed_evaluate(way, dataset, split):
    started = time.time()
    outcome = evaluate(way, dataset, split)
    if split is dataset.test:
        seconds["test set"] = time.time() - started
    return outcome


loop.Training._train_step, loop.evaluate = timed_step, timed_evaluate
try:
    main()
finally:
    result_path.write_text(json.dumps(seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=os.environ.get("GNBENCH_DATA_DIR"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("--data-dir (or GNBENCH_DATA_DIR) must name the folder that has MNIST/raw")
    print("| compile | precision | first step, s | 10,000 test images, s |")
    print("| --- | --- | --- | --- |")
    for setting in ("off", "on"):
        for precision in ("fp32", "bf16"):
            options = ["--compile", setting, "--precision", precision]
            runs = [measured(args.data_dir, options) for _ in range(1 + args.repeats)][1:]
            cells = [spread([run[what] for run in runs]) for what in ("first step", "test set")]
            print(f"| {setting} | {precision} | {' | '.join(cells)} |", flush=True)


def measured(data_dir: str, options: list[str]) -> dict[str, float]:
    """Return the seconds of one `gnbench train` of 64 steps."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.json"
        train = ["train", "--dataset", "mnist", "--data-dir", data_dir, "--max-steps", "64"]
        train += ["--out", f"{folder}/runs", "--wandb", "offline", "--device", "cpu", "--quiet"]
        command = [sys.executable, "-c", CHILD, repr(time.time()), str(result), *train, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(train + options)} failed:\n{done.stderr[-2000:]}")
        return json.loads(result.read_text())


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()

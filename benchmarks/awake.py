"""What threads, and keeping a core awake for them, bring and cost, per batch size.

    python benchmarks/awake.py [--repeats 5]

Training steps of group norm on the bundled digits in one process: on two threads as they are, on
two without the thread that keeps the other's core awake, and on one, in turn. CPU seconds count
every thread. What keeps a core awake gives way to anything else: measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from groupnorm_bench.processors import wait_without_spinning

wait_without_spinning()

import torch  # noqa: E402

from groupnorm_bench.datasets.load import load_dataset  # noqa: E402
from groupnorm_bench.fast import threads  # noqa: E402
from groupnorm_bench.settings.config import TrainConfig  # noqa: E402
from groupnorm_bench.training.loop import Training  # noqa: E402

IMAGES = 1_600
STAY_AWAKE = threads._Helper._stay_awake
WAYS = {"two threads": (2, STAY_AWAKE), "none awake": (2, lambda _: None), "one": (1, STAY_AWAKE)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32, 64, 128, 512])
    args = parser.parse_args()
    print("| batch size | " + " | ".join(f"{name}: images/s, CPU us an image" for name in WAYS))
    print("| --- " * (1 + len(WAYS)) + "|")
    for batch_size in args.batch_sizes:
        measured = measure(batch_size, args.repeats)
        cells = [f"{statistics.median(r):,.0f}, {statistics.median(c):.0f}" for r, c in measured]
        print(f"| {batch_size} | {' | '.join(cells)} |", flush=True)


def measure(batch_size: int, repeats: int) -> list[tuple[list[float], list[float]]]:
    """Return, for each of `WAYS`, images/s and microseconds of all threads an image."""
    config = TrainConfig(batch_size=batch_size, compile="on", dataset="mnist-5k")
    training = Training(config, load_dataset("mnist-5k", Path()), torch.device("cpu"))
    training.model.train()
    places, num_steps = torch.arange(batch_size), max(IMAGES // batch_size, 3)
    measured: list[tuple[list[float], list[float]]] = [([], []) for _ in WAYS]
    for _ in range(repeats):
        for (rates, costs), (num_threads, stay_awake) in zip(measured, WAYS.values(), strict=True):
            torch.set_num_threads(num_threads)
            threads._Helper._stay_awake, threads._watch = stay_awake, threads._Watch()
            with threads.sharing():
                for step in range(2 * num_steps):
                    if step == num_steps:  # those before warm up
                        wall, cpu = time.perf_counter(), time.process_time()
                    training._train_step(places, check=True)
                rates.append(num_steps * batch_size / (time.perf_counter() - wall))
                costs.append((time.process_time() - cpu) / (num_steps * batch_size) * 1e6)
    return measured


if __name__ == "__main__":
    main()

"""What this machine's arithmetic can do, and how much of it a training step of the CNN uses.

    python benchmarks/peak.py [--threads 1]

Multiplications and additions a second of float32 matrix products by torch's library, the fastest
of many, by the CPU time of the calling thread, so that what else runs counts little.
"""

from __future__ import annotations

import argparse
import time

import torch

STEP_MILLIONS = 3 * 10.0 + 2 * 0.63 + 3 * 0.03
"""Of a training step, an image, done directly: the second convolution forward, and backward to its
input and its weights; the first, which has no input's gradient; the linear layer."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| matrices | thousand million multiplications and additions a second |\n| --- | --- |")
    best = 0.0
    for size in (256, 512, 1024):
        rate = fastest(size, args.repeats)
        best = max(best, rate)
        print(f"| {size} x {size} | {rate / 1e9:.0f} |", flush=True)
    print(
        f"\nat that rate the {STEP_MILLIONS:.0f} million of a step done directly take "
        f"{1e6 * STEP_MILLIONS / best * 1e6:.0f} us an image: "
        f"{best / STEP_MILLIONS / 1e6:,.0f} images/s"
    )


def fastest(size: int, repeats: int) -> float:
    """Return multiplications and additions a second of the fastest product."""
    left, right = torch.randn(2, size, size)
    product = torch.empty(size, size)
    seconds = []
    for _ in range(repeats):
        started = time.thread_time()
        torch.mm(left, right, out=product)
        seconds.append(time.thread_time() - started)
    return size**3 / min(seconds)


if __name__ == "__main__":
    main()

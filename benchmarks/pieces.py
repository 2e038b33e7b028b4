"""Where a training step's time goes: each piece of the CNN by torch's modules and by ours.

    python benchmarks/pieces.py [--batch-sizes 16 64 256] [--threads 1] [--groups 8]

"eager" is ours by torch's operations alone, "compiled" by the compiled loops, as long runs train.

Forward and backward, microseconds an image, the median of interleaved repeats with its tenths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.bench.steps import Case, Spread, interleaved
from groupnorm_bench.fast import allocator, loops
from groupnorm_bench.fast.blocks import norm_relu_pool
from groupnorm_bench.fast.convolution import convolve


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    allocator.keep_freed()
    problem = loops.prepare()
    if problem is not None:
        raise SystemExit(problem)
    for batch_size in args.batch_sizes:
        print(f"\n{args.threads} threads, batch size {batch_size}, {args.groups} groups:\n")
        print("| piece | torch, channels-first | eager | compiled |\n| --- | --- | --- | --- |")
        table(batch_size, args.groups, args.repeats)


def table(batch_size: int, groups: int, repeats: int) -> None:
    """Print a row a piece, and their sums."""
    steps = pieces(batch_size, groups)
    cases = [
        Case(step, batch_size, use_loops)
        for ways in steps.values()
        for step, use_loops in zip(ways, (False, False, True), strict=True)
    ]
    seconds = interleaved(cases, repeats)
    times = [Spread.of([1e6 * s / batch_size for s in each]) for each in seconds]
    rows = list(zip(times[::3], times[1::3], times[2::3], strict=True))
    for name, row in zip(steps, rows, strict=True):
        cells = [f"{t.median:.0f} ({t.low:.0f} to {t.high:.0f})" for t in row]
        print(f"| {name} | " + " | ".join(cells) + " |")
    sums = [f"{sum(row[way].median for row in rows):,.0f}" for way in range(3)]
    print("| sum | " + " | ".join(sums) + " |")


def pieces(batch_size: int, groups: int) -> dict[str, list[Callable[[], None]]]:
    """Return each piece as torch's modules run it, and as `groupnorm_bench` does in two ways."""
    first, second = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 5, padding=2)
    norms = nn.GroupNorm(groups, 32), nn.GroupNorm(groups, 64)
    linear = nn.Linear(3136, 10)
    maps = (
        torch.randn(batch_size, 1, 28, 28),
        torch.randn(batch_size, 32, 28, 28),
        torch.randn(batch_size, 32, 14, 14),
        torch.randn(batch_size, 64, 14, 14),
        torch.randn(batch_size, 3136),
    )
    last = [m.contiguous(memory_format=torch.channels_last) if m.ndim == 4 else m for m in maps]

    def block(norm: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda features: F.max_pool2d(F.relu(norm(features)), 2)

    ways = {
        "first convolution": (first, lambda x, loops: convolve(x, first, loops)),
        "norm, ReLU, pool, 32 x 28 x 28": (
            block(norms[0]),
            lambda x, loops: norm_relu_pool(x, norms[0], loops),
        ),
        "second convolution": (second, lambda x, loops: convolve(x, second, loops)),
        "norm, ReLU, pool, 64 x 14 x 14": (
            block(norms[1]),
            lambda x, loops: norm_relu_pool(x, norms[1], loops),
        ),
        "linear layer": (linear, lambda x, loops: linear(x)),
    }
    return {
        name: [
            both_passes(native, maps[i], i > 0),
            both_passes(partial(ours, loops=False), last[i], i > 0),
            both_passes(partial(ours, loops=True), last[i], i > 0),
        ]
        for i, (name, (native, ours)) in enumerate(ways.items())
    }


def both_passes(
    function: Callable[[Tensor], Tensor], inputs: Tensor, needs_grad: bool
) -> Callable[[], None]:
    """Return a step: forward, and backward to the parameters and, if it needs it, the input."""
    inputs = inputs.clone().requires_grad_(needs_grad)
    grad = torch.ones_like(function(inputs))

    def step() -> None:
        function(inputs).backward(grad)

    return step


if __name__ == "__main__":
    main()

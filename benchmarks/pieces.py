"""Where a training step's time goes: each piece of the CNN by torch's modules and by ours.

    python benchmarks/pieces.py [--batch-sizes 16 64 256] [--threads 1] [--groups 8]

Forward and backward, microseconds an image, the median of interleaved repeats with its tenths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from groupnorm_bench.bench.timing import Case, Spread, interleaved
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.way import Way, choose_way


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
    for batch_size in args.batch_sizes:
        print(f"\n{args.threads} threads, batch size {batch_size}, {args.groups} groups:\n")
        print("| piece | torch, channels-first | loops |\n| --- | --- | --- |")
        table(batch_size, args.groups, args.repeats)


def table(batch_size: int, groups: int, repeats: int) -> None:
    """Print a row a piece, and their sums."""
    steps = pieces(batch_size, groups)
    cases = [case for ways in steps.values() for case in ways]
    seconds = interleaved(cases, repeats)
    times = [Spread.of([1e6 * s / batch_size for s in each]) for each in seconds]
    rows = list(zip(times[::2], times[1::2], strict=True))
    for name, row in zip(steps, rows, strict=True):
        cells = [f"{t.median:.0f} ({t.low:.0f} to {t.high:.0f})" for t in row]
        print(f"| {name} | " + " | ".join(cells) + " |")
    sums = [f"{sum(row[way].median for row in rows):,.0f}" for way in range(2)]
    print("| sum | " + " | ".join(sums) + " |")


def pieces(batch_size: int, groups: int) -> dict[str, list[Case]]:
    """Return each piece as torch's modules run it, and as gnbench does."""
    layers = {
        "first convolution": (nn.Conv2d(1, 32, 5, padding=2), (1, 28, 28)),
        "norm, ReLU, pool, 32 x 28 x 28": (block(groups, 32), (32, 28, 28)),
        "second convolution": (nn.Conv2d(32, 64, 5, padding=2), (32, 14, 14)),
        "norm, ReLU, pool, 64 x 14 x 14": (block(groups, 64), (64, 14, 14)),
        "linear layer": (nn.Linear(3136, 10), (3136,)),
    }
    steps = {}
    for i, (name, (layer, shape)) in enumerate(layers.items()):
        maps = torch.randn(batch_size, *shape)
        last = maps.contiguous(memory_format=torch.channels_last) if len(shape) == 3 else maps
        steps[name] = [Case(both_passes(layer, maps, i > 0))]
        way = way_of(layer)
        context = partial(way.context, batch_size)
        steps[name].append(Case(both_passes(way.forward, last, i > 0), context))
    return steps


def block(groups: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.GroupNorm(groups, channels), nn.ReLU(), nn.MaxPool2d(2))


def way_of(layer: nn.Module) -> Way:
    layers = layer if isinstance(layer, nn.Sequential) else nn.Sequential(layer)
    return choose_way(layers, TrainConfig(compile="on"), torch.device("cpu"), 10**9)


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

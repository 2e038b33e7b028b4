"""A training step on small batches against the plain loop's: CPU time of one thread, interleaved.

    python benchmarks/small_batches.py --data-dir DATA [--batch-sizes 2 4 8] [--norms group batch]

Both train in this process, some steps in turn, each on one thread, so that what else the machine
does falls on both alike; what is counted is CPU time, of everything from one batch to the next:
loading, step, sums of loss and hits. Lower quartile of the rounds, and the median of the ratios
within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import MEAN, STD
from torch import nn
from torch.utils.data import DataLoader, Subset
from torch_net import network
from torchvision import datasets, transforms

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import Training


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("GNBENCH_DATA_DIR"))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--norms", nargs="+", default=["group", "batch"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25, help="of a round, each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| norm | batch size | plain loop, ms a step | gnbench, ms a step | times as fast |")
    print("| --- | --- | --- | --- | --- |")
    for norm in args.norms:
        for size in args.batch_sizes:
            loops = [plain(norm, size, args), ours(norm, size, args)]
            rounds = [[cpu_ms(loop) / args.steps for loop in loops] for _ in range(args.rounds + 1)]
            times = list(zip(*rounds[1:], strict=True))
            quartiles = [statistics.quantiles(each, n=4)[0] for each in times]
            ratios = [a / b for a, b in zip(*times, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(
                f"| {norm} | {size} | {quartiles[0]:.2f} | {quartiles[1]:.2f} "
                f"| {middle:.2f} ({low:.2f} to {high:.2f}) |",
                flush=True,
            )


def cpu_ms(loop: Callable[[], None]) -> float:
    started = time.process_time()
    loop()
    return 1000 * (time.process_time() - started)


def plain(norm: str, size: int, args: argparse.Namespace) -> Callable[[], None]:
    """Return some steps of `torch_loader.py`."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    train_set = datasets.MNIST(args.data_dir, train=True, transform=transform)
    images = Subset(train_set, range(args.steps * size))
    loader = DataLoader(images, size, shuffle=True, drop_last=True)
    model = network(norm)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def steps() -> None:
        for batch, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), labels).backward()
            optimizer.step()

    return steps


def ours(norm: str, size: int, args: argparse.Namespace) -> Callable[[], None]:
    """Return an epoch of as many steps of a training."""
    config = TrainConfig(
        dataset="mnist", norm=norm, batch_size=size, epochs=10_000, compile="on"
    ).replace(train_limit=args.steps * size)
    training = Training(config, load_dataset("mnist", args.data_dir), torch.device("cpu"))
    epochs = iter(range(1, config.epochs + 1))

    def steps() -> None:
        with training.way.context(size):
            training._train_epoch(next(epochs), Hooks())

    return steps


if __name__ == "__main__":
    main()

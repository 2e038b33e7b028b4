"""What channels-last memory brings on a CPU, and what a GroupNorm of our own could bring there.

    python benchmarks/layouts.py

A forward and backward pass of each network in both layouts, under group norm and under batch norm,
in turns; CPU milliseconds of one thread, medians. Batch norm's in channels-last is about what the
network would take if its GroupNorm were as quick there as it can be. Then torch's GroupNorm alone.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

from groupnorm_bench import TrainConfig
from groupnorm_bench.training.build import build_model

NETWORKS = {
    "resnet20": 32,
    "torchvision:resnet18": 16,
    "torchvision:regnet_y_400mf": 16,
    "torchvision:mobilenet_v3_small": 32,
    "torchvision:mnasnet0_5": 32,
    "torchvision:shufflenet_v2_x0_5": 32,
    "timm:efficientnet_b0": 16,
}
"""With the images of a batch, 28x28 pixels of one channel."""
FEATURES = (
    *(((64, 16, 28, 28), 4), ((64, 16, 28, 28), 8), ((64, 16, 28, 28), 16)),
    *(((32, 72, 14, 14), 24), ((32, 64, 14, 14), 8), ((32, 576, 2, 2), 32)),
)
"""Shapes and groups, as these networks have them."""
LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}
ROUNDS = 7


def in_turns(passes: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Return the median CPU milliseconds of each, the first round not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(ROUNDS + 1):
        for name, call in passes.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    return {name: 1e3 * statistics.median(all_[1:]) for name, all_ in seconds.items()}


def a_pass(layer: nn.Module, features: torch.Tensor) -> Callable[[], None]:
    def call() -> None:
        layer(features).sum().backward()

    return call


def of_network(model: str, batch_size: int) -> str:
    passes = {}
    for norm in ("group", "batch"):
        groups = "auto" if norm == "group" else 8
        config = TrainConfig(model=model, norm=norm, num_groups=groups, dataset="mnist-5k")
        network = build_model(config).train()
        for name, layout in LAYOUTS.items():
            images = torch.randn(batch_size, 1, 28, 28).contiguous(memory_format=layout)
            moved = copy.deepcopy(network).to(memory_format=layout)
            passes[f"{norm} {name}"] = a_pass(moved, images)
    ms = in_turns(passes)
    today = min(ms["group first"], ms["group last"])
    cells = [f"{value:.0f}" for value in ms.values()]
    return f"| `{model}` | {' | '.join(cells)} | {today / ms['batch last']:.2f} |"


def of_layer(shape: tuple[int, ...], groups: int) -> str:
    ms = in_turns(
        {
            name: a_pass(
                nn.GroupNorm(groups, shape[1]),
                torch.randn(shape).contiguous(memory_format=layout).requires_grad_(),
            )
            for name, layout in LAYOUTS.items()
        }
    )
    name = " x ".join(map(str, shape))
    ratio = ms["last"] / ms["first"]
    return f"| {name}, {groups} groups | {ms['first']:.2f} | {ms['last']:.2f} | {ratio:.1f} |"


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | group first | group last | batch first | batch last | at most |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model, batch_size in NETWORKS.items():
        print(of_network(model, batch_size), flush=True)
    print("\n| GroupNorm | channels first | channels-last | ratio |\n| --- | --- | --- | --- |")
    for shape, groups in FEATURES:
        print(of_layer(shape, groups), flush=True)


if __name__ == "__main__":
    main()

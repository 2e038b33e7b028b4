"""Speed and memory of norm layers, with the activation and the pooling behind them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groupnorm_bench.bench.timing import Case, OnRound, Spread, interleaved
from groupnorm_bench.errors import ConfigError
from groupnorm_bench.norms import NORMS, make_norm
from groupnorm_bench.notebooks import Bar
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.build import build_network, images_of
from groupnorm_bench.training.way import TorchWay, choose_way

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class LayerSpeed:
    """Norm, activation and 2x2 max-pool, forward and backward, by one way."""

    norm: str
    way: str
    """`native`: torch's modules, channels first; `compiled`: our loops, channels last."""
    precision: str
    shape: Shape
    microseconds: Spread
    """Per image."""
    saved_mb: float
    """What the forward pass keeps for the backward pass, its input included."""


def cnn_shapes() -> list[Shape]:
    """Return what the CNN's norm layers see at batch size 64."""
    config = TrainConfig(norm="none", batch_size=64)
    network = build_network(config)
    shapes: list[Shape] = []
    for layer in network.norm_layers.values():
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    network.model(torch.zeros(config.batch_size, *images_of(config).image_shape))
    return shapes


def bench_layers(
    shapes: Iterable[Shape] | None = None,
    precisions: Iterable[str] = ("fp32", "bf16"),
    num_groups: int = 8,
    repeats: int = 20,
    norms: Iterable[str] = tuple(NORMS),
    on_round: OnRound | None = None,
) -> tuple[list[LayerSpeed], list[str]]:
    """Time every norm on inputs [batch, channels, height, width], on the CPU.

    Args:
        shapes: the inputs; what the CNN's two norm layers see at batch size 64 if None.
        precisions: names in `DTYPES`.
        num_groups: of norms that read it.
        repeats: rounds; each times every case once.
        norms: names in `NORMS`.
        on_round: told of each round; a bar where a person watches if None.

    Returns:
        the rows, native beside ours where there is one, and a line for each norm left out
        because its package is missing.

    Raises:
        ConfigError: a shape is too small to pool, or `num_groups` does not divide its channels.
    """
    labels: list[tuple[str, str, str, Shape]] = []
    cases: list[Case] = []
    saved: list[float] = []
    notes = [f"{n}: left out, needs the package {NORMS[n].needs}" for n in norms if _lacks(n)]
    for shape in cnn_shapes() if shapes is None else shapes:
        if min(shape) < 1 or min(shape[2:]) < 2:
            raise ConfigError(f"shape={shape} cannot be pooled; height and width are 2 or more")
        for precision in precisions:
            for norm in norms:
                if _lacks(norm):
                    continue
                for name, function, case in _cases(norm, num_groups, shape, DTYPES[precision]):
                    labels.append((norm, name, precision, shape))
                    saved.append(_saved_mb(function))
                    cases.append(case)
    with Bar("timing norms, round", shown=on_round is None) as bar:
        seconds = interleaved(cases, repeats, on_round or bar.tell)
        bar.end()
    rows = [
        LayerSpeed(*label, Spread.of([1e6 * s / label[3][0] for s in times]), megabytes)
        for label, times, megabytes in zip(labels, seconds, saved, strict=True)
    ]
    return rows, notes


def _lacks(norm: str) -> bool:
    needs = NORMS[norm].needs
    return needs is not None and importlib.util.find_spec(needs) is None


def _cases(
    norm: str, num_groups: int, shape: Shape, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[], Tensor], Case]]:
    """Yield the ways to compute a block: name, forward pass, and both passes to be timed."""
    activation = nn.Identity() if NORMS[norm].fuses_activation else nn.ReLU()
    block = nn.Sequential(make_norm(norm, shape[1], num_groups), activation, nn.MaxPool2d(2))
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    first = features.clone().requires_grad_()
    last = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    yield "native", partial(block, first), Case(_backward_too(partial(block, first)))
    if dtype != torch.float32:
        return  # the loops compute in float32 also where a run is bf16
    way = choose_way(block, TrainConfig(compile="on"), torch.device("cpu"), images=0)
    if not isinstance(way, TorchWay):
        forward = partial(way.forward, last)
        yield "compiled", forward, Case(_backward_too(forward), partial(way.context, shape[0]))


def _backward_too(function: Callable[[], Tensor]) -> Callable[[], None]:
    output = function()
    grad = torch.ones_like(output)

    def both() -> None:
        function().backward(grad)

    return both


def _saved_mb(function: Callable[[], Tensor]) -> float:
    """Return the size of all that is kept for the backward pass, each storage counted once.

    That is what autograd keeps, and arrays that an operation keeps by itself (`fast/chain.py`).
    """
    sizes: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        output = function()  # kept, so that no address is given out twice
        for array in _arrays(getattr(output.grad_fn, "__dict__", {}).values()):
            pack(torch.from_numpy(array))
        total = sum(sizes.values())
    del output
    return total / 2**20


def _arrays(kept: Iterable[Any]) -> Iterator[np.ndarray[Any, Any]]:
    for each in kept:
        if isinstance(each, np.ndarray):
            yield each
        elif isinstance(each, list | tuple):
            yield from _arrays(each)

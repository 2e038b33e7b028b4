"""The one place where it is decided how a network is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from groupnorm_bench.fast import allocator, blocks, compiler, threads
from groupnorm_bench.fast.blocks import norm_relu_pool
from groupnorm_bench.fast.convolution import convolve
from groupnorm_bench.fast.cuda_graphs import CapturedWay, Score
from groupnorm_bench.models.precision import RoundToBf16
from groupnorm_bench.settings.config import TrainConfig

_Step = tuple[nn.Module, ...]
"""Modules called one after the other: a norm with the ReLU and the pooling behind it, or one."""


def choose_way(
    model: nn.Module, settings: TrainConfig, device: torch.device, images: int
) -> LoopsWay | CapturedWay | str:
    """See `fast.choose`."""
    allocator.keep_freed()
    if device.type == "cuda":
        if settings.compile == "on":
            return CapturedWay(model, settings.precision, device)
        why = ": what it saves on a GPU is not measured (--compile on takes it)"
        return "compile off" + why * (settings.compile == "auto")
    if device.type != "cpu":
        return f"torch's modules on {device.type}"
    if settings.compile == "off":
        return "compile off"
    if not compiler.is_long_enough(settings.compile, images):
        return "compile off: too short a run to earn it back (--compile on forces it)"
    if type(model).forward is not nn.Sequential.forward:
        return "compile off: no loops for this network"
    steps = list(_steps(model))
    kinds = dict.fromkeys(kind for step in steps for kind in _kinds(step))
    if not kinds:
        return "compile off: no loops for this network"
    line, is_there = compiler.prepare(kinds)
    if not is_there:
        return line
    return LoopsWay(model, steps, settings.precision == "bf16", line)


def _steps(model: nn.Module) -> Iterator[_Step]:
    # Not `children`, which leaves out a module that stands in two places.
    modules = [module for module in model._modules.values() if module is not None]
    while modules:
        length = 3 if blocks.is_block(modules[:3]) else 1
        yield tuple(modules[:length])
        del modules[:length]


def _kinds(step: _Step) -> tuple[str, ...]:
    """Return the kinds of loops that a step may take."""
    if len(step) == 3:
        return blocks.kinds(step[0]) or ()
    return compiler.CONVOLUTIONS if type(step[0]) is nn.Conv2d else ()


class LoopsWay:
    """A sequence of modules on a CPU; loops compute those that they know, torch the others.

    It computes the same function as the modules. A module that has a hook is called as it is.
    """

    name = "loops-4"
    """Another one than an older version's, whose sums were in another order."""

    def __init__(self, model: nn.Module, steps: list[_Step], rounds: bool, note: str) -> None:
        self.model, self._steps, self._rounds = model, steps, rounds
        self.notes = [note]
        if rounds:  # faster than bf16 instructions with torch's convolutions (performance.md)
            self.notes.insert(0, "bf16: rounded values, summed in fp32 at about fp32's speed")

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's output for normalised images, in the run's precision."""
        features = images
        for step in self._steps:
            features = self._run(step, features)
        return features

    def _run(self, step: _Step, features: Tensor) -> Tensor:
        first = step[0]
        if not any(_has_hooks(module) for module in step):
            if type(first) is nn.Conv2d:
                return convolve(features, first, self._rounds)
            pooled = norm_relu_pool(features, first) if len(step) == 3 else None
            if pooled is not None:
                return pooled
        with RoundToBf16() if self._rounds else contextlib.nullcontext():
            for module in step:
                features = module(features)
        return features

    def context(self, batch_size: int) -> contextlib.AbstractContextManager[None]:
        """Return the context in which batches of this size are trained on or scored."""
        return threads.for_batches(batch_size)

    def capture(self, score: Score, images: Tensor, labels: Tensor) -> Score:
        """Return `score`: it is called as it is."""
        return score


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)

"""The one place where it is decided how a network is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from groupnorm_bench.fast import allocator, blocks, loops, threads
from groupnorm_bench.fast.convolution import convolve
from groupnorm_bench.fast.cuda_graphs import CapturedWay, Score
from groupnorm_bench.models.precision import RoundToBf16, forward_context, has_bf16_instructions
from groupnorm_bench.settings.config import TrainConfig

_Step = tuple[nn.Module, ...]
"""Modules called one after the other: a norm with the ReLU and the pooling behind it, or one."""


def choose(
    model: nn.Module, settings: TrainConfig, device: torch.device, images: int
) -> FusedWay | CapturedWay | str:
    """Return a fast way to compute `model`, or why torch's modules are left as they are.

    Args:
        model: on `device`.
        settings: whose `norm` is named to the user; `precision` and `compile` are obeyed.
        device: where batches will be.
        images: images that the whole run trains on, repeats counted.
    """
    allocator.keep_freed()
    if device.type == "cuda":
        if settings.compile == "on":
            return CapturedWay(model, settings.precision, device)
        why = ": what it saves on a GPU is not measured (--compile on takes it)"
        return "compile off" + why * (settings.compile == "auto")
    line = f"norm {settings.norm} on {device.type}: plain modules, not fused"
    if device.type != "cpu" or type(model).forward is not nn.Sequential.forward:
        return line
    steps = list(_steps(model))
    if not any(len(step) == 3 or type(step[0]) is nn.Conv2d for step in steps):
        return line
    use_loops = False
    if all(_has_loops(step) for step in steps):
        use_loops, line = loops.decide(settings.compile, images)
        problem = loops.prepare() if use_loops else None
        if problem is not None:
            use_loops, line = False, f"compile off: {problem}"
    return FusedWay(model, steps, settings.precision, use_loops, line)


def _steps(model: nn.Module) -> Iterator[_Step]:
    modules = list(model.children())
    while modules:
        length = 3 if blocks.is_block(modules[:3]) else 1
        yield tuple(modules[:length])
        del modules[:length]


def _has_loops(step: _Step) -> bool:
    if len(step) == 3:
        return blocks.has_block(step[0])
    return type(step[0]) in (nn.Conv2d, nn.Flatten, nn.Linear)


class FusedWay:
    """A sequence of modules on a CPU, with norm, ReLU and pooling as one step.

    It computes the same function as the modules. A module that has a hook is called as it is.
    """

    def __init__(
        self, model: nn.Module, steps: list[_Step], precision: str, use_loops: bool, note: str
    ) -> None:
        self.model, self._steps, self._use_loops = model, steps, use_loops
        self.name = "loops" if use_loops else "plain"
        is_bf16 = precision == "bf16"
        # The loops round by themselves, and are faster than bf16 instructions with torch's
        # convolutions (docs/performance.md).
        self._rounds = is_bf16 and (use_loops or not has_bf16_instructions())
        self._by_instructions = is_bf16 and not self._rounds
        self.notes = [note]
        if self._rounds:
            self.notes.insert(0, "bf16: rounded values, summed in fp32 at about fp32's speed")

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's output for normalised images, in the run's precision."""
        if not self._by_instructions:
            return self._forward(images)
        with forward_context("bf16", images.device):
            return self._forward(images)

    def _forward(self, features: Tensor) -> Tensor:
        for step in self._steps:
            features = self._run(step, features)
        return features

    def _run(self, step: _Step, features: Tensor) -> Tensor:
        first = step[0]
        if not any(_has_hooks(module) for module in step):
            if type(first) is nn.Conv2d:
                return convolve(features, first, self._use_loops, self._rounds)
            if len(step) == 3:
                pooled = blocks.norm_relu_pool(features, first, self._use_loops)
                if pooled is not None:
                    return pooled
        with RoundToBf16() if self._rounds else contextlib.nullcontext():
            for module in step:
                features = module(features)
        return features

    def context(self, batch_size: int) -> contextlib.AbstractContextManager[None]:
        """Return the context in which batches of this size are trained on or scored."""
        return threads.for_batches(self._use_loops, batch_size)

    def capture(self, score: Score, images: Tensor, labels: Tensor) -> Score:
        """Return `score`: it is called as it is."""
        return score


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)

"""The one place where it is decided how a network is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groupnorm_bench.fast import allocator, blocks, compiler, convolution, linear, threads
from groupnorm_bench.fast.chain import Chain, Link
from groupnorm_bench.fast.cuda_graphs import CapturedWay, Score
from groupnorm_bench.models.precision import RoundToBf16
from groupnorm_bench.settings.config import TrainConfig


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
    way = LoopsWay(model, settings.precision == "bf16")
    kinds = way.kinds()
    if not kinds:
        return "compile off: no loops for this network"
    line, is_there = compiler.prepare(kinds)
    way.notes.append(line)
    return way if is_there else line


class _Step:
    """Modules called one after the other, and the link that computes them by loops, if any."""

    def __init__(self, modules: Sequence[nn.Module], link: Link | None, rounds: bool) -> None:
        self.modules, self.link, self._rounds = modules, link, rounds

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of loops that it takes."""
        if len(self.modules) == 3:
            return blocks.kinds(self.modules[0]) or ()
        if self.link is None:
            return ()
        return compiler.CONVOLUTIONS if len(self.modules) == 1 else compiler.LINEAR

    def has_hooks(self) -> bool:
        return any(
            each._forward_hooks or each._forward_pre_hooks or each._backward_hooks
            for each in self.modules
        )

    def call(self, features: Tensor) -> Tensor:
        """Return what the modules make of features."""
        with RoundToBf16() if self._rounds else contextlib.nullcontext():
            for module in self.modules:
                features = module(features)
        return features


def _step(modules: Sequence[nn.Module], rounds: bool) -> _Step:
    """Return the first step of modules."""
    link: Link | None
    if blocks.is_block(modules[:3]):
        return _Step(modules[:3], blocks.link(modules[0]), rounds)
    if len(modules) > 1 and (link := linear.link(modules[:2], rounds)) is not None:
        return _Step(modules[:2], link, rounds)
    return _Step(modules[:1], convolution.link(modules[0], rounds), rounds)


class LoopsWay:
    """A sequence of modules on a CPU; loops compute those that they know, torch the others.

    It computes the same function as the modules. A module that has a hook is called as it is.
    """

    name = "loops-6"
    """Another one than an older version's, whose sums were in another order."""

    def __init__(self, model: nn.Module, rounds: bool) -> None:
        self.model = model
        # Not `children`, which leaves out a module that stands in two places.
        modules = [module for module in model._modules.values() if module is not None]
        self._steps: list[_Step] = []
        while modules:
            step = _step(modules, rounds)
            self._steps.append(step)
            del modules[: len(step.modules)]
        self.notes: list[str] = []
        if rounds:  # faster than bf16 instructions with torch's convolutions (performance.md)
            self.notes.append("bf16: rounded values, summed in fp32 at about fp32's speed")

    def kinds(self) -> list[str]:
        """Return the kinds of loops that must be prepared; none where they would do nothing."""
        kinds = dict.fromkeys(kind for step in self._steps for kind in step.kinds())
        others = [kind for kind in kinds if kind not in compiler.LINEAR]  # which begins no chain
        return [*compiler.COMMON, *kinds] if others else []

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's output for normalised images, in the run's precision."""
        chain = Chain(images)
        for step in self._steps:
            if step.link is None or step.has_hooks() or not chain.add(step.link):
                chain = Chain(step.call(chain.run()))
        return chain.run()

    def context(self, batch_size: int) -> contextlib.AbstractContextManager[None]:
        """Return the context in which batches of this size are trained on or scored."""
        return threads.for_batches(batch_size)

    def capture(self, score: Score, images: Tensor, labels: Tensor) -> Score:
        """Return `score`: it is called as it is."""
        return score

"""Steps of a network that loops compute, one after the other, as a single operation of autograd.

Between them are arrays. What torch does around an operation, forward and backward, takes longer
than most loops do on a batch of two images (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groupnorm_bench.fast.loops import Values, Work

MapShape = tuple[int, int, int, int]
"""Of maps: [N, H, W, C]."""


Grads = Callable[[], Sequence[Values]]
"""Gradients of parameters; to be called once all is written."""


class Link(Protocol):
    """A step that loops compute, on maps in float32; the loops must be prepared."""

    keeps_maps: bool
    """Whether the backward pass needs what the step was given, and puts the gradient there."""
    gives_grad: bool
    """Whether what it was given has a gradient."""
    begins: bool
    """Whether it may stand first."""
    is_flat: bool
    """Whether it makes rows [N, C] of them, as maps [N, 1, 1, C]: then it stands last."""
    parameters: Sequence[Tensor]

    def output_shape(self, shape: MapShape) -> MapShape | None:
        """Return the shape of what it makes of maps of a shape; None if it does not take them."""

    def forward(self, work: Work, maps: Values) -> tuple[Values, Any]:
        """Return what it makes of maps, and what the backward pass shall get.

        `maps` and what is returned are written once `work` is finished, as below.
        """

    def backward(
        self, work: Work, grad: Values, maps: Any, saved: Any, needs_grad: bool
    ) -> tuple[Values | None, Grads]:
        """Return the gradient of the maps, where it is needed, and those of the parameters.

        Args:
            work: that writes `grad`, and will write the gradient.
            grad: of what `forward` returned.
            maps: what it was given, if it `keeps_maps`.
            saved: what it returned for this.
            needs_grad: whether the gradient of the maps is needed.
        """


class Chain:
    """Links that wait to be run on features [N, C, H, W]."""

    def __init__(self, features: Tensor) -> None:
        self._features = features
        self._links: list[Link] = []
        self._shape: MapShape | None = None
        is_plain = features.dtype == torch.float32 and features.device.type == "cpu"
        if is_plain and features.dim() == 4:
            num_images, channels, height, width = features.shape
            self._shape = num_images, height, width, channels

    def add(self, link: Link) -> bool:
        """Add a link, unless it does not take what would be given to it; return whether it does."""
        shape = self._shape and link.output_shape(self._shape)
        if not shape:
            return False
        if self._links:
            if not link.gives_grad or self._links[-1].is_flat:
                return False
        elif not link.begins:
            return False
        elif link.keeps_maps:  # in place of what it is given goes the gradient: no copy will do
            if not self._features.is_contiguous(memory_format=torch.channels_last):
                return False
        elif self._features.requires_grad and not link.gives_grad:
            return False
        self._links.append(link)
        self._shape = shape
        return True

    def run(self) -> Tensor:
        """Return what the links make of the features, in channels-last."""
        if not self._links:
            return self._features
        if torch.is_grad_enabled():
            parameters = [each for link in self._links for each in link.parameters]
            return _Run.apply(self._features, self._links, *parameters)
        maps, work = _maps(self._features), Work(len(self._features))
        for link in self._links:
            maps, _ = link.forward(work, maps)
        work.finish()
        return _output(maps, self._links)


class _Run(torch.autograd.Function):
    """(features [N, C, H, W], links, their parameters) -> features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, links: list[Link], *parameters: Tensor) -> Tensor:
        if links[0].keeps_maps:
            ctx.save_for_backward(features)
        ctx.links, ctx.kept = links, []
        maps, work = _maps(features), Work(len(features))
        for link in links:
            output, saved = link.forward(work, maps)
            ctx.kept.append((maps if link.keeps_maps else None, saved))
            maps = output
        work.finish()
        return _output(maps, links)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features = ctx.saved_tensors
        if not ctx.kept:
            raise RuntimeError("a second backward pass: what the first one needed is overwritten")
        maps_grad: Values | None = _maps(grad[..., None, None] if ctx.links[-1].is_flat else grad)
        work = Work(len(grad))
        grads: list[Grads] = []
        for i, link in reversed(list(enumerate(ctx.links))):
            maps, saved = ctx.kept.pop()  # each is freed as soon as it is used
            if i == 0 and features:
                maps = _maps(_to_replace(features[0]))
            assert maps_grad is not None
            needs_grad = i > 0 or ctx.needs_input_grad[0]
            maps_grad, own = link.backward(work, maps_grad, maps, saved, needs_grad)
            grads.insert(0, own)
        work.finish()
        of_parameters = (torch.from_numpy(each) for own in grads for each in own())
        return None if maps_grad is None else _features(maps_grad), None, *of_parameters


def _maps(features: Tensor) -> Values:
    """Return features [N, C, H, W] as an array [N, H, W, C]: the same memory if channels-last."""
    features = features.detach().contiguous(memory_format=torch.channels_last)
    return features.permute(0, 2, 3, 1).numpy()


def _features(maps: Values) -> Tensor:
    """Return maps [N, H, W, C] as features [N, C, H, W]."""
    return torch.from_numpy(maps).permute(0, 3, 1, 2)


def _output(maps: Values, links: Sequence[Link]) -> Tensor:
    return _features(maps).flatten(1) if links[-1].is_flat else _features(maps)


def _to_replace(features: Tensor) -> Tensor:
    """Return saved features in memory that their gradient may take: their own where nobody looks.

    A training step then touches less memory. Torch refuses who looks all the same, a second
    backward pass for one, since the version of the tensor changes. Leaves, and views of what
    has a gradient, are copied.
    """
    base = features if features._base is None else features._base
    if features.is_leaf or (base.is_leaf and base.requires_grad):
        return features.clone(memory_format=torch.channels_last)
    torch.autograd.graph.increment_version(features)
    return features.detach()

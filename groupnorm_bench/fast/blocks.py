"""Norm, ReLU and 2x2 max-pool as one step on a CPU, by compiled loops.

A norm ends in a*x + c per image and channel, and relu(max_pool(a*x + c)) is
relu(a*pool(x) + c), where pool takes the maximum for a > 0 and the minimum for a < 0. So the
statistics are taken over the full tensor, everything after them works on the pooled one, four
times smaller, and the backward pass, derived by hand, writes the input's gradient once.
torch's own channels-last GroupNorm gets several times slower as groups get small; this does not.

The plain modules hold the parameters and stay the reference (`tests/fast/test_blocks.py`): state
dicts are those of `nn.GroupNorm` and `nn.BatchNorm2d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from groupnorm_bench.fast import loops
from groupnorm_bench.fast.chain import Grads, MapShape
from groupnorm_bench.fast.loops import Values, Work


def is_block(modules: Sequence[nn.Module]) -> bool:
    """Return whether these modules are a norm, ReLU and 2x2 max-pooling that runs as one step."""
    if len(modules) != 3 or type(modules[1]) is not nn.ReLU or type(modules[2]) is not nn.MaxPool2d:
        return False
    pool, plain = modules[2], nn.MaxPool2d(2)
    return kinds(modules[0]) is not None and all(
        getattr(pool, name) == getattr(plain, name) for name in nn.MaxPool2d.__constants__
    )


def kinds(norm: nn.Module) -> tuple[str, ...] | None:
    """Return the kinds of loops that a block with this norm takes; None where there are none.

    There are some for `nn.GroupNorm`, `nn.BatchNorm2d` and `nn.Identity`; not for subclasses, nor
    for norms without a scale and a shift.
    """
    if type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats:
        return ("statistics",)
    if type(norm) is nn.GroupNorm and norm.affine:
        return ("group",)
    return ("none",) if type(norm) is nn.Identity else None


def link(norm: nn.Module) -> GroupBlock | BatchBlock | PlainBlock | None:
    """Return what computes max_pool2d(relu(norm(maps)), 2) by loops; None if they cannot."""
    if kinds(norm) is None:
        return None
    if isinstance(norm, nn.GroupNorm):
        return GroupBlock(norm)
    return BatchBlock(norm) if isinstance(norm, nn.BatchNorm2d) else PlainBlock()


class _Block:
    """What all have in common; see `chain.Link`. Sides are even; parameters are float32."""

    keeps_maps = True
    gives_grad = True
    begins = True
    is_flat = False

    def __init__(self, norm: nn.Module) -> None:
        self._norm = norm
        self.parameters: Sequence[Tensor] = [
            cast(Tensor, norm.weight),
            cast(Tensor, norm.bias),
        ]

    def output_shape(self, shape: MapShape) -> MapShape | None:
        num_images, height, width, channels = shape
        has_windows = min(height, width) >= 2 and height % 2 == 0 and width % 2 == 0
        if not has_windows or any(each.dtype != torch.float32 for each in self.parameters):
            return None
        return num_images, height // 2, width // 2, channels

    def _values(self) -> tuple[Values, Values]:
        weight, bias = self.parameters
        return weight.detach().numpy(), bias.detach().numpy()


class GroupBlock(_Block):
    """A group norm's block, in one loop each way."""

    _norm: nn.GroupNorm

    def forward(self, work: Work, maps: Values) -> tuple[Values, Sequence[Values]]:
        pooled, *saved = loops.group_pool(
            work, maps, *self._values(), self._norm.num_groups, self._norm.eps
        )
        return pooled, saved

    def backward(
        self, work: Work, grad: Values, maps: Any, saved: Sequence[Values], needs_grad: bool
    ) -> tuple[Values, Grads]:
        weight, _ = self._values()
        groups = self._norm.num_groups
        maps, *grads = loops.group_unpool(work, grad, maps, weight, groups, saved)
        return maps, lambda: [loops.sum_images(each) for each in grads]


class BatchBlock(_Block):
    """A batch norm's block. In evaluation mode there is no gradient.

    Running statistics move as the module moves them.
    """

    _norm: nn.BatchNorm2d

    def output_shape(self, shape: MapShape) -> MapShape | None:
        if not self._norm.training and torch.is_grad_enabled():
            return None
        return super().output_shape(shape)

    def forward(self, work: Work, maps: Values) -> tuple[Values, Sequence[Values]]:
        norm = self._norm
        if not norm.training:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            rstd = (norm.running_var + norm.eps).rsqrt()
            statistics = norm.running_mean.numpy(), rstd.numpy()
            return loops.pool(work, maps, *self._values(), *statistics), ()
        pooled, *saved = loops.batch_pool(work, maps, *self._values(), norm.eps)
        mean, var = map(torch.from_numpy, saved[:2])
        _track(norm, mean, var, maps[..., 0].size)
        return pooled, saved

    def backward(
        self, work: Work, grad: Values, maps: Any, saved: Sequence[Values], needs_grad: bool
    ) -> tuple[Values, Grads]:
        weight, _ = self._values()
        maps, *grads = loops.batch_unpool(work, grad, maps, weight, self._norm.eps, saved)
        return maps, lambda: grads


class PlainBlock(_Block):
    """ReLU and pooling alone."""

    keeps_maps = False

    def __init__(self) -> None:
        self.parameters = ()

    def forward(self, work: Work, maps: Values) -> tuple[Values, Values]:
        return loops.relu_pool(work, maps)

    def backward(
        self, work: Work, grad: Values, maps: Any, saved: Values, needs_grad: bool
    ) -> tuple[Values, Grads]:
        return loops.relu_unpool(work, grad, saved), tuple


def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics as `nn.BatchNorm2d` does: with the unbiased variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # a plain average of all batches
        momentum = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(var * (count / (count - 1)), momentum)

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
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groupnorm_bench.fast import loops


def norm_relu_pool(
    features: Float[Tensor, "batch channels height width"], norm: nn.Module
) -> Float[Tensor, "batch channels half_height half_width"] | None:
    """Return max_pool2d(relu(norm(features)), 2), or None where the loops do not take it.

    They take float32 features in channels-last with even sides, and the norms of `kinds`; not
    gradients in evaluation mode of batch norm. Batch norm's running statistics move as the module
    moves them. Features that an operation put out hold their gradient after the backward pass.
    The loops must be prepared.
    """
    if kinds(norm) is None or not loops.fits(features):
        return None
    if type(norm) is nn.GroupNorm:
        if norm.weight.dtype != torch.float32:
            return None
        return _GroupLoops.apply(features, norm.weight, norm.bias, norm.num_groups, norm.eps)
    if type(norm) is nn.BatchNorm2d:
        if norm.weight.dtype != torch.float32:
            return None
        if norm.training:
            pooled, mean, var = _BatchLoops.apply(features, norm.weight, norm.bias, norm.eps)
            _track(norm, mean, var, features[:, 0].numel())
            return pooled
        return None if torch.is_grad_enabled() else _batch_norm_eval(features, norm)
    return _ReluPoolLoops.apply(features)


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
        return ("statistics", "group")
    return ("none",) if type(norm) is nn.Identity else None


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


def _batch_norm_eval(features: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    rstd = (norm.running_var + norm.eps).rsqrt()
    pooled, *_ = loops.pool(features, norm.weight, norm.bias, norm.running_mean, rstd)
    return pooled


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


class _BatchLoops(torch.autograd.Function):
    """(features, weight, bias, eps) -> pooled, mean [C], var [C], float32, of a batch norm."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        pooled, mean, var, *saved = loops.batch_pool(features, weight, bias, eps)
        ctx.eps = eps
        ctx.save_for_backward(features, weight, mean, var, *saved)
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return pooled, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        features, weight, *saved = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grads = loops.batch_unpool(grad, _to_replace(features), weight, ctx.eps, saved)
        return *grads, None


class _ReluPoolLoops(torch.autograd.Function):
    """max_pool2d(relu(features), 2), in one loop each way."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        pooled, places = loops.relu_pool(features)
        ctx.save_for_backward(places)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        return loops.relu_unpool(grad.contiguous(memory_format=torch.channels_last), places)


class _GroupLoops(torch.autograd.Function):
    """(features, weight, bias, num_groups, eps) -> pooled of a group norm, in one loop each way."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        pooled, *saved = loops.group_pool(features, weight, bias, num_groups, eps)
        ctx.num_groups = num_groups
        ctx.save_for_backward(features, weight, *saved)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, *saved = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grads = loops.group_unpool(grad, _to_replace(features), weight, ctx.num_groups, saved)
        return *grads, None, None

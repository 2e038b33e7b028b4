"""The fast path on a CPU: norm, ReLU and 2x2 max-pool as one step.

A norm ends in a*x + c per image and channel, and relu(max_pool(a*x + c)) is
relu(a*pool(x) + c), where pool takes the maximum for a > 0 and the minimum for a < 0. So the
statistics are taken over the full tensor, everything after them works on the pooled one, four
times smaller, and the backward pass, derived by hand, writes the input's gradient once.
torch's own channels-last GroupNorm gets several times slower as groups get small; this does not.

The plain modules hold the parameters and stay the reference (`tests/test_fused.py`): state dicts
are those of `nn.GroupNorm` and `nn.BatchNorm2d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from groupnorm_bench.fast import loops

_PIXELS = (2, 3)  # height and width


def norm_relu_pool(
    features: Float[Tensor, "batch channels height width"],
    norm: nn.Module,
    use_loops: bool = False,
) -> Float[Tensor, "batch channels half_height half_width"] | None:
    """Return max_pool2d(relu(norm(features)), 2), or None where there is no fast way to it.

    There is one on a CPU for `nn.GroupNorm`, `nn.BatchNorm2d` (which updates its running
    statistics as the module does) and `nn.Identity`; not for subclasses, nor for norms without
    a scale and a shift, nor for gradients in evaluation mode of batch norm. `use_loops` takes the
    loops of `compiled`, which must be prepared, where they fit; features that an operation put out
    then hold their gradient after the backward pass.
    """
    if features.device.type != "cpu" or min(features.shape[2:]) < 2 or not has_block(norm):
        return None
    if type(norm) is nn.Identity:
        if use_loops and features.dtype == torch.float32 and loops.fits(features, torch.float32):
            return _ReluPoolLoops.apply(features)
        return F.relu(F.max_pool2d(features, 2))
    use_loops = use_loops and loops.fits(features, cast(Tensor, norm.weight).dtype)
    if type(norm) is nn.GroupNorm:
        if use_loops and features.dtype == norm.weight.dtype:
            return _GroupLoops.apply(features, norm.weight, norm.bias, norm.num_groups, norm.eps)
        pooled, *_ = _NormReluPool.apply(
            features, norm.weight, norm.bias, norm.num_groups, norm.eps, use_loops
        )
        return pooled
    if type(norm) is nn.BatchNorm2d:
        if norm.training:
            pooled, mean, var = _NormReluPool.apply(
                features, norm.weight, norm.bias, None, norm.eps, use_loops
            )
            _track(norm, mean, var, len(features) * features.shape[2] * features.shape[3])
            return pooled
        if not torch.is_grad_enabled():
            return _batch_norm_eval(features, norm, use_loops)
    return None


def is_block(modules: Sequence[nn.Module]) -> bool:
    """Return whether these modules are a norm, ReLU and 2x2 max-pooling that runs as one step."""
    if len(modules) != 3 or type(modules[1]) is not nn.ReLU or type(modules[2]) is not nn.MaxPool2d:
        return False
    pool = modules[2]
    plain = nn.MaxPool2d(2)
    return has_block(modules[0]) and all(
        getattr(pool, name) == getattr(plain, name) for name in nn.MaxPool2d.__constants__
    )


def has_block(norm: nn.Module) -> bool:
    """Return whether `norm_relu_pool` trains this norm on a CPU."""
    if type(norm) is nn.BatchNorm2d:
        return norm.affine and norm.track_running_stats
    return type(norm) is nn.Identity or (type(norm) is nn.GroupNorm and norm.affine)


def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics as `nn.BatchNorm2d` does: with the unbiased variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # a plain average of all batches
        momentum = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.flatten(), momentum)
    norm.running_var.lerp_(var.flatten() * (count / (count - 1)), momentum)


def _batch_norm_eval(features: Tensor, norm: nn.BatchNorm2d, use_loops: bool) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    rstd = (norm.running_var + norm.eps).rsqrt()
    if use_loops:
        exact = features.to(rstd.dtype)
        pooled, *_ = loops.pool(exact, norm.weight, norm.bias, norm.running_mean[None], rstd[None])
        return pooled.to(features.dtype)
    peaks, _ = _pool(features, norm.weight)
    mean, scale, shift = _maps(norm.running_mean, norm.weight * rstd, norm.bias)
    return torch.addcmul(shift, peaks - mean, scale).relu_().to(features.dtype)


def _maps(*values: Tensor) -> tuple[Tensor, ...]:
    """Shape [N, C] or [C] as [N or 1, C, 1, 1]."""
    return tuple(value.reshape(-1, value.shape[-1], 1, 1) for value in values)


def _blocks(values: Tensor, num_groups: int | None) -> Tensor:
    """Average [N, C] over what shares a mean and a variance, and spread it out again.

    Groups of channels within an image, [N, C]; for None, batch norm, the images: [1, C].
    """
    if num_groups is None:
        return values.mean(0, keepdim=True)
    if num_groups == values.shape[1]:
        return values
    groups = values.unflatten(1, (num_groups, -1))
    return groups.mean(2, keepdim=True).expand_as(groups).flatten(1)


def _pool(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2x2 to the entry that max-pooling after the norm picks: values, and their places.

    That is the first largest where a channel's scale is positive, the first smallest where it is
    negative, and the first where it is 0.
    """
    if bool((weight > 0).all()):
        return torch.ops.aten.max_pool2d_with_indices(features, [2, 2], [2, 2])
    signed = features * weight.sign().to(features.dtype)[:, None, None]
    _, places = torch.ops.aten.max_pool2d_with_indices(signed, [2, 2], [2, 2])
    peaks = features.flatten(2).gather(2, places.flatten(2)).view(places.shape)
    return peaks.contiguous(memory_format=torch.channels_last), places


def _to_replace(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Return saved features in memory that their gradient may take: their own where nobody looks.

    A training step then touches less memory. Torch refuses who looks all the same, a second
    backward pass for one, since the version of the tensor changes. Leaves, and views of what
    has a gradient, are copied.
    """
    if features.dtype != dtype:
        return features.to(dtype)
    base = features if features._base is None else features._base
    if features.is_leaf or (base.is_leaf and base.requires_grad):
        return features.clone(memory_format=torch.channels_last)
    torch.autograd.graph.increment_version(features)
    return features.detach()


class _NormReluPool(torch.autograd.Function):
    """(features, weight, bias, num_groups or None for batch norm, eps, use_loops).

    Returns pooled, mean, var; statistics are [N, C] for groups and [1, C] for batch norm.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        num_groups: int | None,
        eps: float,
        use_loops: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = torch.promote_types(features.dtype, weight.dtype)
        if use_loops:
            means, variances = loops.moments(features.to(exact))
        else:  # two passes: E[x^2] - E[x]^2 would cancel where the mean is far from 0
            means = features.mean(_PIXELS, dtype=exact)  # [N, C]
            variances = (features - means[:, :, None, None]).square_().mean(_PIXELS)
        mean = _blocks(means, num_groups)
        var = _blocks(variances + (means - mean).square(), num_groups)
        rstd = (var + eps).rsqrt()
        if use_loops:
            pooled, centred, places = loops.pool(features.to(exact), weight, bias, mean, rstd)
        else:
            peaks, places = _pool(features, weight)
            centred = peaks - mean[:, :, None, None]
            scale, shift = _maps(weight * rstd, bias)
            pooled = torch.addcmul(shift, centred, scale).relu_()
        pooled = pooled.to(features.dtype)
        ctx.num_groups, ctx.use_loops = num_groups, use_loops
        saved = None if use_loops else pooled  # the loops' places tell where ReLU gave 0
        ctx.save_for_backward(features, weight, mean, rstd, centred, places, saved)
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return pooled, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None, None
        features, weight, mean, rstd, centred, places, pooled = ctx.saved_tensors
        num_pixels = features.shape[2] * features.shape[3]
        dtype, exact = features.dtype, centred.dtype
        grad = grad.to(exact).contiguous(memory_format=torch.channels_last)
        if ctx.use_loops:
            grad_sums, product_sums = loops.sum_grads(grad, places, centred)
        else:
            features, pooled = features.to(exact), pooled.to(exact)
            grad = torch.ops.aten.threshold_backward(grad, pooled, 0)
            grad_sums, product_sums = grad.sum(_PIXELS), (grad * centred).sum(_PIXELS)  # [N, C]
        # With g the unpooled gradient and averages over each block of statistics:
        # dx = rstd * (w*g - mean(w*g) - x_hat * mean(w*g*x_hat))
        product_sums = product_sums * rstd  # with x_hat; rstd**3 would underflow for huge values
        slope = _blocks(weight * product_sums, ctx.num_groups) * rstd * rstd / -num_pixels
        level = _blocks(weight * grad_sums, ctx.num_groups) * rstd / -num_pixels - slope * mean
        scale = weight * rstd
        if ctx.use_loops:
            features = _to_replace(features, exact)
            features_grad = loops.unpool(grad, places, features, slope, level, scale)
        else:
            slope, level, scale = _maps(slope, level, scale)
            features_grad = torch.ops.aten.max_pool2d_with_indices_backward(
                grad * scale, features, [2, 2], [2, 2], [0, 0], [1, 1], False, places
            )
            features_grad.addcmul_(features, slope).add_(level)
        return features_grad.to(dtype), product_sums.sum(0), grad_sums.sum(0), None, None, None


class _ReluPoolLoops(torch.autograd.Function):
    """max_pool2d(relu(features), 2), float32, in one compiled loop each way."""

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
    """The pooled output of `_NormReluPool` for groups, float32, in one compiled loop each way."""

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
        features = _to_replace(features, features.dtype)
        grads = loops.group_unpool(grad, features, weight, ctx.num_groups, saved)
        return *grads, None, None

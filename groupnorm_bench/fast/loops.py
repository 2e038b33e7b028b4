"""Tensors in, tensors out: the loops of `kernels`, which must be prepared (`compiler.prepare`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groupnorm_bench.fast.compiler import kernels
from groupnorm_bench.fast.threads import share

_NUM_SUMS = 4
"""Partial sums over a batch, whatever the number of threads: so no bit depends on it."""


def fits(features: Tensor) -> bool:
    """Return whether the norm blocks take [N, C, H, W]: float32, channels-last, even sides."""
    return (
        features.dtype == torch.float32
        and features.device.type == "cpu"
        and min(features.shape[2:]) >= 2
        and features.shape[2] % 2 == 0
        and features.shape[3] % 2 == 0
        and features.is_contiguous(memory_format=torch.channels_last)
    )


def batch_pool(
    features: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return max_pool2d(relu(batch_norm(features)), 2), the batch's mean and variance, and more.

    Args:
        features: [N, C, H, W], channels-last, as the first and the fourth result are.
        weight, bias: [C].
        eps: added to the variance.

    Returns:
        pooled; mean [C]; var [C]; the peaks less their mean; their places, 0 to 3 in each window,
        and 4 where ReLU gives 0.
    """
    num_images, channels = features.shape[:2]
    means, variances, rows, scales = np.empty((4, num_images, channels), np.float32)
    mean, var = torch.empty(channels), torch.empty(channels)
    share(kernels().moments, num_images, _pixels(features), means, variances)
    factors = weight.detach().numpy()
    kernels().merge_moments(means, variances, factors, eps, mean.numpy(), var.numpy(), rows, scales)
    pooled, centred, places = _pool(features, np.sign(factors), rows, scales, bias)
    return pooled, mean, var, centred, places


def batch_unpool(
    grad: Tensor, features: Tensor, weight: Tensor, eps: float, saved: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of features, which they replace, of weight and of bias.

    `saved` is the rest of what `batch_pool` returned.
    """
    num_images, channels, height, width = features.shape
    mean, var, centred, places = (values.numpy() for values in saved)
    sums, products, slopes, levels, scales = np.empty((5, num_images, channels), np.float32)
    weight_grad, bias_grad = torch.empty(channels), torch.empty(channels)
    gradient, pixels = _pixels(grad), _pixels(features)
    share(kernels().sum_grads, num_images, gradient, places, centred, sums, products)
    kernels().merge_grads(
        *(sums, products, weight.detach().numpy(), mean, var, eps, height * width),
        *(weight_grad.numpy(), bias_grad.numpy(), slopes, levels, scales),
    )
    share(kernels().unpool, num_images, gradient, places, slopes, levels, scales, pixels)
    return features, weight_grad, bias_grad


def pool(
    features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return max_pool2d(relu(norm(features)), 2), the peaks less their mean, and their places.

    Args:
        features: as in `batch_pool`.
        weight, bias, mean, rstd: [C].
    """
    rows, scales = (_rows(values, len(features)) for values in (mean, weight * rstd))
    return _pool(features, weight.detach().sign().numpy(), rows, scales, bias)


def _pool(
    features: Tensor, sign: Any, means: Any, scales: Any, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    pooled, centred = _like_pooled(features), _like_pooled(features)
    places = _like_pooled(features, torch.int8)
    share(
        kernels().pool,
        len(features),
        *(_pixels(features), sign, means, scales, bias.detach().numpy()),
        *(centred.numpy(), places.numpy(), pooled.numpy()),
    )
    return pooled.permute(0, 3, 1, 2), centred, places


def relu_pool(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return max_pool2d(relu(features), 2), channels-last as features are, and places of peaks."""
    pooled, places = _like_pooled(features), _like_pooled(features, torch.int8)
    arrays = _pixels(features), places.numpy(), pooled.numpy()
    share(kernels().relu_pool, len(features), *arrays)
    return pooled.permute(0, 3, 1, 2), places


def relu_unpool(grad: Tensor, places: Tensor) -> Tensor:
    """Return the gradient of features; `places` is from `relu_pool`."""
    num_images, channels, height, width = grad.shape
    pixels = torch.empty(num_images, 2 * height, 2 * width, channels)
    share(kernels().relu_unpool, num_images, _pixels(grad), places.numpy(), pixels.numpy())
    return pixels.permute(0, 3, 1, 2)


def group_pool(
    features: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
) -> tuple[Tensor, ...]:
    """Return what `pool` does, and the means and rstds of the groups, each [N, C]."""
    num_images, channels = features.shape[:2]
    means, rstds = torch.empty(2, num_images, channels).unbind()
    pooled, centred = _like_pooled(features), _like_pooled(features)
    places = _like_pooled(features, torch.int8)
    share(
        kernels().group_pool,
        num_images,
        _pixels(features),
        weight.detach().numpy(),
        bias.detach().numpy(),
        num_groups,
        eps,
        *(values.numpy() for values in (means, rstds, centred, places, pooled)),
    )
    return pooled.permute(0, 3, 1, 2), centred, places, means, rstds


def group_unpool(
    grad: Tensor,
    features: Tensor,
    weight: Tensor,
    num_groups: int,
    saved: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of features, which they replace, of weight and of bias.

    `saved` is the rest of what `group_pool` returned.
    """
    centred, places, means, rstds = (values.numpy() for values in saved)
    sums, products = torch.empty(2, *features.shape[:2]).unbind()
    share(
        kernels().group_unpool,
        len(features),
        _pixels(grad),
        places,
        centred,
        weight.detach().numpy(),
        num_groups,
        means,
        rstds,
        sums.numpy(),
        products.numpy(),
        _pixels(features),
    )
    return features, products.sum(0), sums.sum(0)


def _like_pooled(features: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return room [N, H / 2, W / 2, C] for something of each window."""
    num_images, channels, height, width = features.shape
    return torch.empty(num_images, height // 2, width // 2, channels, dtype=dtype)


def takes_one_channel(images: Tensor, weight: Tensor) -> bool:
    """Return whether `correlate` takes these images [N, 1, H, W] and this kernel."""
    side = kernels().SIDE
    return (
        images.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (side, side)
        and images.shape[3] % 4 == 0
        and len(weight) % kernels().LANES == 0
    )


def correlate(padded: Tensor, taps: Tensor, bias: Tensor, rounds: bool) -> Tensor:
    """Return the convolution [N, C, H, W], channels-last, of one channel; it may round to bf16.

    Args:
        padded: [N, H + 4, W + 4].
        taps: [25, C].
        bias: [C].
        rounds: whether to round what is returned.
    """
    num_images, height, width = padded.shape
    side = kernels().SIDE - 1
    pixels = torch.empty(num_images, height - side, width - side, taps.shape[1])
    arrays = padded.numpy(), taps.contiguous().numpy(), bias.numpy(), rounds, pixels.numpy()
    share(kernels().correlate, num_images, *arrays)
    return pixels.permute(0, 3, 1, 2)


def correlate_grads(padded: Tensor, grad: Tensor, rounds: bool) -> Tensor:
    """Return the gradients of taps and bias, [26, C]; `grad` [N, C, H, W] may be rounded first."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    arrays = padded.numpy(), _pixels(grad), rounds
    parts = share(kernels().correlate_grads, len(grad), *arrays, num_parts=_NUM_SUMS)
    return torch.from_numpy(sum(parts))


def takes_kernel(images: Tensor, weight: Tensor) -> bool:
    """Return whether `to_spectra` and `mix` take these images and this kernel."""
    side, lanes = kernels().SIDE, kernels().LANES
    return (
        images.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (side, side)
        and max(images.shape[2:]) + side // 2 <= kernels().PERIOD
        and weight.shape[0] % lanes == 0
        and weight.shape[1] % lanes == 0
    )


def to_spectra(maps: Tensor, rounds: bool) -> Tensor:
    """Return spectra [frequencies, N, 2 * C] of maps [N, C, H, W], rounded to bf16 or not.

    The real parts of all channels, then the imaginary ones; frequency zero comes first.
    """
    num_images, channels = maps.shape[:2]
    spectra = torch.empty(kernels().NUM_HALF * kernels().PERIOD, num_images, 2 * channels)
    maps = maps.contiguous(memory_format=torch.channels_last)
    share(kernels().to_spectra, num_images, _pixels(maps), rounds, spectra.numpy())
    return spectra


def from_spectra(spectra: Tensor, rounds: bool, height: int, width: int) -> Tensor:
    """Return maps [N, C, height, width], channels-last, rounded or not: `to_spectra` transposed."""
    num_images, channels = spectra.shape[1], spectra.shape[2] // 2
    pixels = torch.empty(num_images, height, width, channels)
    share(kernels().from_spectra, num_images, spectra.numpy(), rounds, pixels.numpy())
    return pixels.permute(0, 3, 1, 2)


def mix(spectra: Tensor, weight: Tensor) -> Tensor:
    """Return spectra of the convolution of a weight [O, C, 5, 5] with what `spectra` are of."""
    return _mix(spectra, weight.permute(1, 2, 3, 0), 1)


def mix_back(spectra: Tensor, weight: Tensor) -> Tensor:
    """Return spectra of the gradient of images, from those of the output's: `mix` transposed."""
    return _mix(spectra, weight.permute(0, 2, 3, 1), -1)


def _mix(spectra: Tensor, kernel: Tensor, sign: float) -> Tensor:
    """See `kernels.mix`; `kernel` is [A, 5, 5, B]."""
    channels = kernel.shape[3]
    mixed = torch.empty(*spectra.shape[:2], 2 * channels)
    num_parts = kernels().NUM_HALF * channels // kernels().LANES
    arrays = spectra.numpy(), kernel.detach().contiguous().numpy(), sign, mixed.numpy()
    share(kernels().mix, num_parts, *arrays)
    return mixed


def mix_grads(spectra: Tensor, grads: Tensor) -> Tensor:
    """Return the gradient of a weight [O, C, 5, 5], channels-last.

    Args:
        spectra: of images.
        grads: spectra of the gradient of their convolution.
    """
    channels, outputs, side = spectra.shape[2] // 2, grads.shape[2] // 2, kernels().SIDE
    columns = torch.empty(kernels().NUM_HALF, outputs, side, 2 * channels).numpy()
    num_parts = kernels().NUM_HALF * outputs // kernels().OUTPUTS_AT_ONCE
    share(kernels().mix_grads, num_parts, spectra.numpy(), grads.numpy(), columns)
    kernel = torch.empty(outputs, side, side, channels)
    share(kernels().sum_columns, outputs, columns, kernel.numpy())
    return kernel.permute(0, 3, 1, 2)


def _pixels(maps: Tensor) -> Any:
    """Return [N, C, H, W] in channels-last as an array [N, H, W, C]."""
    return maps.detach().permute(0, 2, 3, 1).numpy()


def _rows(values: Tensor, num_images: int) -> Any:
    return values.detach().expand(num_images, -1).contiguous().numpy()

"""Tensors in, tensors out: the loops of `kernels`, which must be prepared (`compiler.prepare`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance over the pixels of features [N, C, H, W]: each [N, C]."""
    means, variances = torch.empty(2, *features.shape[:2]).unbind()
    share(kernels().moments, len(features), _pixels(features), means.numpy(), variances.numpy())
    return means, variances


def pool(
    features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return max_pool2d(relu(norm(features)), 2), the peaks less their mean, and their places.

    Places are 0 to 3 in each window, and 4 where ReLU gives 0.

    Args:
        features: [N, C, H, W], channels-last, as the first two results are.
        weight, bias: [C].
        mean, rstd: [N or 1, C].
    """
    num_images = len(features)
    pooled, centred = _like_pooled(features), _like_pooled(features)
    places = _like_pooled(features, torch.int8)
    share(
        kernels().pool,
        num_images,
        _pixels(features),
        weight.detach().sign().numpy(),
        _rows(mean, num_images),
        _rows(weight * rstd, num_images),
        bias.detach().numpy(),
        centred.numpy(),
        places.numpy(),
        pooled.numpy(),
    )
    return pooled.permute(0, 3, 1, 2), centred.permute(0, 3, 1, 2), places


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


def sum_grads(grad: Tensor, places: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums of grad behind ReLU, plain and times centred: each [N, C]."""
    sums, products = torch.empty(2, *grad.shape[:2]).unbind()
    arrays = _pixels(grad), places.numpy(), _pixels(centred), sums.numpy(), products.numpy()
    share(kernels().sum_grads, len(grad), *arrays)
    return sums, products


def unpool(
    grad: Tensor,
    places: Tensor,
    features: Tensor,
    slope: Tensor,
    level: Tensor,
    scale: Tensor,
) -> Tensor:
    """Replace features by features * slope + level, scale * grad added at each place.

    Shapes as in `pool`; slope, level and scale are [N or 1, C].
    """
    num_images = len(features)
    share(
        kernels().unpool,
        num_images,
        _pixels(grad),
        places.numpy(),
        *(_rows(values, num_images) for values in (slope, level, scale)),
        _pixels(features),
    )
    return features


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
    """Return whether `to_spectra` and `to_mixing` take these images and this square kernel."""
    period, lanes = kernels().PERIOD, kernels().LANES
    out_channels, channels, height, width = weight.shape
    return (
        images.dtype == weight.dtype == torch.float32
        and height == width
        and max(images.shape[2:]) + height // 2 <= period
        and channels % lanes == 0
        and out_channels % lanes == 0
    )


def to_spectra(maps: Tensor, rounds: bool, *, conjugate: bool = False) -> Tensor:
    """Return complex spectra [frequencies, N, C] of maps [N, C, H, W], rounded to bf16 or not."""
    return _to_spectra(maps, 0, rounds, kernels().MAP_SCALE, conjugate)


def from_spectra(
    spectra: Tensor, rounds: bool, height: int, width: int, *, conjugate: bool = False
) -> Tensor:
    """Return maps [N, C, height, width], channels-last, rounded or not: `to_spectra` transposed."""
    scale = kernels().MAP_SCALE
    return _from_spectra(spectra, 0, rounds, scale, conjugate, (height, width))


def to_mixing(weight: Tensor) -> Tensor:
    """Return complex matrices [frequencies, O, C] of a kernel [O, C, size, size].

    maps -> from_spectra(to_spectra(maps) @ matrix.T) is the convolution.
    """
    return _to_spectra(weight, weight.shape[2] // 2, False, kernels().KERNEL_SCALE, True)


def from_mixing(mixing: Tensor, size: int) -> Tensor:
    """Return a kernel [O, C, size, size] of conjugate matrices: the transpose of `to_mixing`."""
    return _from_spectra(mixing, size // 2, False, kernels().KERNEL_SCALE, False, (size, size))


def _to_spectra(maps: Tensor, offset: int, rounds: bool, scale: Any, conjugate: bool) -> Tensor:
    num_images, channels = maps.shape[:2]
    num_frequencies = kernels().NUM_HALF * kernels().PERIOD
    spectra = torch.empty(num_frequencies, num_images, channels, dtype=torch.complex64)
    maps = maps.contiguous(memory_format=torch.channels_last)
    settings = offset, rounds, scale, -1 if conjugate else 1
    share(kernels().to_spectra, num_images, _pixels(maps), *settings, _pairs(spectra))
    return spectra


def _from_spectra(
    spectra: Tensor,
    offset: int,
    rounds: bool,
    scale: Any,
    conjugate: bool,
    size: tuple[int, int],
) -> Tensor:
    _, num_images, channels = spectra.shape
    pixels = torch.empty(num_images, *size, channels)
    settings = offset, rounds, scale, -1 if conjugate else 1
    share(kernels().from_spectra, num_images, _pairs(spectra), *settings, pixels.numpy())
    return pixels.permute(0, 3, 1, 2)


def _pairs(numbers: Tensor) -> Any:
    """Return complex numbers [A, B, C] as an array [A, B, 2 * C] that shares their memory."""
    return torch.view_as_real(numbers).flatten(2).numpy()


def _pixels(maps: Tensor) -> Any:
    """Return [N, C, H, W] in channels-last as an array [N, H, W, C]."""
    return maps.detach().permute(0, 2, 3, 1).numpy()


def _rows(values: Tensor, num_images: int) -> Any:
    return values.detach().expand(num_images, -1).contiguous().numpy()

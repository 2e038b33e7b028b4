"""Arrays in, arrays out: the loops of `kernels`, which must be prepared (`compiler.prepare`).

Maps are arrays [N, H, W, C], float32 and contiguous: the memory of tensors in channels-last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groupnorm_bench.fast.compiler import kernels
from groupnorm_bench.fast.threads import share

Values = NDArray[Any]
_NUM_SUMS = 4
"""Partial sums over a batch, whatever the number of threads: so no bit depends on it."""


def room(*shape: int, dtype: torch.dtype = torch.float32) -> Values:
    """Return an array of any numbers, where torch puts its own: a whole cache line begins it."""
    return torch.empty(shape, dtype=dtype).numpy()


def sum_images(values: Values) -> Values:
    """Return the sums [C] over the images of values [N, C], in torch's order."""
    return torch.from_numpy(values).sum(0).numpy()


def batch_pool(maps: Values, weight: Values, bias: Values, eps: float) -> tuple[Values, ...]:
    """Return max_pool2d(relu(batch_norm(maps)), 2), the batch's mean and variance, and more.

    Args:
        maps: as above; the first and the fourth result are of half their height and width.
        weight, bias: [C].
        eps: added to the variance.

    Returns:
        pooled; mean [C]; var [C]; the peaks less their mean; their places, 0 to 3 in each window,
        and 4 where ReLU gives 0.
    """
    num_images, channels = len(maps), maps.shape[3]
    means, variances, rows, scales = np.empty((4, num_images, channels), np.float32)
    mean, var = np.empty((2, channels), np.float32)
    share(kernels().moments, num_images, maps, means, variances)
    kernels().merge_moments(means, variances, weight, eps, mean, var, rows, scales)
    pooled, centred, places = _pool(maps, np.sign(weight), rows, scales, bias)
    return pooled, mean, var, centred, places


def batch_unpool(
    grad: Values, maps: Values, weight: Values, eps: float, saved: Sequence[Values]
) -> tuple[Values, Values, Values]:
    """Return the gradients of maps, which they replace, of weight and of bias.

    `saved` is the rest of what `batch_pool` returned.
    """
    num_images, height, width, channels = maps.shape
    mean, var, centred, places = saved
    sums, products, slopes, levels, scales = np.empty((5, num_images, channels), np.float32)
    weight_grad, bias_grad = room(channels), room(channels)
    share(kernels().sum_grads, num_images, grad, places, centred, sums, products)
    kernels().merge_grads(
        *(sums, products, weight, mean, var, eps, height * width),
        *(weight_grad, bias_grad, slopes, levels, scales),
    )
    share(kernels().unpool, num_images, grad, places, slopes, levels, scales, maps)
    return maps, weight_grad, bias_grad


def pool(maps: Values, weight: Values, bias: Values, mean: Values, rstd: Values) -> Values:
    """Return max_pool2d(relu(norm(maps)), 2); weight, bias, mean and rstd are [C]."""
    rows = np.tile(mean, (len(maps), 1))
    scales = np.tile(weight * rstd, (len(maps), 1))
    return _pool(maps, np.sign(weight), rows, scales, bias)[0]


def _pool(
    maps: Values, sign: Values, means: Values, scales: Values, bias: Values
) -> tuple[Values, ...]:
    pooled, centred, places = _windows(maps), _windows(maps), _windows(maps, torch.int8)
    arrays = maps, sign, means, scales, bias, centred, places, pooled
    share(kernels().pool, len(maps), *arrays)
    return pooled, centred, places


def relu_pool(maps: Values) -> tuple[Values, Values]:
    """Return max_pool2d(relu(maps), 2), and places of peaks as `batch_pool` does."""
    pooled, places = _windows(maps), _windows(maps, torch.int8)
    share(kernels().relu_pool, len(maps), maps, places, pooled)
    return pooled, places


def relu_unpool(grad: Values, places: Values) -> Values:
    """Return the gradient of maps; `places` is from `relu_pool`."""
    num_images, height, width, channels = grad.shape
    pixels = room(num_images, 2 * height, 2 * width, channels)
    share(kernels().relu_unpool, num_images, grad, places, pixels)
    return pixels


def group_pool(
    maps: Values, weight: Values, bias: Values, num_groups: int, eps: float
) -> tuple[Values, ...]:
    """Return max_pool2d(relu(group_norm(maps)), 2), peaks and places as `batch_pool` does, and
    the means and rstds of the groups, each [N, C]."""
    means, rstds = np.empty((2, len(maps), maps.shape[3]), np.float32)
    pooled, centred, places = _windows(maps), _windows(maps), _windows(maps, torch.int8)
    arrays = maps, weight, bias, num_groups, eps, means, rstds, centred, places, pooled
    share(kernels().group_pool, len(maps), *arrays)
    return pooled, centred, places, means, rstds


def group_unpool(
    grad: Values, maps: Values, weight: Values, num_groups: int, saved: Sequence[Values]
) -> tuple[Values, Values, Values]:
    """Return the gradients of maps, which they replace, of weight and of bias.

    `saved` is the rest of what `group_pool` returned.
    """
    centred, places, means, rstds = saved
    sums, products = np.empty((2, len(maps), maps.shape[3]), np.float32)
    arrays = grad, places, centred, weight, num_groups, means, rstds, sums, products, maps
    share(kernels().group_unpool, len(maps), *arrays)
    return maps, sum_images(products), sum_images(sums)


def _windows(maps: Values, dtype: torch.dtype = torch.float32) -> Values:
    """Return room [N, H / 2, W / 2, C] for something of each window."""
    num_images, height, width, channels = maps.shape
    return room(num_images, height // 2, width // 2, channels, dtype=dtype)


def correlate(padded: Values, taps: Values, bias: Values, rounds: bool) -> Values:
    """Return the convolution [N, H, W, C] of one channel; it may round to bf16.

    Args:
        padded: [N, H + 4, W + 4].
        taps: [25, C].
        bias: [C].
        rounds: whether to round what is returned.
    """
    num_images, height, width = padded.shape
    side = kernels().SIDE - 1
    pixels = room(num_images, height - side, width - side, taps.shape[1])
    share(kernels().correlate, num_images, padded, taps, bias, rounds, pixels)
    return pixels


def correlate_grads(padded: Values, grad: Values, rounds: bool) -> Values:
    """Return the gradients of taps and bias, [26, C]; `grad` [N, H, W, C] may be rounded first."""
    parts = share(kernels().correlate_grads, len(grad), padded, grad, rounds, num_parts=_NUM_SUMS)
    return sum(parts)


def to_spectra(maps: Values, rounds: bool) -> Values:
    """Return spectra [frequencies, N, 2 * C] of maps, rounded to bf16 or not.

    The real parts of all channels, then the imaginary ones; frequency zero comes first.
    """
    num_images, channels = len(maps), maps.shape[3]
    spectra = room(kernels().NUM_HALF * kernels().PERIOD, num_images, 2 * channels)
    share(kernels().to_spectra, num_images, maps, rounds, spectra)
    return spectra


def from_spectra(spectra: Values, rounds: bool, height: int, width: int) -> Values:
    """Return maps [N, height, width, C], rounded or not: `to_spectra` transposed."""
    num_images, channels = spectra.shape[1], spectra.shape[2] // 2
    pixels = room(num_images, height, width, channels)
    share(kernels().from_spectra, num_images, spectra, rounds, pixels)
    return pixels


def mix(spectra: Values, kernel: Values, sign: int) -> Values:
    """Return spectra of what a convolution puts out: see `kernels.mix`.

    Args:
        spectra: of what it is given.
        kernel: [A, 5, 5, B].
        sign: 1; -1 for the gradient of what it was given, from that of its output.
    """
    channels = kernel.shape[3]
    mixed = room(*spectra.shape[:2], 2 * channels)
    num_parts = kernels().NUM_HALF * channels // kernels().LANES
    share(kernels().mix, num_parts, spectra, kernel, sign, mixed)
    return mixed


def mix_grads(spectra: Values, grads: Values) -> Values:
    """Return the gradient of a kernel [O, 5, 5, C].

    Args:
        spectra: of images.
        grads: spectra of the gradient of their convolution.
    """
    channels, outputs, side = spectra.shape[2] // 2, grads.shape[2] // 2, kernels().SIDE
    columns = room(kernels().NUM_HALF, outputs, side, 2 * channels)
    num_parts = kernels().NUM_HALF * outputs // kernels().OUTPUTS_AT_ONCE
    share(kernels().mix_grads, num_parts, spectra, grads, columns)
    kernel = room(outputs, side, side, channels)
    share(kernels().sum_columns, outputs, columns, kernel)
    return kernel

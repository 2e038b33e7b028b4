"""Arrays in, arrays out: the loops of `kernels`, which must be prepared (`compiler.prepare`).

Maps are arrays [N, H, W, C], float32 and contiguous: the memory of tensors in channels-last. What
is returned is written once the work is finished, and what is given may be written by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groupnorm_bench.fast.compiler import kernels
from groupnorm_bench.fast.threads import MIN_SHARED_BATCH, share

Values = NDArray[Any]
_NUM_SUMS = 4
"""Partial sums over a batch."""
_AT_ONCE = 16
"""Images that loops take one after the other: what they write is still in the cache."""

_Loop = tuple[Callable[..., Any], tuple[Any, ...]]


class Work:
    """Loops that wait until somebody needs what they write.

    Then those over images run one after the other on a few images, on the next few, and so on:
    what one wrote is still in the cache when the next one reads it. Threads are handed their parts
    of all that waits at once. A batch too small to be shared waits for nothing.
    """

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        self._is_small = num_images < MIN_SHARED_BATCH
        self._over_images: list[_Loop] = []
        self._beside: list[tuple[_Loop, int]] = []

    def add(self, loop: Callable[..., Any], *arguments: Any) -> None:
        """Have loop(*arguments, first, last) run over all images, after those added before it."""
        if self._is_small:
            loop(*arguments, 0, self._num_images)
        else:
            self._over_images.append((loop, arguments))

    def beside(self, length: int, loop: Callable[..., Any], *arguments: Any) -> None:
        """Have loop(*arguments, first, last) run over a range; it needs nothing that waits."""
        if self._is_small:
            loop(*arguments, 0, length)
        else:
            self._beside.append(((loop, arguments), length))

    def finish(self) -> None:
        """Run what waits."""
        if self._over_images or self._beside:
            share(self._taken(), self._num_images)

    def collect(self, loop: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run what waits, then a loop over all images; return what it returns for parts of them.

        They are `_NUM_SUMS`, whatever the number of threads: so no bit depends on it.
        """
        waiting = self._taken()

        def run(first: int, last: int) -> Any:
            waiting(first, last)
            return loop(*arguments, first, last)

        return share(run, self._num_images, num_parts=_NUM_SUMS)

    def _taken(self) -> Callable[[int, int], None]:
        waiting = partial(_run, self._over_images, self._beside, self._num_images)
        self._over_images, self._beside = [], []
        return waiting


def _run(
    over_images: Sequence[_Loop],
    beside: Sequence[tuple[_Loop, int]],
    num_images: int,
    first: int,
    last: int,
) -> None:
    """Run loops on images from first to last, and on as much of other ranges."""
    for (loop, arguments), length in beside:
        loop(*arguments, first * length // num_images, last * length // num_images)
    at_once = _AT_ONCE if len(over_images) > 1 else num_images
    for start in range(first, last, at_once):
        for loop, arguments in over_images:
            loop(*arguments, start, min(start + at_once, last))


def room(*shape: int, dtype: torch.dtype = torch.float32) -> Values:
    """Return an array of any numbers, where torch puts its own: a whole cache line begins it."""
    return torch.empty(shape, dtype=dtype).numpy()


def rounded(values: Values, rounds: bool) -> Values:
    """Return values, or a contiguous copy that is rounded to bf16."""
    if not rounds:
        return values
    copy = values.copy()
    kernels().round_all(copy.reshape(-1))
    return copy


def sum_images(values: Values) -> Values:
    """Return the sums [C] over the images of values [N, C], which are written."""
    sums = room(values.shape[1])
    kernels().sum_images(values, sums)
    return sums


def batch_pool(
    work: Work, maps: Values, weight: Values, bias: Values, eps: float
) -> tuple[Values, ...]:
    """Return max_pool2d(relu(batch_norm(maps)), 2), the batch's mean and variance, and more.

    Args:
        work: finished here, for mean and variance.
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
    work.add(kernels().moments, maps, means, variances)
    work.finish()
    kernels().merge_moments(means, variances, weight, eps, mean, var, rows, scales)
    pooled, centred, places = _pool(work, maps, np.sign(weight), rows, scales, bias)
    return pooled, mean, var, centred, places


def batch_unpool(
    work: Work, grad: Values, maps: Values, weight: Values, eps: float, saved: Sequence[Values]
) -> tuple[Values, Values, Values]:
    """Return the gradients of maps, which they replace, of weight and of bias.

    `saved` is the rest of what `batch_pool` returned.
    """
    num_images, height, width, channels = maps.shape
    mean, var, centred, places = saved
    sums, products, slopes, levels, scales = np.empty((5, num_images, channels), np.float32)
    weight_grad, bias_grad = room(channels), room(channels)
    work.add(kernels().sum_grads, grad, places, centred, sums, products)
    work.finish()
    kernels().merge_grads(
        *(sums, products, weight, mean, var, eps, height * width),
        *(weight_grad, bias_grad, slopes, levels, scales),
    )
    work.add(kernels().unpool, grad, places, slopes, levels, scales, maps)
    return maps, weight_grad, bias_grad


def pool(
    work: Work, maps: Values, weight: Values, bias: Values, mean: Values, rstd: Values
) -> Values:
    """Return max_pool2d(relu(norm(maps)), 2); weight, bias, mean and rstd are [C]."""
    rows = np.tile(mean, (len(maps), 1))
    scales = np.tile(weight * rstd, (len(maps), 1))
    return _pool(work, maps, np.sign(weight), rows, scales, bias)[0]


def _pool(
    work: Work, maps: Values, sign: Values, means: Values, scales: Values, bias: Values
) -> tuple[Values, ...]:
    pooled, centred, places = _windows(maps), _windows(maps), _windows(maps, torch.int8)
    work.add(kernels().pool, maps, sign, means, scales, bias, centred, places, pooled)
    return pooled, centred, places


def relu_pool(work: Work, maps: Values) -> tuple[Values, Values]:
    """Return max_pool2d(relu(maps), 2), and places of peaks as `batch_pool` does."""
    pooled, places = _windows(maps), _windows(maps, torch.int8)
    work.add(kernels().relu_pool, maps, places, pooled)
    return pooled, places


def relu_unpool(work: Work, grad: Values, places: Values) -> Values:
    """Return the gradient of maps; `places` is from `relu_pool`."""
    num_images, height, width, channels = grad.shape
    pixels = room(num_images, 2 * height, 2 * width, channels)
    work.add(kernels().relu_unpool, grad, places, pixels)
    return pixels


def group_pool(
    work: Work, maps: Values, weight: Values, bias: Values, num_groups: int, eps: float
) -> tuple[Values, ...]:
    """Return max_pool2d(relu(group_norm(maps)), 2), peaks and places as `batch_pool` does, and
    the means and rstds of the groups, each [N, C]."""
    means, rstds = np.empty((2, len(maps), maps.shape[3]), np.float32)
    pooled, centred, places = _windows(maps), _windows(maps), _windows(maps, torch.int8)
    arrays = maps, weight, bias, num_groups, eps, means, rstds, centred, places, pooled
    work.add(kernels().group_pool, *arrays)
    return pooled, centred, places, means, rstds


def group_unpool(
    work: Work, grad: Values, maps: Values, weight: Values, num_groups: int, saved: Sequence[Values]
) -> tuple[Values, Values, Values]:
    """Return the gradients of maps, which they replace, and each image's of weight and of bias.

    `saved` is the rest of what `group_pool` returned.
    """
    centred, places, means, rstds = saved
    sums, products = np.empty((2, len(maps), maps.shape[3]), np.float32)
    arrays = grad, places, centred, weight, num_groups, means, rstds, sums, products, maps
    work.add(kernels().group_unpool, *arrays)
    return maps, products, sums


def _windows(maps: Values, dtype: torch.dtype = torch.float32) -> Values:
    """Return room [N, H / 2, W / 2, C] for something of each window."""
    num_images, height, width, channels = maps.shape
    return room(num_images, height // 2, width // 2, channels, dtype=dtype)


def correlate(
    work: Work, maps: Values, taps: Values, bias: Values, rounds: bool
) -> tuple[Values, Values]:
    """Return the convolution [N, H, W, C] of one channel, and what it was made of.

    Args:
        work: of these images.
        maps: [N, H, W, 1].
        taps: [25, C].
        bias: [C].
        rounds: whether to round to bf16 what is given in `maps` and what is returned.

    Returns:
        the convolution; the padded images [N, H + 4, W + 4].
    """
    num_images, height, width, _ = maps.shape
    side = kernels().SIDE - 1
    padded = room(num_images, height + side, width + side)
    pixels = room(num_images, height, width, taps.shape[1])
    work.add(kernels().correlate, maps, taps, bias, rounds, padded, pixels)
    return pixels, padded


def correlate_grads(work: Work, padded: Values, grad: Values, rounds: bool) -> Values:
    """Return the gradients of taps and bias, [26, C]; `grad` [N, H, W, C] may be rounded first.

    The work is finished for them.
    """
    return sum(work.collect(kernels().correlate_grads, padded, grad, rounds))


def to_spectra(work: Work, maps: Values, rounds: bool) -> Values:
    """Return spectra [frequencies, N, 2 * C] of maps, rounded to bf16 or not.

    The real parts of all channels, then the imaginary ones; frequency zero comes first.
    """
    num_images, channels = len(maps), maps.shape[3]
    spectra = room(kernels().NUM_HALF * kernels().PERIOD, num_images, 2 * channels)
    work.add(kernels().to_spectra, maps, rounds, spectra)
    return spectra


def from_spectra(work: Work, spectra: Values, rounds: bool, height: int, width: int) -> Values:
    """Return maps [N, height, width, C], rounded or not: `to_spectra` transposed."""
    num_images, channels = spectra.shape[1], spectra.shape[2] // 2
    pixels = room(num_images, height, width, channels)
    work.add(kernels().from_spectra, spectra, rounds, pixels)
    return pixels


def mix(work: Work, spectra: Values, kernel: Values, sign: int) -> Values:
    """Return spectra of what a convolution puts out: see `kernels.mix`.

    Args:
        spectra: of what it is given; they are written.
        kernel: [A, 5, 5, B].
        sign: 1; -1 for the gradient of what it was given, from that of its output.
    """
    channels = kernel.shape[3]
    mixed = room(*spectra.shape[:2], 2 * channels)
    num_parts = kernels().NUM_HALF * channels // kernels().LANES
    work.beside(num_parts, kernels().mix, spectra, kernel, sign, mixed)
    return mixed


def mix_grads(work: Work, spectra: Values, grads: Values) -> Values:
    """Return columns of a kernel's gradient, for `sum_columns`.

    Args:
        spectra: of images.
        grads: spectra of the gradient of their convolution; they are written.
    """
    channels, outputs = spectra.shape[2] // 2, grads.shape[2] // 2
    columns = room(kernels().NUM_HALF, outputs, kernels().SIDE, 2 * channels)
    num_parts = kernels().NUM_HALF * outputs // kernels().OUTPUTS_AT_ONCE
    work.beside(num_parts, kernels().mix_grads, spectra, grads, columns)
    return columns


def sum_columns(work: Work, columns: Values) -> Values:
    """Return the gradient of a kernel [O, 5, 5, C]."""
    _, outputs, side, channels = columns.shape
    kernel = room(outputs, side, side, channels // 2)
    work.beside(outputs, kernels().sum_columns, columns, kernel)
    return kernel


def weigh(
    work: Work, rows: Values, weight: Values, bias: Values, rounds: bool
) -> tuple[Values, Values]:
    """Return what a linear layer makes of rows, and the rows, as `rounds` has them.

    Args:
        work: of these images.
        rows: [N, I].
        weight, bias: [O, I] and [O].
        rounds: whether to round rows and output to bf16.
    """
    kept = room(*rows.shape) if rounds else rows
    output = room(len(rows), len(weight))
    work.add(kernels().weigh, rows, weight, bias, rounds, kept, output)
    return output, kept


def weigh_back(
    work: Work, grad: Values, rows: Values, weight: Values, channels: int, rounds: bool
) -> tuple[Values, Values]:
    """Return the gradients of rows and of the weight, whose channels come first.

    Args:
        work: of these images.
        grad: [N, O], of what `weigh` returned.
        rows, weight: of `weigh`, whose channels come last.
        channels: how many.
        rounds: whether to round gradients to bf16.
    """
    rows_grad, weight_grad = room(*rows.shape), room(*weight.shape)
    num_pixels = rows.shape[1] // channels
    work.beside(num_pixels, kernels().weigh_grads, rows, grad, rounds, channels, weight_grad)
    work.add(kernels().weigh_back, grad, weight, rounds, rows_grad)
    return rows_grad, weight_grad

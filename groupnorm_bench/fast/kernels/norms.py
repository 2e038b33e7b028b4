"""Norm, ReLU and 2x2 max-pool: none, batch norm by its sums over images, and group norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from groupnorm_bench.fast.kernels.declare import (
    F4,
    I1,
    PIXELS,
    RANGE,
    ROW,
    ROWS,
    WINDOWS,
    inlined,
    loop,
)


@loop(PIXELS, ROWS, ROWS, RANGE)
def moments(pixels: Any, means: Any, variances: Any, first: int, last: int) -> None:
    """Write the mean and the variance over each image and channel; sides are even.

    Four pixels at once, since a sum waits for the one before it.
    """
    _, height, width, channels = pixels.shape
    total, row = np.empty(channels, F4), np.empty(channels, F4)
    for n in range(first, last):
        total[:] = 0
        for h in range(0, height, 2):
            row[:] = 0  # sums of rows, then of columns: shorter sums, smaller errors
            for w in range(0, width, 2):
                for c in range(channels):
                    above = pixels[n, h, w, c] + pixels[n, h, w + 1, c]
                    row[c] += above + (pixels[n, h + 1, w, c] + pixels[n, h + 1, w + 1, c])
            for c in range(channels):
                total[c] += row[c]
        for c in range(channels):
            means[n, c] = total[c] / F4(height * width)
        total[:] = 0
        for h in range(0, height, 2):
            row[:] = 0
            for w in range(0, width, 2):
                for c in range(channels):
                    mean = means[n, c]
                    x0, x1 = pixels[n, h, w, c] - mean, pixels[n, h, w + 1, c] - mean
                    x2, x3 = pixels[n, h + 1, w, c] - mean, pixels[n, h + 1, w + 1, c] - mean
                    row[c] += (x0 * x0 + x1 * x1) + (x2 * x2 + x3 * x3)
            for c in range(channels):
                total[c] += row[c]
        for c in range(channels):
            variances[n, c] = total[c] / F4(height * width)


@loop(PIXELS, ROW, ROWS, ROWS, ROW, PIXELS, WINDOWS, PIXELS, RANGE)
def pool(
    pixels: Any,
    sign: Any,
    mean: Any,
    scale: Any,
    shift: Any,
    centred: Any,
    places: Any,
    pooled: Any,
    first: int,
    last: int,
) -> None:
    """Write what max-pooling after the norm picks, less its mean; its place; the output.

    Places are 0 to 3, and 4 where ReLU gives 0.
    """
    _, height, width, channels = pooled.shape
    for n in range(first, last):
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    peak = pixels[n, 2 * i, 2 * j, c]
                    best, place = peak * sign[c], I1(0)
                    value = pixels[n, 2 * i, 2 * j + 1, c]
                    if value * sign[c] > best:
                        best, peak, place = value * sign[c], value, I1(1)
                    value = pixels[n, 2 * i + 1, 2 * j, c]
                    if value * sign[c] > best:
                        best, peak, place = value * sign[c], value, I1(2)
                    value = pixels[n, 2 * i + 1, 2 * j + 1, c]
                    if value * sign[c] > best:
                        peak, place = value, I1(3)
                    peak -= mean[n, c]
                    centred[n, i, j, c] = peak
                    output = peak * scale[n, c] + shift[c]
                    pooled[n, i, j, c] = F4(0) if output <= 0 else output  # NaN stays NaN
                    places[n, i, j, c] = I1(4) if output <= 0 else place


@loop(ROWS, ROWS, ROW, "f8", ROW, ROW, ROWS, ROWS)
def merge_moments(
    means: Any, variances: Any, weight: Any, eps: float, mean: Any, var: Any, rows: Any, scales: Any
) -> None:
    """Write mean and variance [C] of a batch, and what `pool` takes [N, C]: means and scales.

    Args:
        means, variances: [N, C], from `moments`.
        weight: [C].
        eps: added to the variance.
        mean, var, rows, scales: are written.
    """
    num_images, channels = means.shape
    for c in range(channels):
        total, squares = 0.0, 0.0
        for n in range(num_images):
            total += means[n, c]
        total /= num_images
        for n in range(num_images):
            distance = means[n, c] - total
            squares += variances[n, c] + distance * distance
        squares /= num_images
        mean[c], var[c] = total, squares
        rows[:, c] = mean[c]
        scales[:, c] = weight[c] / np.sqrt(squares + eps)


@loop(ROWS, ROWS, ROW, ROW, ROW, "f8", "i8", ROW, ROW, ROWS, ROWS, ROWS)
def merge_grads(
    sums: Any,
    products: Any,
    weight: Any,
    mean: Any,
    var: Any,
    eps: float,
    num_pixels: int,
    weight_grad: Any,
    bias_grad: Any,
    slopes: Any,
    levels: Any,
    scales: Any,
) -> None:
    """Write a batch norm's gradients of weight and bias [C], and what `unpool` takes [N, C].

    With averages over the batch, dx = rstd * (w*g - mean(w*g) - x_hat * mean(w*g*x_hat)).

    Args:
        sums, products: [N, C], from `sum_grads`.
        weight, mean, var: [C].
        eps: what was added to the variance.
        num_pixels: of an image.
        weight_grad, bias_grad, slopes, levels, scales: are written.
    """
    num_images, channels = sums.shape
    for c in range(channels):
        rstd = 1 / np.sqrt(var[c] + eps)
        total, product = 0.0, 0.0
        for n in range(num_images):
            total += sums[n, c]
            product += products[n, c] * rstd
        weight_grad[c], bias_grad[c] = product, total
        share = weight[c] * rstd / (num_images * num_pixels)
        slopes[:, c] = -share * rstd * product
        levels[:, c] = share * (rstd * product * mean[c] - total)
        scales[:, c] = weight[c] * rstd


@loop(PIXELS, WINDOWS, PIXELS, RANGE)
def relu_pool(pixels: Any, places: Any, pooled: Any, first: int, last: int) -> None:
    """Write max_pool2d(relu(pixels), 2), and each peak's place: 0 to 3, or 4 where it is 0.

    Where all pixels of a window are NaN, so is its peak.
    """
    _, height, width, channels = pooled.shape
    for n in range(first, last):
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    peak, place = pixels[n, 2 * i, 2 * j, c], I1(0)
                    value = pixels[n, 2 * i, 2 * j + 1, c]
                    if value > peak:
                        peak, place = value, I1(1)
                    value = pixels[n, 2 * i + 1, 2 * j, c]
                    if value > peak:
                        peak, place = value, I1(2)
                    value = pixels[n, 2 * i + 1, 2 * j + 1, c]
                    if value > peak:
                        peak, place = value, I1(3)
                    pooled[n, i, j, c] = F4(0) if peak <= 0 else peak
                    places[n, i, j, c] = I1(4) if peak <= 0 else place


@loop(PIXELS, WINDOWS, PIXELS, RANGE)
def relu_unpool(grad: Any, places: Any, pixels_grad: Any, first: int, last: int) -> None:
    """Write the input's gradient of `relu_pool`."""
    _, height, width, channels = grad.shape
    for n in range(first, last):
        for i in range(height):
            for j in range(width):
                for place in range(4):
                    y, x = 2 * i + place // 2, 2 * j + place % 2
                    for c in range(channels):
                        is_peak = places[n, i, j, c] == place
                        pixels_grad[n, y, x, c] = grad[n, i, j, c] if is_peak else F4(0)


@loop(PIXELS, WINDOWS, PIXELS, ROWS, ROWS, RANGE)
def sum_grads(
    grad: Any, places: Any, centred: Any, sums: Any, products: Any, first: int, last: int
) -> None:
    """Write sums over each image and channel of the gradient behind ReLU, plain and weighted."""
    _, height, width, channels = grad.shape
    for n in range(first, last):
        sums[n] = 0
        products[n] = 0
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    value = F4(0) if places[n, i, j, c] == 4 else grad[n, i, j, c]
                    sums[n, c] += value
                    products[n, c] += value * centred[n, i, j, c]


@loop(PIXELS, WINDOWS, ROWS, ROWS, ROWS, PIXELS, RANGE)
def unpool(
    grad: Any,
    places: Any,
    slope: Any,
    level: Any,
    scale: Any,
    pixels: Any,
    first: int,
    last: int,
) -> None:
    """Replace pixels by their gradient: pixels * slope + level, and scale * grad at each peak."""
    _, height, width, channels = grad.shape
    for n in range(first, last):
        for i in range(height):
            for j in range(width):
                for place in range(4):
                    y, x = 2 * i + place // 2, 2 * j + place % 2
                    for c in range(channels):
                        routed = grad[n, i, j, c] * scale[n, c]
                        value = pixels[n, y, x, c] * slope[n, c] + level[n, c]
                        is_peak = places[n, i, j, c] == place
                        pixels[n, y, x, c] = value + routed if is_peak else value


_moments, _pool = inlined(moments.py_func), inlined(pool.py_func)
_sum_grads, _unpool = inlined(sum_grads.py_func), inlined(unpool.py_func)


@inlined
def _average(values: Any, num_groups: int) -> None:
    """Replace channels by their group's mean."""
    size = len(values) // num_groups
    for start in range(0, len(values), size):
        total = F4(0)
        for c in range(start, start + size):
            total += values[c]
        for c in range(start, start + size):
            values[c] = total / F4(size)


@loop(PIXELS, ROW, ROW, "i8", "f4", ROWS, ROWS, PIXELS, WINDOWS, PIXELS, RANGE)
def group_pool(
    pixels: Any,
    weight: Any,
    bias: Any,
    num_groups: int,
    eps: float,
    means: Any,
    rstds: Any,
    centred: Any,
    places: Any,
    pooled: Any,
    first: int,
    last: int,
) -> None:
    """Write a group norm's statistics and what `pool` writes, an image at a time."""
    sign = np.sign(weight)
    scales = np.empty_like(rstds)
    own = np.empty_like(weight)
    for n in range(first, last):
        _moments(pixels, means, rstds, n, n + 1)
        for c in range(len(own)):
            own[c] = means[n, c]
        _average(means[n], num_groups)
        for c in range(len(weight)):
            distance = own[c] - means[n, c]
            rstds[n, c] += distance * distance
        _average(rstds[n], num_groups)
        for c in range(len(weight)):
            rstds[n, c] = F4(1) / np.sqrt(rstds[n, c] + eps)
            scales[n, c] = weight[c] * rstds[n, c]
        _pool(pixels, sign, means, scales, bias, centred, places, pooled, n, n + 1)


@loop(
    *(PIXELS, WINDOWS, PIXELS, ROW, "i8", ROWS, ROWS),
    *(ROWS, ROWS, PIXELS, RANGE),
)
def group_unpool(
    grad: Any,
    places: Any,
    centred: Any,
    weight: Any,
    num_groups: int,
    means: Any,
    rstds: Any,
    sums: Any,
    products: Any,
    pixels: Any,
    first: int,
    last: int,
) -> None:
    """Write a group norm's gradients: of its shift, of its scale, and, over pixels, of pixels.

    With averages over each group, dx = rstd * (w*g - mean(w*g) - x_hat * mean(w*g*x_hat)).
    """
    slopes, levels, scales = np.empty_like(means), np.empty_like(means), np.empty_like(means)
    num_pixels = F4(pixels.shape[1] * pixels.shape[2])
    for n in range(first, last):
        _sum_grads(grad, places, centred, sums, products, n, n + 1)
        for c in range(len(weight)):
            products[n, c] *= rstds[n, c]
            slopes[n, c] = weight[c] * products[n, c]
            levels[n, c] = weight[c] * sums[n, c]
            scales[n, c] = weight[c] * rstds[n, c]
        _average(slopes[n], num_groups)
        _average(levels[n], num_groups)
        for c in range(len(weight)):
            slopes[n, c] *= rstds[n, c] * rstds[n, c] / -num_pixels
            levels[n, c] *= rstds[n, c] / -num_pixels
            levels[n, c] -= slopes[n, c] * means[n, c]
        _unpool(grad, places, slopes, levels, scales, pixels, n, n + 1)

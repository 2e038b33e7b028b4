"""Norm blocks, convolutions, a linear layer and rounding as loops that Numba compiles.

Tensors of pixels are [N, H, W, C] here, float32 and contiguous; statistics are [N, C]. Each loop
does images `first` to `last`, so that threads can share them; images do not depend on each other.
Loading this module compiles nothing: `prepare` does, or finds what it needs in the cache folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from groupnorm_bench.fast.vectors import LANES, fetch, fetch_to_write, fma, load, spread, store

F4, U4, I1 = np.float32, np.uint32, np.int8
_HALF, _ONE, _SIXTEEN, _UPPER = U4(0x7FFF), U4(1), U4(16), U4(0xFFFF0000)

_PIXELS, _WINDOWS, _ROWS, _ROW = "f4[:,:,:,::1]", "i1[:,:,:,::1]", "f4[:,::1]", "f4[::1]"
_IMAGES, _RANGE = "f4[:,:,::1]", "i8, i8"
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
"""Products may be fused with sums, nothing is reordered."""
_part = njit(forceinline=True, **_OPTIONS)
"""What loops are made of has no machine code of its own: that could fuse other products than the
same code within a loop, and which of the two a loop would call is up to what the cache has."""


_SIGNATURES: dict[str, str] = {}


def _loop(*arguments: str, returns: str = "void") -> Any:
    def declare(function: Any) -> Any:
        _SIGNATURES[function.__name__] = f"{returns}({', '.join(arguments)})"
        return njit(cache=True, **_OPTIONS)(function)

    return declare


@_loop("i8[::1]", "i8")
def stay_awake(flags: Any, place: int) -> None:
    """Count at `place`, without the interpreter, until flags[0] is set by another thread."""
    while flags[0] == 0:
        flags[place] += 1  # may be flags[0] for all that the compiler knows: it looks again


SIDE = 5
"""Height and width of the kernels of both convolutions, which their unrolled sums fix."""
_NUM_TAPS = SIDE * SIDE


@_part
def _round(bits: Any, count: int) -> None:
    """Round the first `count` float32 numbers, as bits, to bf16: to nearest, ties to even."""
    for i in range(count):
        u = bits[i]
        bits[i] = U4(U4(u + _HALF) + U4(U4(u >> _SIXTEEN) & _ONE)) & _UPPER


@_part
def _eight(row: Any) -> Any:
    return row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]


@_loop(_PIXELS, _ROWS, _ROW, "b1", _IMAGES, _PIXELS, _RANGE)
def correlate(
    maps: Any,
    taps: Any,
    bias: Any,
    rounds: bool,
    images: Any,
    pixels: Any,
    first: int,
    last: int,
) -> None:
    """Write the convolution of one channel, rounded to bf16 or not.

    Args:
        maps: [N, H, W, 1].
        taps: [SIDE * SIDE, C].
        bias: [C].
        rounds: whether to round.
        images: [N, H + 4, W + 4], written: the maps, rounded or not, with zeros around them.
        pixels: [N, H, W, C], written; 4 must divide W, and LANES C.
    """
    _, height, width, channels = pixels.shape
    lanes = min(LANES, channels)  # always LANES, but the compiler must not unroll
    sums = np.empty((channels // LANES, (_NUM_TAPS + 5) * LANES), F4)  # taps, bias, four pixels
    bits = sums.view(U4)
    end = _NUM_TAPS * LANES
    for block in range(len(sums)):
        for tap in range(_NUM_TAPS):
            for i in range(LANES):
                sums[block, tap * LANES + i] = taps[tap, block * LANES + i]
        for i in range(LANES):
            sums[block, end + i] = bias[block * LANES + i]
    image_bits = images.view(U4)
    for n in range(first, last):
        images[n] = 0
        for h in range(height):
            for w in range(width):
                images[n, h + SIDE // 2, w + SIDE // 2] = maps[n, h, w, 0]
            if rounds:
                _round(image_bits[n, h + SIDE // 2], width + SIDE - 1)
        for h in range(height):
            for w in range(0, width, 4):
                for block in range(len(sums)):
                    part = sums[block]
                    for i in range(lanes):
                        part[end + LANES + i] = part[end + i]
                        part[end + 2 * LANES + i] = part[end + i]
                        part[end + 3 * LANES + i] = part[end + i]
                        part[end + 4 * LANES + i] = part[end + i]
                    for row in range(SIDE):
                        x0, x1, x2, x3, x4, x5, x6, x7 = _eight(images[n, h + row, w:])
                        p = row * SIDE * LANES
                        for i in range(LANES):
                            a, b, c = part[p + i], part[p + LANES + i], part[p + 2 * LANES + i]
                            d, e = part[p + 3 * LANES + i], part[p + 4 * LANES + i]
                            part[end + LANES + i] += x0 * a + x1 * b + x2 * c + x3 * d + x4 * e
                            part[end + 2 * LANES + i] += x1 * a + x2 * b + x3 * c + x4 * d + x5 * e
                            part[end + 3 * LANES + i] += x2 * a + x3 * b + x4 * c + x5 * d + x6 * e
                            part[end + 4 * LANES + i] += x3 * a + x4 * b + x5 * c + x6 * d + x7 * e
                    if rounds:
                        _round(bits[block, end + LANES :], 4 * LANES)
                    for place in range(4):
                        target = pixels[n, h, w + place, block * LANES :]
                        source = part[end + (place + 1) * LANES :]
                        for i in range(lanes):
                            target[i] = source[i]


@_loop(_IMAGES, _PIXELS, "b1", _RANGE, returns=_ROWS)
def correlate_grads(images: Any, grad: Any, rounds: bool, first: int, last: int) -> Any:
    """Return the gradients of taps and bias, [SIDE * SIDE + 1, C]; arguments as `correlate`."""
    _, height, width, channels = grad.shape
    lanes = min(LANES, channels)
    total = np.zeros((_NUM_TAPS + 1, channels), F4)
    sums = np.empty((channels // LANES, (_NUM_TAPS + 5) * LANES), F4)
    bits = sums.view(U4)
    end = _NUM_TAPS * LANES
    for n in range(first, last):
        sums[:] = 0
        for h in range(height):
            for w in range(0, width, 4):
                for block in range(len(sums)):
                    part = sums[block]
                    for place in range(4):
                        source = grad[n, h, w + place, block * LANES :]
                        target = part[end + (place + 1) * LANES :]
                        for i in range(lanes):
                            target[i] = source[i]
                    if rounds:
                        _round(bits[block, end + LANES :], 4 * LANES)
                    for i in range(lanes):
                        a, b = part[end + LANES + i], part[end + 2 * LANES + i]
                        c, d = part[end + 3 * LANES + i], part[end + 4 * LANES + i]
                        part[end + i] += (a + b) + (c + d)
                    for row in range(SIDE):
                        x0, x1, x2, x3, x4, x5, x6, x7 = _eight(images[n, h + row, w:])
                        p = row * SIDE * LANES
                        for i in range(LANES):
                            a, b = part[end + LANES + i], part[end + 2 * LANES + i]
                            c, d = part[end + 3 * LANES + i], part[end + 4 * LANES + i]
                            part[p + i] += x0 * a + x1 * b + x2 * c + x3 * d
                            part[p + LANES + i] += x1 * a + x2 * b + x3 * c + x4 * d
                            part[p + 2 * LANES + i] += x2 * a + x3 * b + x4 * c + x5 * d
                            part[p + 3 * LANES + i] += x3 * a + x4 * b + x5 * c + x6 * d
                            part[p + 4 * LANES + i] += x4 * a + x5 * b + x6 * c + x7 * d
        for block in range(len(sums)):
            for tap in range(_NUM_TAPS + 1):
                for i in range(LANES):
                    total[tap, block * LANES + i] += sums[block, tap * LANES + i]
    return total


@_loop(_PIXELS, _ROWS, _ROWS, _RANGE)
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


@_loop(_PIXELS, _ROW, _ROWS, _ROWS, _ROW, _PIXELS, _WINDOWS, _PIXELS, _RANGE)
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


@_loop(_ROWS, _ROWS, _ROW, "f8", _ROW, _ROW, _ROWS, _ROWS)
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


@_loop(_ROWS, _ROWS, _ROW, _ROW, _ROW, "f8", "i8", _ROW, _ROW, _ROWS, _ROWS, _ROWS)
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


@_loop(_PIXELS, _WINDOWS, _PIXELS, _RANGE)
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


@_loop(_PIXELS, _WINDOWS, _PIXELS, _RANGE)
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


@_loop(_PIXELS, _WINDOWS, _PIXELS, _ROWS, _ROWS, _RANGE)
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


@_loop(_PIXELS, _WINDOWS, _ROWS, _ROWS, _ROWS, _PIXELS, _RANGE)
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


_moments, _pool = _part(moments.py_func), _part(pool.py_func)
_sum_grads, _unpool = _part(sum_grads.py_func), _part(unpool.py_func)


@_part
def _average(values: Any, num_groups: int) -> None:
    """Replace channels by their group's mean."""
    size = len(values) // num_groups
    for start in range(0, len(values), size):
        total = F4(0)
        for c in range(start, start + size):
            total += values[c]
        for c in range(start, start + size):
            values[c] = total / F4(size)


@_loop(_PIXELS, _ROW, _ROW, "i8", "f4", _ROWS, _ROWS, _PIXELS, _WINDOWS, _PIXELS, _RANGE)
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


@_loop(
    *(_PIXELS, _WINDOWS, _PIXELS, _ROW, "i8", _ROWS, _ROWS),
    *(_ROWS, _ROWS, _PIXELS, _RANGE),
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


PERIOD = 16
NUM_HALF = PERIOD // 2 + 1
"""Frequencies of the first axis: those of real numbers; the others are their conjugates."""
_NUMBER = 2 * LANES  # a complex number of each lane: real parts, then imaginary ones
_LINE = PERIOD * _NUMBER
_PLACES = np.array([4 * (f % 4) + f // 4 for f in range(PERIOD)])  # of frequencies, transformed
_TURNS = np.exp(-2j * np.pi / PERIOD * np.outer(np.arange(4), np.arange(4)))
_COS, _SIN = _TURNS.real.astype(F4).copy(), _TURNS.imag.astype(F4).copy()
_ANGLES = 2 * np.pi / PERIOD * np.outer(np.arange(PERIOD), np.arange(3))
_WAVES = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1).astype(F4)
"""Of each frequency: cosine, then sine, of 0, 1 and 2 pixels."""
_HALF_WEIGHT = np.array([1] + [2] * (NUM_HALF - 2) + [1], F4) / F4(PERIOD**2)
"""Of the frequencies of the first axis on the way back, which the spectra of kernels contain."""
_HALF_WAVES = _WAVES[:NUM_HALF] * _HALF_WEIGHT[:, None, None]


@_part
def _fourier(plane: Any, step: int, p: int, q: int) -> None:
    """Transform 16 complex numbers, `step` apart, in place, in two rounds of four at a time.

    Real parts lie at `p` and imaginary parts at `q` of each number; exchanged, that is the
    inverse. Frequency f ends at _PLACES[f]. Constant distances within one array let the compiler
    see that nothing overlaps, so that the inner loops become single instructions.
    """
    for j in range(4):
        k = j * step
        x1, y1, x2, y2 = _COS[j, 1], _SIN[j, 1], _COS[j, 2], _SIN[j, 2]
        x3, y3 = _COS[j, 3], _SIN[j, 3]
        for i in range(LANES):
            ax, ay = plane[k + p + i], plane[k + q + i]
            bx, by = plane[k + 4 * step + p + i], plane[k + 4 * step + q + i]
            cx, cy = plane[k + 8 * step + p + i], plane[k + 8 * step + q + i]
            dx, dy = plane[k + 12 * step + p + i], plane[k + 12 * step + q + i]
            sx, sy, tx, ty = ax + cx, ay + cy, ax - cx, ay - cy
            ux, uy, vx, vy = bx + dx, by + dy, by - dy, dx - bx
            plane[k + p + i], plane[k + q + i] = sx + ux, sy + uy
            zx, zy = tx + vx, ty + vy
            plane[k + 4 * step + p + i] = zx * x1 - zy * y1
            plane[k + 4 * step + q + i] = zx * y1 + zy * x1
            zx, zy = sx - ux, sy - uy
            plane[k + 8 * step + p + i] = zx * x2 - zy * y2
            plane[k + 8 * step + q + i] = zx * y2 + zy * x2
            zx, zy = tx - vx, ty - vy
            plane[k + 12 * step + p + i] = zx * x3 - zy * y3
            plane[k + 12 * step + q + i] = zx * y3 + zy * x3
    for m in range(4):
        k = 4 * m * step
        for i in range(LANES):
            ax, ay = plane[k + p + i], plane[k + q + i]
            bx, by = plane[k + step + p + i], plane[k + step + q + i]
            cx, cy = plane[k + 2 * step + p + i], plane[k + 2 * step + q + i]
            dx, dy = plane[k + 3 * step + p + i], plane[k + 3 * step + q + i]
            sx, sy, tx, ty = ax + cx, ay + cy, ax - cx, ay - cy
            ux, uy, vx, vy = bx + dx, by + dy, by - dy, dx - bx
            plane[k + p + i], plane[k + q + i] = sx + ux, sy + uy
            plane[k + step + p + i], plane[k + step + q + i] = tx + vx, ty + vy
            plane[k + 2 * step + p + i], plane[k + 2 * step + q + i] = sx - ux, sy - uy
            plane[k + 3 * step + p + i], plane[k + 3 * step + q + i] = tx - vx, ty - vy


@_part
def _spectrum(image: Any, channel: int, rounds: bool, plane: Any) -> None:
    """Transform LANES channels of an image [H, W, C], rounded or not.

    Frequency (u, v) of `plane` [PERIOD, PERIOD, 2, LANES] is then at (_PLACES[u], _PLACES[v]).
    """
    height, width, channels = image.shape
    lanes = min(LANES, channels - channel)  # always LANES, but the compiler must not unroll
    bits = plane.view(U4)
    plane[:] = 0
    for w in range(width):
        column = w * _NUMBER
        for h in range(height):
            place = h * _LINE + column
            number = plane[place:]
            source = image[h, w, channel:]
            for i in range(lanes):
                number[i] = source[i]
            if rounds:
                _round(bits[place:], lanes)
        _fourier(plane[column:], _LINE, 0, LANES)
    for u in range(NUM_HALF):
        _fourier(plane[_PLACES[u] * _LINE :], _NUMBER, 0, LANES)


@_part
def _image(plane: Any, rounds: bool, channel: int, image: Any) -> None:
    """Write LANES channels of an image [H, W, C] from frequencies (u, v) at (u, v) of `plane`."""
    height, width, channels = image.shape
    lanes = min(LANES, channels - channel)
    bits = plane.view(U4)
    for u in range(NUM_HALF):
        _fourier(plane[u * _LINE :], _NUMBER, LANES, 0)
    plane[NUM_HALF * _LINE :] = 0
    for w in range(width):
        column = _PLACES[w] * _NUMBER
        _fourier(plane[column:], _LINE, LANES, 0)
        for h in range(height):
            place = _PLACES[h] * _LINE + column
            number = plane[place:]
            if rounds:
                _round(bits[place:], lanes)
            target = image[h, w, channel:]
            for i in range(lanes):
                target[i] = number[i]


_SPECTRA = "f4[:,:,::1]"
"""Spectra [frequencies, N, 2 * C]: the real parts of all channels, then the imaginary ones.

Frequency (u, v) is at u * PERIOD + v; u is below NUM_HALF.
"""
_KERNELS = "f4[:,:,:,::1]"


@_loop(_PIXELS, "b1", _SPECTRA, _RANGE)
def to_spectra(pixels: Any, rounds: bool, spectra: Any, first: int, last: int) -> None:
    """Write spectra of pixels [N, H, W, C], rounded to bf16 or not."""
    channels = pixels.shape[3]
    planes = np.empty((channels // LANES, PERIOD * _LINE), F4)
    for n in range(first, last):
        for block in range(len(planes)):
            _spectrum(pixels[n], block * LANES, rounds, planes[block])
        for u in range(NUM_HALF):
            for v in range(PERIOD):
                place = _PLACES[u] * _LINE + _PLACES[v] * _NUMBER
                target = spectra[u * PERIOD + v, n]
                for line in range(2 * channels, 4 * channels, LANES):  # the next image's
                    fetch_to_write(target, line)
                for block in range(len(planes)):
                    real, imaginary = block * LANES, channels + block * LANES
                    store(target, real, load(planes[block], place))
                    store(target, imaginary, load(planes[block], place + LANES))


@_loop(_SPECTRA, "b1", _PIXELS, _RANGE)
def from_spectra(spectra: Any, rounds: bool, pixels: Any, first: int, last: int) -> None:
    """Write pixels, rounded to bf16 or not: `to_spectra` transposed."""
    channels = pixels.shape[3]
    planes = np.empty((channels // LANES, PERIOD * _LINE), F4)
    for n in range(first, last):
        for u in range(NUM_HALF):
            for v in range(PERIOD):
                place = u * _LINE + v * _NUMBER
                source = spectra[u * PERIOD + v, n]
                for line in range(2 * channels, 4 * channels, LANES):  # the next image's
                    fetch(source, line)
                for block in range(len(planes)):
                    real, imaginary = block * LANES, channels + block * LANES
                    store(planes[block], place, load(source, real))
                    store(planes[block], place + LANES, load(source, imaginary))
        for block in range(len(planes)):
            _image(planes[block], rounds, block * LANES, pixels[n])


@_part
def _spread_waves(waves: Any) -> Any:
    """Return cosine and sine of one pixel, then of two, each in every lane."""
    return spread(waves[0, 1]), spread(waves[1, 1]), spread(waves[0, 2]), spread(waves[1, 2])


@_part
def _expand(kernel: Any, channel: int, u: int, sign: float, columns: Any, matrix: Any) -> None:
    """Write frequencies (u, v) of LANES kernels, conjugate spectra, each a sum of five waves.

    Args:
        kernel: [SIDE, SIDE, B], whose middle is the origin.
        channel: the first of LANES of B.
        u: the frequency of the first axis.
        sign: multiplies imaginary parts: -1 for the spectra themselves.
        columns: room for [SIDE, 2 * LANES].
        matrix: [PERIOD, 2 * LANES], real parts, then imaginary ones.
    """
    c1, s1, c2, s2 = _spread_waves(_HALF_WAVES[u])
    weight = spread(_HALF_WAVES[u, 0, 0])
    for j in range(SIDE):
        k0, k1, k2 = load(kernel[0, j], channel), load(kernel[1, j], channel), kernel[2, j]
        k3, k4 = load(kernel[3, j], channel), load(kernel[4, j], channel)
        real = fma(k4 + k0, c2, fma(k3 + k1, c1, load(k2, channel) * weight))
        store(columns[j], 0, real)
        store(columns[j], LANES, fma(k4 - k0, s2, (k3 - k1) * s1))
    # What is even and what is odd in the second axis: a and b, c of 1 and 2 pixels; d, e.
    ax, ay = load(columns[2], 0), load(columns[2], LANES)
    x, y = load(columns[1], 0), load(columns[1], LANES)
    bx, by = load(columns[3], 0), load(columns[3], LANES)
    bx, by, dx, dy = bx + x, by + y, bx - x, by - y
    x, y = load(columns[0], 0), load(columns[0], LANES)
    cx, cy = load(columns[4], 0), load(columns[4], LANES)
    cx, cy, ex, ey = cx + x, cy + y, cx - x, cy - y
    signs = spread(sign)
    for v in range(4):  # and a quarter, a half, three quarters of the period on
        c1, s1, c2, s2 = _spread_waves(_WAVES[v])
        x, y = cx * c2 - ey * s2, cy * c2 + ex * s2
        px, py, qx, qy = ax + x, ay + y, ax - x, ay - y
        x, y = bx * c1 - dy * s1, by * c1 + dx * s1
        store(matrix[v], 0, px + x)
        store(matrix[v], LANES, (py + y) * signs)
        store(matrix[v + 8], 0, px - x)
        store(matrix[v + 8], LANES, (py - y) * signs)
        x, y = bx * s1 + dy * c1, by * s1 - dx * c1
        store(matrix[v + 4], 0, qx - x)
        store(matrix[v + 4], LANES, (qy - y) * signs)
        store(matrix[v + 12], 0, qx + x)
        store(matrix[v + 12], LANES, (qy + y) * signs)


@_loop(_SPECTRA, _KERNELS, "f4", _SPECTRA, _RANGE)
def mix(spectra: Any, kernel: Any, sign: float, mixed: Any, first: int, last: int) -> None:
    """Write spectra of what a convolution puts out: a product of matrices for each frequency.

    The matrices of a frequency of the first axis are made, used for all images, and forgotten:
    those of all frequencies are 46 times as large as the kernel.

    Args:
        spectra: [frequencies, N, 2 * A].
        kernel: [A, SIDE, SIDE, B].
        sign: 1, or -1 for the conjugates of the matrices.
        mixed: [frequencies, N, 2 * B].
        first, last: of NUM_HALF * B / LANES parts.
    """
    num_images = spectra.shape[1]
    inputs, _, _, outputs = kernel.shape
    matrices = np.empty((inputs, PERIOD, _NUMBER), F4)
    columns = np.empty((SIDE, _NUMBER), F4)
    for part in range(first, last):
        u, channel = part * LANES // outputs, part * LANES % outputs
        for a in range(inputs):
            _expand(kernel[a], channel, u, sign, columns, matrices[a])
        for v in range(PERIOD):
            sources, targets = spectra[u * PERIOD + v], mixed[u * PERIOD + v]
            for n in range(0, num_images, 2):
                m = min(n + 1, num_images - 1)  # the last one twice rather than alone
                x = y = z = w = spread(F4(0))
                for a in range(inputs):
                    real, imaginary = load(matrices[a, v], 0), load(matrices[a, v], LANES)
                    p, q = spread(sources[n, a]), spread(sources[n, inputs + a])
                    x, y = fma(p, real, x) - q * imaginary, fma(q, real, fma(p, imaginary, y))
                    p, q = spread(sources[m, a]), spread(sources[m, inputs + a])
                    z, w = fma(p, real, z) - q * imaginary, fma(q, real, fma(p, imaginary, w))
                store(targets[n], channel, x)
                store(targets[n], outputs + channel, y)
                store(targets[m], channel, z)
                store(targets[m], outputs + channel, w)


@_part
def _contract(spectra: Any, columns: Any, channel: int) -> None:
    """Write the five columns of kernels that frequencies (u, v) of a u give: `_expand` transposed.

    Args:
        spectra: [PERIOD, 2 * LANES].
        columns: [SIDE, 2 * C], of which LANES from `channel` on are written.
        channel: the first of them.
    """
    ax = ay = bx = by = cx = cy = dx = dy = ex = ey = spread(F4(0))
    for v in range(4):
        c1, s1, c2, s2 = _spread_waves(_WAVES[v])
        x0, x1, x2, x3 = _quarters(spectra, v, 0)
        y0, y1, y2, y3 = _quarters(spectra, v, LANES)
        x, y, p, q = x0 - x2, y0 - y2, x1 - x3, y1 - y3
        bx, by = fma(x, c1, bx) - p * s1, fma(y, c1, by) - q * s1
        dx, dy = fma(x, s1, dx) + p * c1, fma(y, s1, dy) + q * c1
        x, y, p, q = x0 + x2, y0 + y2, x1 + x3, y1 + y3
        ax, ay, x, y = ax + (x + p), ay + (y + q), x - p, y - q
        cx, cy, ex, ey = fma(x, c2, cx), fma(y, c2, cy), fma(x, s2, ex), fma(y, s2, ey)
    imaginary = columns.shape[1] // 2 + channel
    store(columns[0], channel, cx + ey)
    store(columns[0], imaginary, cy - ex)
    store(columns[1], channel, bx + dy)
    store(columns[1], imaginary, by - dx)
    store(columns[2], channel, ax)
    store(columns[2], imaginary, ay)
    store(columns[3], channel, bx - dy)
    store(columns[3], imaginary, by + dx)
    store(columns[4], channel, cx - ey)
    store(columns[4], imaginary, cy + ex)


@_part
def _quarters(spectra: Any, v: int, place: int) -> Any:
    """Return LANES numbers of frequency v, and of those a quarter of the period apart."""
    return (
        load(spectra[v], place),
        load(spectra[v + 4], place),
        load(spectra[v + 8], place),
        load(spectra[v + 12], place),
    )


OUTPUTS_AT_ONCE = 8
"""Output channels whose sums `mix_grads` takes while a frequency of the batch is in the cache."""


@_loop(_SPECTRA, _SPECTRA, _KERNELS, _RANGE)
def mix_grads(spectra: Any, grads: Any, columns: Any, first: int, last: int) -> None:
    """Write what a kernel's gradient is made of, for each frequency of the first axis.

    Args:
        spectra: [frequencies, N, 2 * C], of images.
        grads: [frequencies, N, 2 * O], of the gradient of what `mix` put out.
        columns: [NUM_HALF, O, SIDE, 2 * C].
        first, last: of NUM_HALF * O / OUTPUTS_AT_ONCE parts.
    """
    num_images, channels, outputs = len(spectra[0]), spectra.shape[2] // 2, grads.shape[2] // 2
    sums = np.empty((OUTPUTS_AT_ONCE, PERIOD, _NUMBER), F4)
    for part in range(first, last):
        u, start = part * OUTPUTS_AT_ONCE // outputs, part * OUTPUTS_AT_ONCE % outputs
        for channel in range(0, channels, LANES):
            for v in range(PERIOD):
                sources, weights = spectra[u * PERIOD + v], grads[u * PERIOD + v]
                for k in range(0, OUTPUTS_AT_ONCE, 2):
                    o = start + k
                    x = y = z = w = spread(F4(0))
                    for n in range(num_images):
                        source, weight = sources[n], weights[n]
                        real, imaginary = load(source, channel), load(source, channels + channel)
                        p, q = spread(weight[o]), spread(weight[outputs + o])
                        x, y = fma(q, imaginary, fma(p, real, x)), fma(p, imaginary, y) - q * real
                        p, q = spread(weight[o + 1]), spread(weight[outputs + o + 1])
                        z, w = fma(q, imaginary, fma(p, real, z)), fma(p, imaginary, w) - q * real
                    store(sums[k, v], 0, x)
                    store(sums[k, v], LANES, y)
                    store(sums[k + 1, v], 0, z)
                    store(sums[k + 1, v], LANES, w)
            for k in range(OUTPUTS_AT_ONCE):
                _contract(sums[k], columns[u, start + k], channel)


@_loop(_KERNELS, _KERNELS, _RANGE)
def sum_columns(columns: Any, kernel: Any, first: int, last: int) -> None:
    """Write a kernel's gradient [O, SIDE, SIDE, C] from what `mix_grads` wrote."""
    channels = kernel.shape[3]
    for o in range(first, last):
        for j in range(SIDE):
            for channel in range(0, channels, LANES):
                m = p = q = r = s = spread(F4(0))
                for u in range(NUM_HALF):
                    c1, s1, c2, s2 = _spread_waves(_HALF_WAVES[u])
                    x = load(columns[u, o, j], channel)
                    y = load(columns[u, o, j], channels + channel)
                    m = fma(x, spread(_HALF_WAVES[u, 0, 0]), m)
                    p, q, r, s = fma(x, c1, p), fma(y, s1, q), fma(x, c2, r), fma(y, s2, s)
                store(kernel[o, 0, j], channel, r + s)
                store(kernel[o, 1, j], channel, p + q)
                store(kernel[o, 2, j], channel, m)
                store(kernel[o, 3, j], channel, p - q)
                store(kernel[o, 4, j], channel, r - s)


@_loop(_ROWS, _ROWS, _ROW, "b1", _ROWS, _ROWS, _RANGE)
def weigh(
    rows: Any, weight: Any, bias: Any, rounds: bool, kept: Any, output: Any, first: int, last: int
) -> None:
    """Write what a linear layer makes of rows, rounded to bf16 or not.

    Args:
        rows: [N, I]; LANES must divide I.
        weight: [O, I].
        bias: [O].
        rounds: whether to round.
        kept: [N, I], written: the rows, rounded. May be `rows`, if nothing is.
        output: [N, O], written.
    """
    length, num_outputs = rows.shape[1], len(weight)
    kept_bits, output_bits = kept.view(U4), output.view(U4)
    sums = np.empty((4, LANES), F4)
    for n in range(first, last):
        if rounds:
            for i in range(length):
                kept[n, i] = rows[n, i]
            _round(kept_bits[n], length)
    for n in range(first, last, 2):
        m = min(n + 1, last - 1)  # the last one twice rather than alone; so with outputs
        for o in range(0, num_outputs, 2):
            p = min(o + 1, num_outputs - 1)
            x = y = z = w = spread(F4(0))
            for i in range(0, length, LANES):
                a, b = load(kept[n], i), load(kept[m], i)
                c, d = load(weight[o], i), load(weight[p], i)
                x, y, z, w = fma(a, c, x), fma(a, d, y), fma(b, c, z), fma(b, d, w)
            store(sums[0], 0, x)
            store(sums[1], 0, y)
            store(sums[2], 0, z)
            store(sums[3], 0, w)
            half = LANES // 2
            while half > 0:
                for k in range(4):
                    for i in range(half):
                        sums[k, i] += sums[k, i + half]
                half //= 2
            output[n, o], output[n, p] = sums[0, 0] + bias[o], sums[1, 0] + bias[p]
            output[m, o], output[m, p] = sums[2, 0] + bias[o], sums[3, 0] + bias[p]
    if rounds:
        for n in range(first, last):
            _round(output_bits[n], num_outputs)


@_loop(_ROWS, _ROWS, "b1", _ROWS, _RANGE)
def weigh_back(grad: Any, weight: Any, rounds: bool, rows_grad: Any, first: int, last: int) -> None:
    """Write the gradient [N, I] of the rows of `weigh` from that of its output, [N, O]."""
    num_outputs, length = weight.shape
    bits = rows_grad.view(U4)
    for n in range(first, last, 2):
        m = min(n + 1, last - 1)
        for i in range(0, length, LANES):
            x = y = spread(F4(0))
            for o in range(num_outputs):
                row = load(weight[o], i)
                x, y = fma(spread(grad[n, o]), row, x), fma(spread(grad[m, o]), row, y)
            store(rows_grad[n], i, x)
            store(rows_grad[m], i, y)
        if rounds:
            _round(bits[n], length)
            _round(bits[m], length)


@_loop(_ROWS, _ROWS, "b1", "i8", _ROWS, _RANGE)
def weigh_grads(
    rows: Any, grad: Any, rounds: bool, channels: int, weight_grad: Any, first: int, last: int
) -> None:
    """Write the gradient of a weight, [O, C * P], from rows [N, P * C] and gradients [N, O].

    Pixels `first` to `last` of P: rows have pixel after pixel, the weight channel after channel.
    """
    num_images, num_outputs = grad.shape
    num_pixels = rows.shape[1] // channels
    sums = np.empty((4, LANES), F4)
    bits = sums.view(U4)
    for pixel in range(first, last):
        for channel in range(0, channels, LANES):
            place = pixel * channels + channel
            for o in range(0, num_outputs, 4):
                end = num_outputs - 1  # the last one again, where less than four are left
                p, q, r = min(o + 1, end), min(o + 2, end), min(o + 3, end)
                x = y = z = w = spread(F4(0))
                for n in range(num_images):
                    row = load(rows[n], place)
                    x, y = fma(spread(grad[n, o]), row, x), fma(spread(grad[n, p]), row, y)
                    z, w = fma(spread(grad[n, q]), row, z), fma(spread(grad[n, r]), row, w)
                store(sums[0], 0, x)
                store(sums[1], 0, y)
                store(sums[2], 0, z)
                store(sums[3], 0, w)
                for k in range(min(4, num_outputs - o)):
                    if rounds:
                        _round(bits[k], LANES)
                    for i in range(LANES):
                        weight_grad[o + k, (channel + i) * num_pixels + pixel] = sums[k, i]


@_loop("f4[:,:]", _ROW)
def sum_images(values: Any, sums: Any) -> None:
    """Write sums [C] of values [N, C] over images, taken in float64."""
    num_images, channels = values.shape
    total = np.zeros(channels, np.float64)
    for n in range(num_images):
        for c in range(channels):
            total[c] += values[n, c]
    for c in range(channels):
        sums[c] = total[c]


@_loop(_ROW)
def round_all(values: Any) -> None:
    """Round numbers to bf16."""
    _round(values.view(U4), len(values))


KERNELS = {
    "common": ("stay_awake", "sum_images", "round_all"),
    "convolution": ("correlate", "correlate_grads"),
    "spectra": ("to_spectra", "from_spectra", "mix", "mix_grads", "sum_columns"),
    "none": ("relu_pool", "relu_unpool"),
    "statistics": ("moments", "pool", "sum_grads", "unpool", "merge_moments", "merge_grads"),
    "group": ("group_pool", "group_unpool"),
    "linear": ("weigh", "weigh_back", "weigh_grads"),
}
"""What is compiled together."""


def prepare(kind: str) -> bool:
    """Compile the loops of a kind of `KERNELS`, or load them from the cache folder.

    Returns:
        whether what the cache had could be read; it is made anew if not.
    """
    is_readable = True
    for name in KERNELS[kind]:
        dispatcher = globals()[name]
        if dispatcher.signatures:
            continue
        try:
            dispatcher.compile(_SIGNATURES[name])
        except Exception:  # what a damaged cache raises is up to its damage
            is_readable = False
            forget(kind)
            dispatcher.compile(_SIGNATURES[name])
        dispatcher.disable_compile()
    return is_readable


def is_loaded(kind: str) -> bool:
    """Return whether this process has the loops of a kind already."""
    return all(globals()[name].signatures for name in KERNELS[kind])


def cached(kind: str) -> list[Path]:
    """Return the files of machine code that the cache folder has for the loops of a kind."""
    return [path for name in KERNELS[kind] for path in _files(f"{name}-*.nbc")]


def forget(kind: str) -> None:
    """Remove what the cache folder has for a kind."""
    for name in KERNELS[kind]:
        for path in _files(f"{name}-*"):
            path.unlink(missing_ok=True)


def _files(pattern: str) -> list[Path]:
    return list(Path(correlate.stats.cache_path).glob(f"kernels.{pattern}"))

"""The first convolution, of one channel, 4 pixels and LANES channels at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from groupnorm_bench.fast.kernels.declare import (
    F4,
    IMAGES,
    PIXELS,
    RANGE,
    ROW,
    ROWS,
    SIDE,
    U4,
    inlined,
    loop,
    round_bits,
)
from groupnorm_bench.fast.vectors import LANES

_NUM_TAPS = SIDE * SIDE


@inlined
def _eight(row: Any) -> Any:
    return row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]


@loop(PIXELS, ROWS, ROW, "b1", IMAGES, PIXELS, RANGE)
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
                round_bits(image_bits[n, h + SIDE // 2], width + SIDE - 1)
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
                        round_bits(bits[block, end + LANES :], 4 * LANES)
                    for place in range(4):
                        target = pixels[n, h, w + place, block * LANES :]
                        source = part[end + (place + 1) * LANES :]
                        for i in range(lanes):
                            target[i] = source[i]


@loop(IMAGES, PIXELS, "b1", RANGE, returns=ROWS)
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
                        round_bits(bits[block, end + LANES :], 4 * LANES)
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

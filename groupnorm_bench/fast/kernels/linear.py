"""The linear layer, whose rows are maps as they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from groupnorm_bench.fast.kernels.declare import F4, RANGE, ROW, ROWS, U4, loop, round_bits
from groupnorm_bench.fast.vectors import LANES, fma, load, spread, store


@loop(ROWS, ROWS, ROW, "b1", ROWS, ROWS, RANGE)
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
            round_bits(kept_bits[n], length)
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
            round_bits(output_bits[n], num_outputs)


@loop(ROWS, ROWS, "b1", ROWS, RANGE)
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
            round_bits(bits[n], length)
            round_bits(bits[m], length)


@loop(ROWS, ROWS, "b1", "i8", ROWS, RANGE)
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
                        round_bits(bits[k], LANES)
                    for i in range(LANES):
                        weight_grad[o + k, (channel + i) * num_pixels + pixel] = sums[k, i]

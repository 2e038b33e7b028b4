"""The second convolution in the frequency domain: transforms, and what is between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from groupnorm_bench.fast.kernels.declare import (
    F4,
    PIXELS,
    RANGE,
    SIDE,
    U4,
    inlined,
    loop,
    round_bits,
)
from groupnorm_bench.fast.vectors import LANES, fetch, fetch_to_write, fma, load, spread, store

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


@inlined
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


@inlined
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
                round_bits(bits[place:], lanes)
        _fourier(plane[column:], _LINE, 0, LANES)
    for u in range(NUM_HALF):
        _fourier(plane[_PLACES[u] * _LINE :], _NUMBER, 0, LANES)


@inlined
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
                round_bits(bits[place:], lanes)
            target = image[h, w, channel:]
            for i in range(lanes):
                target[i] = number[i]


_SPECTRA = "f4[:,:,::1]"
"""Spectra [frequencies, N, 2 * C]: the real parts of all channels, then the imaginary ones.

Frequency (u, v) is at u * PERIOD + v; u is below NUM_HALF.
"""
_KERNELS = "f4[:,:,:,::1]"


@loop(PIXELS, "b1", _SPECTRA, RANGE)
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


@loop(_SPECTRA, "b1", PIXELS, RANGE)
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


@inlined
def _spread_waves(waves: Any) -> Any:
    """Return cosine and sine of one pixel, then of two, each in every lane."""
    return spread(waves[0, 1]), spread(waves[1, 1]), spread(waves[0, 2]), spread(waves[1, 2])


@inlined
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


@loop(_SPECTRA, _KERNELS, "f4", _SPECTRA, RANGE)
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


@inlined
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


@inlined
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


@loop(_SPECTRA, _SPECTRA, _KERNELS, RANGE)
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


@loop(_KERNELS, _KERNELS, RANGE)
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

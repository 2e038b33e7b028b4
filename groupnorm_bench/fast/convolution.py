"""Two convolutions that are faster on a CPU than torch's, and equal to it.

- One input channel: shifted copies of the images times the weights, one matrix product.
- Many: in the frequency domain, where a convolution is one small matrix product per frequency
  (Mathieu, Henaff and LeCun 2013, arXiv:1312.5851). The CNN's second one needs 12 million
  multiplications and additions an image there, forward and backward, against 60 million. The
  Fourier transforms are matrix products too: over 14 pixels they beat an FFT, and they take and
  give any layout. Sums are shorter than in the direct way, and so are rounding errors.
"""

from __future__ import annotations

import contextlib
import math
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from groupnorm_bench.fast import loops
from groupnorm_bench.fast.threads import multiply
from groupnorm_bench.models.precision import RoundToBf16, round_values

MIN_SPECTRAL_BATCH = 12
"""Images from which a step repays the transform of the weights (docs/performance.md)."""


def convolve(
    images: Float[Tensor, "batch in_channels height width"],
    conv: nn.Conv2d,
    use_loops: bool = False,
    rounds: bool = False,
) -> Float[Tensor, "batch out_channels height width"]:
    """Return conv(images), in channels-last, by a faster way where there is one.

    There is one for plain convolutions on a CPU that keep height and width: for one input
    channel, and, from 5x5 and 12 images on, for more. `use_loops` takes the loops, which must be
    prepared, where they fit; `rounds` rounds to bf16 as `RoundToBf16` does.
    """
    by_instructions = torch.is_autocast_enabled("cpu")
    is_first = conv.in_channels == 1 and not images.requires_grad
    if not _keeps_size(conv) or not (
        is_first
        or (
            conv.in_channels > 1
            and min(conv.kernel_size) >= 5
            and len(images) >= MIN_SPECTRAL_BATCH
            and not by_instructions
        )
    ):
        with RoundToBf16() if rounds else contextlib.nullcontext():
            return conv(images)
    weight, bias = conv.weight, cast(Tensor, conv.bias)
    if rounds:
        weight, bias = round_values(weight), round_values(bias)
    if use_loops:
        if is_first and loops.takes_one_channel(images, weight):
            return _FirstLoopConvolution.apply(images, weight, bias, rounds)
        if not is_first and loops.takes_kernel(images, weight):
            return _LoopConvolution.apply(images, weight, bias, rounds)
    if is_first and by_instructions:
        dtype = torch.get_autocast_dtype("cpu")
        images, weight, bias = images.to(dtype), weight.to(dtype), bias.to(dtype)
    way = _PatchConvolution.apply if is_first else _SpectralConvolution.apply
    if rounds:
        return round_values(way(round_values(images), weight, bias))
    return way(images, weight, bias)


def _keeps_size(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.stride == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.padding == tuple(size // 2 for size in conv.kernel_size)
        and all(size % 2 for size in conv.kernel_size)
        and conv.bias is not None
    )


class _PatchConvolution(torch.autograd.Function):
    """(images [N, 1, H, W], weight [O, 1, k, k], bias [O]) -> [N, O, H, W], channels-last."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        num_images, _, height, width = images.shape
        patches = _patches(images, weight.shape[2], weight.shape[3])
        pixels = patches.t() @ torch.cat([weight.flatten(1), bias[:, None]], 1).t()  # [N*H*W, O]
        ctx.save_for_backward(patches)
        ctx.weight_shape = weight.shape
        return pixels.view(num_images, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (patches,) = ctx.saved_tensors
        grads = patches @ grad.permute(0, 2, 3, 1).flatten(0, 2)  # [k*k + 1, O]
        return None, grads[:-1].t().reshape(ctx.weight_shape), grads[-1]


def _patches(images: Tensor, kernel_height: int, kernel_width: int) -> Tensor:
    """Return [kernel_height * kernel_width + 1, N*H*W].

    Row by row the images shifted by one place, and at last ones, for the bias.
    """
    num_images, _, height, width = images.shape
    down, across = kernel_height // 2, kernel_width // 2
    padded = F.pad(images[:, 0], (across, across, down, down))
    image, row, column = padded.stride()
    shape = (kernel_height, kernel_width, num_images, height, width)
    patches = images.new_empty(kernel_height * kernel_width + 1, images.numel())
    patches[:-1].view(shape).copy_(padded.as_strided(shape, (row, column, image, row, column)))
    patches[-1] = 1
    return patches


class _SpectralConvolution(torch.autograd.Function):
    """(images [N, C, H, W], weight [O, C, k, k], bias [O]) -> [N, O, H, W], channels-last.

    Images lie innermost in between, so that each transform is one product with a large matrix.
    Real and imaginary parts (2 below) are rows of real matrices; there are U x V frequencies.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        _, channels, height, width = images.shape
        basis = _basis((height, width), tuple(weight.shape[2:]), images.dtype)
        spectra = _transform(basis.rows, basis.columns, images)  # [U*V, 2*C, N]
        taps = (basis.taps @ weight.permute(2, 3, 0, 1).flatten(2).flatten(0, 1)).unflatten(
            0, (-1, 2)
        )
        real, imaginary = taps.unflatten(2, weight.shape[:2]).unbind(1)  # [U*V, O, C]
        # Conjugate, since what networks call a convolution is a correlation.
        mixing = weight.new_empty(len(taps), 2, len(weight), 2, channels)
        mixing[:, 0, :, 0] = mixing[:, 1, :, 1] = real
        mixing[:, 0, :, 1] = imaginary
        torch.neg(imaginary, out=mixing[:, 1, :, 0])
        mixing = mixing.flatten(3).flatten(1, 2)  # [U*V, 2*O, 2*C]
        products = mixing @ spectra  # [U*V, 2*O, N]
        products[0, : len(weight)] += (bias * basis.pixels)[:, None]
        ctx.save_for_backward(spectra, mixing)
        ctx.basis, ctx.weight_shape = basis, weight.shape
        return _back(basis.rows_back, basis.columns.t(), products, (height, width))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        spectra, mixing = ctx.saved_tensors
        basis: _Basis = ctx.basis
        out_channels, channels, *kernel = ctx.weight_shape
        products = _transform(basis.rows_back.t(), basis.columns, grad)  # [U*V, 2*O, N]
        images_grad = None
        if ctx.needs_input_grad[0]:
            size = (grad.shape[2], grad.shape[3])
            maps = mixing.transpose(1, 2) @ products
            images_grad = _back(basis.rows.t(), basis.columns.t(), maps, size)
        parts = (products @ spectra.transpose(1, 2)).view(-1, 2, out_channels, 2, channels)
        taps = torch.stack(
            [parts[:, 0, :, 0] + parts[:, 1, :, 1], parts[:, 0, :, 1] - parts[:, 1, :, 0]], 1
        )
        weight_grad = (basis.taps.t() @ taps.view(len(basis.taps), -1)).view(
            *kernel, out_channels, channels
        )
        bias_grad = products[0, :out_channels].sum(1) * basis.pixels
        return images_grad, weight_grad.permute(2, 3, 0, 1), bias_grad


class _FirstLoopConvolution(torch.autograd.Function):
    """`_PatchConvolution` by compiled loops, without patches.

    (images, weight, bias, rounds); here and below, `rounds` says to round images, output and
    their gradients to bf16.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, rounds: bool) -> Tensor:
        images = round_values(images) if rounds else images
        padded = F.pad(images[:, 0], [weight.shape[3] // 2] * 2 + [weight.shape[2] // 2] * 2)
        ctx.save_for_backward(padded)
        ctx.weight_shape, ctx.rounds = weight.shape, rounds
        return loops.correlate(padded, weight.flatten(1).t(), bias, rounds)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (padded,) = ctx.saved_tensors
        grads = loops.correlate_grads(padded, grad, ctx.rounds)  # [k*k + 1, O]
        return None, grads[:-1].t().reshape(ctx.weight_shape), grads[-1], None


class _LoopConvolution(torch.autograd.Function):
    """`_SpectralConvolution` by fast Fourier transforms in compiled loops, channels innermost.

    With spectra S, matrices K and G, the gradient's spectra, the gradients are G conj(K) and
    conj(G)^T S, conjugate: all of it is products of conj(G), S and K as they lie in memory.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, rounds: bool) -> Tensor:
        spectra, mixing = loops.to_spectra(images, rounds), loops.to_mixing(weight)
        products = multiply(spectra, mixing.transpose(1, 2))
        products[0].real += bias  # frequency zero of what is 1 everywhere
        ctx.save_for_backward(spectra, mixing)
        ctx.size, ctx.rounds = weight.shape[2], rounds
        return loops.from_spectra(products, rounds, *images.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        spectra, mixing = ctx.saved_tensors
        products = loops.to_spectra(grad, ctx.rounds, conjugate=True)
        images_grad = None
        if ctx.needs_input_grad[0]:
            maps = multiply(products, mixing)
            images_grad = loops.from_spectra(maps, ctx.rounds, *grad.shape[2:], conjugate=True)
        matrices = multiply(products.transpose(1, 2), spectra)
        weight_grad = loops.from_mixing(matrices, ctx.size)
        return images_grad, weight_grad, products[0].real.sum(0), None


def _transform(rows: Tensor, columns: Tensor, maps: Tensor) -> Tensor:
    """Return [U*V, 2*C, N] of maps [N, C, H, W]."""
    num_images, channels, height, width = maps.shape
    flat = maps.permute(0, 2, 3, 1).reshape(num_images, -1).t().contiguous()  # [H*W*C, N]
    half = rows @ flat.view(height, -1)  # [U*2, W*C*N]
    whole = columns @ half.view(-1, 2 * width, channels * num_images)  # [U, V*2, C*N]
    return whole.view(-1, 2 * channels, num_images)


def _back(rows: Tensor, columns: Tensor, spectra: Tensor, size: tuple[int, int]) -> Tensor:
    """Return [N, C, *size], channels-last, of [U*V, 2*C, N]."""
    num_images = spectra.shape[2]
    half = columns @ spectra.view(-1, columns.shape[1], spectra[0].numel() // 2)  # [U, 2*W, C*N]
    maps = rows @ half.view(rows.shape[1], -1)  # [H, W*C*N]
    return (
        maps.view(-1, num_images).t().contiguous().view(num_images, *size, -1).permute(0, 3, 1, 2)
    )


class _Basis(NamedTuple):
    """Discrete Fourier transforms as matrices, for images of one size and kernels of one size."""

    rows: Tensor  # [U*2, H]
    columns: Tensor  # [V*2, 2*W]; its transpose goes back, but for a factor
    rows_back: Tensor  # [H, U*2]
    taps: Tensor  # [U*V*2, k*k], of a kernel, both axes at once
    pixels: int  # of a period; a constant 1 has so much at frequency 0, and nothing elsewhere


@cache
def _basis(size: tuple[int, int], kernel: tuple[int, int], dtype: torch.dtype) -> _Basis:
    """Return the matrices, computed in float64.

    A period of size + kernel // 2 is enough: what wraps around falls outside of the output.
    Real maps need half of the frequencies of one axis; the others are their conjugates.
    """
    periods = [length + taps // 2 for length, taps in zip(size, kernel, strict=True)]
    u, v = _range(periods[0] // 2 + 1), _range(periods[1])
    cos, sin = _waves(u, _range(size[0]), periods[0])
    rows = torch.stack([cos, -sin], 1).flatten(0, 1)
    is_paired = (u > 0) & (2 * u < periods[0])  # with a conjugate that is left out
    back = (1 + is_paired.double()).repeat_interleave(2)[:, None] / math.prod(periods)
    cos, sin = _waves(v, _range(size[1]), periods[1])
    columns = torch.stack([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)], 1).flatten(0, 1)
    down, across = (_range(taps) - taps // 2 for taps in kernel)
    angles = (
        2 * math.pi / periods[0] * (u[:, None] * down)[:, None, :, None]
        + 2 * math.pi / periods[1] * (v[:, None] * across)[None, :, None, :]
    )  # [U, V, k, k]
    taps = torch.stack([angles.cos(), -angles.sin()], 2).flatten(3).flatten(0, 2)
    matrices = rows, columns, (rows * back).t(), taps
    rows, columns, rows_back, taps = (matrix.to(dtype).contiguous() for matrix in matrices)
    return _Basis(rows, columns, rows_back, taps, math.prod(periods))


def _range(length: int) -> Tensor:
    return torch.arange(length, dtype=torch.float64)


def _waves(frequencies: Tensor, places: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, each [frequencies, places]."""
    angles = 2 * math.pi / period * frequencies[:, None] * places
    return angles.cos(), angles.sin()

"""Two convolutions that are faster on a CPU than torch's, by compiled loops, and equal to it.

- One input channel: directly, several pixels and channels at a time.
- Many: in the frequency domain, where a convolution is one small matrix product per frequency
  (Mathieu, Henaff and LeCun 2013, arXiv:1312.5851). The CNN's second one needs 12 million
  multiplications and additions an image there, forward and backward, against 60 million. Sums are
  shorter than in the direct way, and so are rounding errors.
"""

from __future__ import annotations

import contextlib
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from groupnorm_bench.fast import loops
from groupnorm_bench.models.precision import RoundToBf16, round_values


def convolve(
    images: Float[Tensor, "batch in_channels height width"], conv: nn.Conv2d, rounds: bool = False
) -> Float[Tensor, "batch out_channels height width"]:
    """Return conv(images), by loops, which must be prepared, where they take it.

    They take plain float32 convolutions that keep height and width: for one input channel, and,
    with a 5x5 kernel and up to 14 pixels a side, for more. `rounds` rounds to bf16 as
    `RoundToBf16` does.
    """
    is_first = conv.in_channels == 1 and not images.requires_grad
    takes = loops.takes_one_channel if is_first else loops.takes_kernel
    if not _keeps_size(conv) or not takes(images, conv.weight):
        with RoundToBf16() if rounds else contextlib.nullcontext():
            return conv(images)
    weight, bias = conv.weight, cast(Tensor, conv.bias)
    if rounds:
        weight, bias = round_values(weight), round_values(bias)
    way = _FirstLoopConvolution if is_first else _LoopConvolution
    return way.apply(images, weight, bias, rounds)


def _keeps_size(conv: nn.Conv2d) -> bool:
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


class _FirstLoopConvolution(torch.autograd.Function):
    """(images [N, 1, H, W], weight, bias, rounds) -> [N, O, H, W], channels-last.

    Here and below, `rounds` says to round images, output and their gradients to bf16.
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
    """(images [N, C, H, W], weight, bias, rounds) -> [N, O, H, W], in the frequency domain.

    With spectra S, matrices K and G, the gradient's spectra, the output's spectra are S K, and the
    gradients' G conj(K)^T and conj(G)^T S, conjugate.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, rounds: bool) -> Tensor:
        spectra = loops.to_spectra(images, rounds)
        mixed = loops.mix(spectra, weight)
        mixed[0, :, : len(bias)] += bias  # frequency zero of what is 1 everywhere
        ctx.save_for_backward(spectra, weight)
        ctx.rounds = rounds
        return loops.from_spectra(mixed, rounds, *images.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        spectra, weight = ctx.saved_tensors
        grads = loops.to_spectra(grad, ctx.rounds)
        images_grad = None
        if ctx.needs_input_grad[0]:
            maps = loops.mix_back(grads, weight)
            images_grad = loops.from_spectra(maps, ctx.rounds, *grad.shape[2:])
        return images_grad, loops.mix_grads(spectra, grads), grads[0, :, : len(weight)].sum(0), None

"""Two convolutions that are faster on a CPU than torch's, by compiled loops, and equal to it.

- One input channel: directly, several pixels and channels at a time.
- Many: in the frequency domain, where a convolution is one small matrix product per frequency
  (Mathieu, Henaff and LeCun 2013, arXiv:1312.5851). The CNN's second one needs 12 million
  multiplications and additions an image there, forward and backward, against 60 million. Sums are
  shorter than in the direct way, and so are rounding errors.

They take plain float32 convolutions that keep height and width: for one input channel, and, with
a 5x5 kernel and up to 14 pixels a side, for more. `rounds` rounds to bf16 what `RoundToBf16`
does: images, weight, bias, output, and their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from groupnorm_bench.fast import loops
from groupnorm_bench.fast.chain import Grads, MapShape
from groupnorm_bench.fast.compiler import kernels
from groupnorm_bench.fast.loops import Values, Work


def link(conv: nn.Module, rounds: bool) -> FirstConvolution | Convolution | None:
    """Return what computes a module by loops; None if it is no convolution that they know."""
    if type(conv) is not nn.Conv2d or not _keeps_size(conv):
        return None
    return FirstConvolution(conv, rounds) if conv.in_channels == 1 else Convolution(conv, rounds)


def _keeps_size(conv: nn.Conv2d) -> bool:
    return (
        conv.stride == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.padding == tuple(size // 2 for size in conv.kernel_size)
        and all(size % 2 for size in conv.kernel_size)
        and conv.bias is not None
    )


class _Convolution:
    """What both have in common; see `chain.Link`."""

    keeps_maps = False
    gives_grad = True
    begins = True
    is_flat = False

    def __init__(self, conv: nn.Conv2d, rounds: bool) -> None:
        self._conv, self._rounds = conv, rounds
        self.parameters: Sequence[Tensor] = [conv.weight, cast(Tensor, conv.bias)]

    def output_shape(self, shape: MapShape) -> MapShape | None:
        num_outputs, num_inputs, *sides = self._conv.weight.shape
        side = kernels().SIDE
        is_known = sides == [side, side] and num_outputs % kernels().LANES == 0
        if not is_known or self._conv.weight.dtype != torch.float32 or shape[3] != num_inputs:
            return None
        return (*shape[:3], num_outputs)

    def _bias(self) -> Values:
        return loops.rounded(self.parameters[1].detach().numpy(), self._rounds)


class FirstConvolution(_Convolution):
    """A convolution of one channel, which has no gradient; four must divide the width."""

    gives_grad = False

    def output_shape(self, shape: MapShape) -> MapShape | None:
        return super().output_shape(shape) if shape[2] % 4 == 0 else None

    def forward(self, work: Work, maps: Values) -> tuple[Values, Values]:
        taps = self._conv.weight.detach().flatten(1).t().contiguous().numpy()
        taps = loops.rounded(taps, self._rounds)
        return loops.correlate(work, maps, taps, self._bias(), self._rounds)

    def backward(
        self, work: Work, grad: Values, maps: Any, saved: Values, needs_grad: bool
    ) -> tuple[None, Grads]:
        grads = loops.correlate_grads(work, saved, grad, self._rounds)  # [25 + 1, O]
        grads = loops.rounded(grads, self._rounds)
        weight_grad = grads[:-1].T.reshape(self._conv.weight.shape)
        return None, lambda: (weight_grad, grads[-1])


class Convolution(_Convolution):
    """A convolution in the frequency domain.

    With spectra S, matrices K and G, the gradient's spectra, the output's spectra are S K, and the
    gradients' G conj(K)^T and conj(G)^T S, conjugate.
    """

    def output_shape(self, shape: MapShape) -> MapShape | None:
        fits = max(shape[1:3]) + kernels().SIDE // 2 <= kernels().PERIOD
        return super().output_shape(shape) if fits and shape[3] % kernels().LANES == 0 else None

    def forward(self, work: Work, maps: Values) -> tuple[Values, tuple[Values, Tensor]]:
        weight, bias = self._conv.weight.detach(), self._bias()
        spectra = loops.to_spectra(work, maps, self._rounds)
        work.finish()
        kernel = loops.rounded(weight.permute(1, 2, 3, 0).contiguous().numpy(), self._rounds)
        mixed = loops.mix(work, spectra, kernel, 1)
        work.finish()
        mixed[0, :, : len(bias)] += bias  # frequency zero of what is 1 everywhere
        output = loops.from_spectra(work, mixed, self._rounds, *maps.shape[1:3])
        return output, (spectra, weight)

    def backward(
        self, work: Work, grad: Values, maps: Any, saved: tuple[Values, Tensor], needs_grad: bool
    ) -> tuple[Values | None, Grads]:
        spectra, weight = saved
        grads = loops.to_spectra(work, grad, self._rounds)
        work.finish()
        columns = loops.mix_grads(work, spectra, grads)
        if needs_grad:
            kernel = weight.permute(0, 2, 3, 1).contiguous().numpy()
            mixed = loops.mix(work, grads, loops.rounded(kernel, self._rounds), -1)
        work.finish()
        weight_grad = loops.sum_columns(work, columns)
        bias_grad = loops.sum_images(grads[0, :, : len(weight)])
        maps_grad = None
        if needs_grad:
            maps_grad = loops.from_spectra(work, mixed, self._rounds, *grad.shape[1:3])
        return maps_grad, lambda: (
            loops.rounded(weight_grad, self._rounds).transpose(0, 3, 1, 2),
            loops.rounded(bias_grad, self._rounds),
        )

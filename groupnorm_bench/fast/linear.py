"""The linear layer behind flattened maps, without flattening them.

`nn.Flatten` copies maps from channels-last to channel after channel, and its backward pass copies
them back, on one thread. Here the weight is put into the order of the maps instead, which is as
large as ten of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groupnorm_bench.fast import loops
from groupnorm_bench.fast.chain import Grads, MapShape
from groupnorm_bench.fast.compiler import kernels
from groupnorm_bench.fast.loops import Values, Work


def link(modules: Sequence[nn.Module], rounds: bool) -> FlatLinear | None:
    """Return what computes two modules at once; None if they are not `nn.Flatten`, `nn.Linear`."""
    flatten, linear = modules
    if type(flatten) is not nn.Flatten or type(linear) is not nn.Linear or linear.bias is None:
        return None
    is_whole = flatten.start_dim == 1 and flatten.end_dim == -1
    return FlatLinear(linear, rounds) if is_whole else None


class FlatLinear:
    """See `chain.Link`. `rounds` rounds to bf16 as `RoundToBf16` does."""

    keeps_maps = False
    gives_grad = True
    begins = False  # what it is given is kept as it is, and must be nobody else's
    is_flat = True

    def __init__(self, linear: nn.Linear, rounds: bool) -> None:
        self._linear, self._rounds = linear, rounds
        self.parameters: Sequence[Tensor] = [linear.weight, linear.bias]

    def output_shape(self, shape: MapShape) -> MapShape | None:
        num_images, height, width, channels = shape
        fits = self._linear.in_features == height * width * channels
        if not fits or channels % kernels().LANES or self._linear.weight.dtype != torch.float32:
            return None
        return num_images, 1, 1, self._linear.out_features

    def forward(self, work: Work, maps: Values) -> tuple[Values, tuple[Values, Values, MapShape]]:
        shape = num_images, height, width, channels = maps.shape
        weight, bias = (each.detach() for each in self.parameters)
        weight = weight.view(-1, channels, height, width).permute(0, 2, 3, 1).flatten(1)
        ordered = loops.rounded(weight.numpy(), self._rounds)
        output, rows = loops.weigh(
            work,
            maps.reshape(num_images, -1),
            ordered,
            loops.rounded(bias.numpy(), self._rounds),
            self._rounds,
        )
        return output.reshape(num_images, 1, 1, -1), (rows, ordered, shape)

    def backward(
        self,
        work: Work,
        grad: Values,
        maps: Any,
        saved: tuple[Values, Values, MapShape],
        needs_grad: bool,
    ) -> tuple[Values, Grads]:
        rows, weight, shape = saved
        outputs = loops.rounded(grad.reshape(len(grad), -1), self._rounds)
        rows_grad, weight_grad = loops.weigh_back(
            work, outputs, rows, weight, shape[3], self._rounds
        )
        bias_grad = loops.rounded(loops.sum_images(outputs), self._rounds)
        return rows_grad.reshape(shape), lambda: (weight_grad, bias_grad)

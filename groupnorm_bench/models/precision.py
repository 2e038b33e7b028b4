"""bf16 arithmetic of a network's modules: torch's autocast, or the same rounding without."""

from __future__ import annotations

import contextlib
import platform
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def has_bf16_instructions() -> bool:
    """Return whether this CPU multiplies bf16 numbers; torch is 15 times slower where not."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def forward_context(
    precision: str, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """Return the context in which forward passes of torch's modules run in this precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    if device.type == "cpu" and not has_bf16_instructions():
        return RoundToBf16()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class RoundToBf16(TorchFunctionMode):
    """Autocast to bf16 in effect, without bf16 instructions: fp32 sums of bf16 values.

    Inputs, weights and outputs of convolutions and linear layers are rounded to bf16, and so are
    their gradients; products are summed in fp32, as bf16 instructions do. It costs a little more
    time than fp32, not 15 times as much.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function not in (torch.conv2d, F.linear):
            return function(*args, **(kwargs or {}))
        rounded = [round_values(value) if isinstance(value, Tensor) else value for value in args]
        return round_values(function(*rounded, **(kwargs or {})))


def round_values(values: Tensor) -> Tensor:
    """Round to bf16 and back; autograd rounds the gradient the same way."""
    return values.bfloat16().to(values.dtype)

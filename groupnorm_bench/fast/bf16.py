"""bf16 arithmetic on a CPU: whether it has instructions for it, and the same rounding without.

Rounding serves where there are none, and the compiled loops, which are faster than they are.
"""

from __future__ import annotations

import contextlib
import platform
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from groupnorm_bench.settings.config import TrainConfig


def has_bf16_instructions() -> bool:
    """Return whether this CPU multiplies bf16 numbers; torch is 15 times slower where not."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(
    config: TrainConfig, device: torch.device, use_loops: bool
) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a config's forward passes run.

    The compiled loops round by themselves, and are faster than bf16 instructions with torch's
    convolutions: 1.9 times here (docs/performance.md).
    """
    if config.precision == "fp32":
        return contextlib.nullcontext()
    if device.type == "cpu" and (use_loops or not has_bf16_instructions()):
        return RoundToBf16()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class RoundToBf16:
    """Autocast to bf16 in effect, without bf16 instructions: fp32 sums of bf16 values.

    Inputs, weights and outputs of convolutions and linear layers are rounded to bf16, and so are
    their gradients; products are summed in fp32, as bf16 instructions do. It costs a little more
    time than fp32, not 15 times as much. Modules are to be called by `call` within it.
    """

    active: ContextVar[bool] = ContextVar("rounds_to_bf16", default=False)

    def __enter__(self) -> None:
        self._token = self.active.set(True)

    def __exit__(self, *error: object) -> None:
        self.active.reset(self._token)


def call(module: nn.Module, values: Tensor) -> Tensor:
    """Return module(values), rounded within `RoundToBf16`."""
    if not RoundToBf16.active.get():
        return module(values)
    with _RoundOperations():
        return module(values)


class _RoundOperations(TorchFunctionMode):
    """Not for the fast path, which rounds by itself: each of torch's functions takes longer."""

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

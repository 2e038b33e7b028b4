"""What loops are declared with: types, Numba's options, and what several of them are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

F4, U4, I1 = np.float32, np.uint32, np.int8
_HALF, _ONE, _SIXTEEN, _UPPER = U4(0x7FFF), U4(1), U4(16), U4(0xFFFF0000)

PIXELS, WINDOWS, ROWS, ROW = "f4[:,:,:,::1]", "i1[:,:,:,::1]", "f4[:,::1]", "f4[::1]"
IMAGES, RANGE = "f4[:,:,::1]", "i8, i8"
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
"""Products may be fused with sums, nothing is reordered."""
inlined = njit(forceinline=True, **_OPTIONS)
"""What loops are made of has no machine code of its own: that could fuse other products than the
same code within a loop, and which of the two a loop would call is up to what the cache has."""

SIGNATURES: dict[str, str] = {}
"""Of each loop, by its name."""
SIDE = 5
"""Height and width of the kernels of both convolutions, which their unrolled sums fix."""


def loop(*arguments: str, returns: str = "void") -> Any:
    """Return the decorator of a loop whose arguments have these of Numba's types."""

    def declare(function: Any) -> Any:
        SIGNATURES[function.__name__] = f"{returns}({', '.join(arguments)})"
        return njit(cache=True, **_OPTIONS)(function)

    return declare


@inlined
def round_bits(bits: Any, count: int) -> None:
    """Round the first `count` float32 numbers, as bits, to bf16: to nearest, ties to even."""
    for i in range(count):
        u = bits[i]
        bits[i] = U4(U4(u + _HALF) + U4(U4(u >> _SIXTEEN) & _ONE)) & _UPPER

"""What all ways by loops take: sums over images, rounding, and a core that is kept awake."""

from __future__ import annotations

from typing import Any

import numpy as np

from groupnorm_bench.fast.kernels.declare import ROW, U4, loop, round_bits


@loop("i8[::1]", "i8")
def stay_awake(flags: Any, place: int) -> None:
    """Count at `place`, without the interpreter, until flags[0] is set by another thread."""
    while flags[0] == 0:
        flags[place] += 1  # may be flags[0] for all that the compiler knows: it looks again


@loop("f4[:,:]", ROW)
def sum_images(values: Any, sums: Any) -> None:
    """Write sums [C] of values [N, C] over images, taken in float64."""
    num_images, channels = values.shape
    total = np.zeros(channels, np.float64)
    for n in range(num_images):
        for c in range(channels):
            total[c] += values[n, c]
    for c in range(channels):
        sums[c] = total[c]


@loop(ROW)
def round_all(values: Any) -> None:
    """Round numbers to bf16."""
    round_bits(values.view(U4), len(values))

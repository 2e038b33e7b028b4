"""Norm blocks, convolutions, a linear layer and rounding as loops that Numba compiles.

Tensors of pixels are [N, H, W, C] here, float32 and contiguous; statistics are [N, C]. Each loop
does images `first` to `last`, so that threads can share them; images do not depend on each other.
Loading this package compiles nothing: `prepare` does, or finds what it needs in the cache folder.
"""

from __future__ import annotations

from pathlib import Path

from groupnorm_bench.fast.kernels.common import round_all, stay_awake, sum_images
from groupnorm_bench.fast.kernels.declare import SIDE, SIGNATURES
from groupnorm_bench.fast.kernels.direct import correlate, correlate_grads
from groupnorm_bench.fast.kernels.linear import weigh, weigh_back, weigh_grads
from groupnorm_bench.fast.kernels.norms import (
    group_pool,
    group_unpool,
    merge_grads,
    merge_moments,
    moments,
    pool,
    relu_pool,
    relu_unpool,
    sum_grads,
    unpool,
)
from groupnorm_bench.fast.kernels.spectra import (
    NUM_HALF,
    OUTPUTS_AT_ONCE,
    PERIOD,
    from_spectra,
    mix,
    mix_grads,
    sum_columns,
    to_spectra,
)
from groupnorm_bench.fast.vectors import LANES

__all__ = [
    "KINDS",
    "LANES",
    "NUM_HALF",
    "OUTPUTS_AT_ONCE",
    "PERIOD",
    "SIDE",
    "SIGNATURES",
    "cached",
    "correlate",
    "correlate_grads",
    "forget",
    "from_spectra",
    "group_pool",
    "group_unpool",
    "is_loaded",
    "merge_grads",
    "merge_moments",
    "mix",
    "mix_grads",
    "moments",
    "pool",
    "prepare",
    "relu_pool",
    "relu_unpool",
    "round_all",
    "stay_awake",
    "sum_columns",
    "sum_grads",
    "sum_images",
    "to_spectra",
    "unpool",
    "weigh",
    "weigh_back",
    "weigh_grads",
]

KINDS = {
    "common": (stay_awake, sum_images, round_all),
    "convolution": (correlate, correlate_grads),
    "spectra": (to_spectra, from_spectra, mix, mix_grads, sum_columns),
    "none": (relu_pool, relu_unpool),
    "statistics": (moments, pool, sum_grads, unpool, merge_moments, merge_grads),
    "group": (group_pool, group_unpool),
    "linear": (weigh, weigh_back, weigh_grads),
}
"""What is compiled together."""


def prepare(kind: str) -> bool:
    """Compile the loops of a kind of `KINDS`, or load them from the cache folder.

    Returns:
        whether what the cache had could be read; it is made anew if not.
    """
    is_readable = True
    for each in KINDS[kind]:
        if each.signatures:
            continue
        signature = SIGNATURES[each.__name__]
        try:
            each.compile(signature)
        except Exception:  # what a damaged cache raises is up to its damage
            is_readable = False
            forget(kind)
            each.compile(signature)
        each.disable_compile()
    return is_readable


def is_loaded(kind: str) -> bool:
    """Return whether this process has the loops of a kind already."""
    return all(each.signatures for each in KINDS[kind])


def cached(kind: str) -> list[Path]:
    """Return the files of machine code that the cache folder has for the loops of a kind."""
    return _files(kind, "nbc")


def forget(kind: str) -> None:
    """Remove what the cache folder has for a kind."""
    for path in _files(kind, "*"):
        path.unlink(missing_ok=True)


def _files(kind: str, ending: str) -> list[Path]:
    return [
        path
        for each in KINDS[kind]
        for path in Path(each.stats.cache_path).glob(f"*.{each.__name__}-*.{ending}")
    ]

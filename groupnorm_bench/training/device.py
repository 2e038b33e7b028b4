"""Which device trains, and how much of its memory was taken."""

from __future__ import annotations

import resource
import sys

import torch

from groupnorm_bench.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is cuda, then mps, then cpu.

    Raises:
        DeviceError: it is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(f"device={name!r} is not here ({count} CUDA devices); use --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device={name!r} is not here; use --device auto")
    return device


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: of the device on a GPU, of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

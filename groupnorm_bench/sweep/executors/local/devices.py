"""How many workers there are to be, and which GPU each is given."""

from __future__ import annotations

import os
import shutil

from groupnorm_bench import processors
from groupnorm_bench.errors import ConfigError

MAX_WORKERS = 1024


def slots_for(device: str, workers: str, per_device: int) -> tuple[tuple[str, ...], int]:
    """Return the GPUs to pin workers to, none for the CPU, and the number of workers.

    Args:
        device: the runs' `device` setting.
        workers: a number, or `auto`: one per core this process may use, or per GPU.
        per_device: workers on each GPU under `auto`.

    Raises:
        ConfigError: `workers` is neither.
    """
    devices = cuda_devices() if device in ("auto", "cuda") else ()
    if workers != "auto":
        if not workers.isdecimal() or int(workers[:9]) < 1:
            raise ConfigError(
                f"workers={workers!r} is not a number from 1 on; use 1, 2, ... or auto"
            )
        if len(workers) > 4 or int(workers) > MAX_WORKERS:
            raise ConfigError(f"workers={workers!r} is more than {MAX_WORKERS}; use fewer, or auto")
        return devices, int(workers)
    if devices:
        return devices, len(devices) * per_device
    if device not in ("auto", "cpu"):  # one device of its own
        return (), per_device
    return (), processors.available()


def cuda_devices() -> tuple[str, ...]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES spells them; torch is asked only where one may be."""
    if shutil.which("nvidia-smi") is None:
        return ()
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return tuple(names[:count])

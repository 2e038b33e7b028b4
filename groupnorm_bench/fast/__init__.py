"""Speed: ways to compute a network faster than its modules do. Without it all works, slower.

This is the front door; nothing outside imports past it. It loads without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from groupnorm_bench.datasets import dataset_spec
from groupnorm_bench.settings.config import TrainConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from groupnorm_bench.fast.cuda_graphs import CapturedWay
    from groupnorm_bench.fast.ways import LoopsWay

__all__ = ["choose", "compile_ahead"]


def choose(
    model: nn.Module, settings: TrainConfig, device: torch.device, images: int
) -> LoopsWay | CapturedWay | str:
    """Return a fast way to compute `model`, or why torch's modules are left as they are.

    Args:
        model: on `device`.
        settings: whose `precision` and `compile` are obeyed; `norm` is named to the user.
        device: where batches will be.
        images: images that the whole run trains on, repeats counted.
    """
    from groupnorm_bench.fast.ways import choose_way

    return choose_way(model, settings, device, images)


def compile_ahead(runs: Iterable[TrainConfig], say: Callable[[str], None]) -> None:
    """Start compiling what these runs take on a CPU, where it is not there yet, and say so.

    It goes on beside what the caller does next, such as loading torch; `choose` waits for it.
    """
    from groupnorm_bench.fast.compiler import compile_ahead, is_long_enough

    norms = {
        run.norm
        for run in runs
        if run.model == "cnn"
        and run.device in ("auto", "cpu")
        and is_long_enough(run.compile, _num_images(run))
    }
    if norms:
        compile_ahead(norms, say)


def _num_images(run: TrainConfig) -> int:
    """Return how many images a run trains on, repeats counted."""
    counts = dataset_spec(run.dataset).counts
    steps = (run.train_limit or counts.train) // run.batch_size * run.epochs
    return (run.max_steps or steps) * run.batch_size

"""How a network is computed: by torch's own modules, or faster where `fast` knows how.

Training, scoring, diagnostics, benchmarks and estimates all compute by the one way chosen here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from groupnorm_bench.models.precision import RoundToBf16, forward_context
from groupnorm_bench.settings.config import TrainConfig

_Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a batch's images and labels to its loss and its hits."""


class Way(Protocol):
    """A way to compute a network: every way gives the same numbers within rounding."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def name(self) -> str:
        """What a checkpoint calls it: a run goes on in the way in which it began."""

    @property
    def notes(self) -> list[str]:
        """What to tell the user of it."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's output for normalised images, in the run's precision."""

    def context(self, batch_size: int) -> contextlib.AbstractContextManager[None]:
        """Return the context in which batches of this size are trained on or scored."""

    def capture(self, score: _Score, images: Tensor, labels: Tensor) -> _Score:
        """Return `score`, which calls `forward`, as training steps shall call it.

        Images and labels are a batch of the size that all batches have.
        """


class TorchWay:
    """Torch's modules as they are."""

    name = "torch"

    def __init__(self, model: nn.Module, precision: str, device: torch.device, note: str) -> None:
        self.model, self._precision, self._device = model, precision, device
        rounds = isinstance(forward_context(precision, device), RoundToBf16)
        self.notes = ["bf16: rounded values, summed in fp32"] * rounds + [note]

    def forward(self, images: Tensor) -> Tensor:
        with forward_context(self._precision, self._device):
            return self.model(images)

    def context(self, batch_size: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def capture(self, score: _Score, images: Tensor, labels: Tensor) -> _Score:
        return score


def choose_way(model: nn.Module, config: TrainConfig, device: torch.device, images: int) -> Way:
    """Return the way to compute `model`, which is on `device`.

    Args:
        model: what `build_model` gave.
        config: whose `precision` and `compile` are obeyed.
        device: where batches will be.
        images: images that will be trained on, repeats counted: what takes long to prepare pays
            only where it is used for long.
    """
    try:
        from groupnorm_bench.fast import choose
    except ModuleNotFoundError as error:
        if error.name != "groupnorm_bench.fast":
            raise
        return TorchWay(model, config.precision, device, "torch's modules")
    found = choose(model, config, device, images)
    return TorchWay(model, config.precision, device, found) if isinstance(found, str) else found

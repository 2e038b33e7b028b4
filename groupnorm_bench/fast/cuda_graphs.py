"""A training step on a GPU as CUDA graphs.

A GPU computes a step of a net this small faster than it is handed its hundred kernels one by one;
a graph hands over a whole pass at once. `torch.compile` also merges norm, ReLU and max-pool.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from groupnorm_bench.errors import one_line
from groupnorm_bench.models.precision import forward_context

Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a batch's images and labels to its loss and its hits."""


class CapturedWay:
    """Torch's modules, merged and captured where a whole step of training is computed."""

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        self.model, self._precision, self._device = model, precision, device
        self.name, self.notes = "captured", ["compile on"]

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's output for normalised images, in the run's precision."""
        with forward_context(self._precision, self._device):
            return self.model(images)

    def context(self, batch_size: int) -> contextlib.AbstractContextManager[None]:
        """Return the context in which batches of this size are trained on or scored."""
        return contextlib.nullcontext()

    def capture(self, score: Score, images: Tensor, labels: Tensor) -> Score:
        """Return `score` captured; or as it is, and say why."""
        self.model.train()
        captured, problem = capture(score, self.model, images, labels)
        if captured is None:
            self.name, self.notes = "torch", [f"compile off: {problem}"]
            return score
        return captured


def capture(
    score: Score, model: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Score | None, str | None]:
    """Return `score` compiled, and None; or None, and what went wrong in one line.

    Args:
        score: sees every batch at the same size, and the model in the mode in which it is now.
        model: what `score` trains; its parameters and buffers are left as they were.
        images, labels: a batch.
    """
    torch.compiler.reset()  # it keeps 8 versions of a function, and graphs of runs that are over
    kept = copy.deepcopy(model.state_dict())
    compiled = torch.compile(score, mode="reduce-overhead", fullgraph=True, dynamic=False)
    try:
        for _ in range(3):  # compiles; records; and plays, as every step after it
            loss, _ = compiled(images, labels)
            loss.backward()
            model.zero_grad()
    except Exception as error:  # the compiler is another program: it fails in its own ways
        return None, one_line(error)[:160]
    finally:
        model.zero_grad()
        model.load_state_dict(kept)
    return compiled, None

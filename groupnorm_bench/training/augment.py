"""Training images moved and mirrored, differently in every epoch, the same way in every arm."""

from __future__ import annotations

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from groupnorm_bench.settings.fields import AUGMENTATIONS

_MARGIN = dict(zip(AUGMENTATIONS, (0, 2, 4), strict=True))
"""Pixels that an image moves at most, each way."""


class Augmentation:
    """What happens to the images of one epoch, drawn at once at its beginning.

    `shift` moves an image by up to 2 pixels each way; `crop-flip` by up to 4, and mirrors every
    second one, as He et al. 2015, arXiv:1512.03385, section 4.2. What comes in is black (0).

    Args:
        kind: one of `AUGMENTATIONS`.
        images: how many the epoch takes.
        generator: the run's own, on the CPU: the same draws for every arm and device.
    """

    def __init__(self, kind: str, images: int, generator: torch.Generator) -> None:
        self.margin = _MARGIN[kind]
        self.moves = torch.empty(0, 3, dtype=torch.int64)
        if self.margin:
            moves = torch.randint(0, 2 * self.margin + 1, (images, 2), generator=generator)
            flips = torch.randint(0, 2, (images, 1), generator=generator)
            self.moves = torch.cat([moves, flips * (kind == "crop-flip")], 1)

    def __call__(
        self, images: UInt8[Tensor, "batch channels height width"], first: int
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Return a batch moved, on its own device; `first` is its first image's place."""
        if not self.margin:
            return images
        moves = self.moves[first : first + len(images)].to(images.device)
        height, width = images.shape[2:]
        rows = _places(height, moves[:, 0])
        columns = _places(width, moves[:, 1])
        columns = torch.where(moves[:, 2:] == 1, columns.flip(1), columns)
        padded = F.pad(images, (self.margin,) * 4)
        batch = torch.arange(len(images), device=images.device)
        channels = torch.arange(images.shape[1], device=images.device)
        return padded[
            batch[:, None, None, None],
            channels[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


def _places(length: int, moves: Int[Tensor, " batch"]) -> Int[Tensor, "batch length"]:
    return moves[:, None] + torch.arange(length, device=moves.device)

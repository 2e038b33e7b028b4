"""In which order an epoch takes the training images."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def draw_order(
    order: str, labels: Int[Tensor, " n"], batch_size: int, generator: torch.Generator
) -> Int[Tensor, " m"]:
    """Draw an epoch's order of images, on the CPU; batches are cut from its front.

    Args:
        order: `shuffle`, or `by-class`: images sorted by class are cut into shards of half a batch,
            and each batch is two shards drawn at random, as a client's data are in McMahan et al.
            2017, arXiv:1602.05629, section 3. So a batch has two classes, seldom three or more.
        labels: of the training images.
        batch_size: images per step; the rest of an epoch that fills no batch is drawn at random.
        generator: the run's own; it draws the same for every arm.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    if order == "shuffle":
        return shuffled
    steps = len(labels) // batch_size
    taken = shuffled[: steps * batch_size]
    by_class = taken[labels.cpu()[taken].argsort(stable=True)]
    shards = by_class.tensor_split(2 * steps)
    drawn = torch.randperm(len(shards), generator=generator).tolist()
    return torch.cat([shards[i] for i in drawn])

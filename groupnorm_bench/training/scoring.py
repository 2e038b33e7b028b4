"""What is measured of a network between epochs and at the end: loss, logits, activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.training.way import Way

EVAL_BATCH = 100
PROBE_IMAGES = 256
"""Validation images on which activations are measured."""
GAP_IMAGES = 1_000
"""Validation images on which batch and running statistics are compared."""


def _batches(dataset: Dataset, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
        yield dataset.normalize(images), labels


@torch.no_grad()
def evaluate(way: Way, dataset: Dataset, split: Split) -> tuple[float, Tensor]:
    """Return the mean loss over a split and the logits, Float[Tensor, "n classes"], on the CPU."""
    way.model.eval()
    with way.context(EVAL_BATCH):
        batches = _batches(dataset, split, EVAL_BATCH)
        logits = torch.cat([way.forward(images).float() for images, _ in batches])
    return F.cross_entropy(logits, split.labels).item(), logits.cpu()


@torch.no_grad()
def activations(way: Way, norm_layers: Mapping[str, nn.Module], dataset: Dataset) -> EpochRow:
    """Return mean and deviation of what each norm layer puts out on a fixed probe batch."""
    row: EpochRow = {}

    def measure(name: str, features: Tensor) -> None:
        row[f"norm/{name}/activation_mean"] = features.float().mean().item()
        row[f"norm/{name}/activation_std"] = features.float().std().item()

    way.model.eval()
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: measure(name, output))
        for name, layer in norm_layers.items()
    ]
    try:
        with way.context(EVAL_BATCH):
            way.forward(dataset.normalize(dataset.val.images[:PROBE_IMAGES]))
    finally:
        for hook in hooks:
            hook.remove()
    return row


@torch.no_grad()
def eval_gap(way: Way, dataset: Dataset, batch_size: int, logits: Tensor) -> float:
    """Return the accuracy with each batch's own statistics minus that with running ones.

    In batches of the training size: Wu & He 2018, arXiv:1803.08494, section 1.

    Args:
        way: how to compute the network.
        dataset: of whose validation images the first `GAP_IMAGES` are taken, as far as they fill
            batches: a rest of one image has no statistics.
        batch_size: images of a training step.
        logits: of the validation images, with running statistics, as `evaluate` returns them.
    """
    num_images = min(GAP_IMAGES, len(dataset.val))
    size = min(batch_size, num_images)
    num_images -= num_images % size
    split = Split(dataset.val.images[:num_images], dataset.val.labels[:num_images])
    kept = {name: buffer.clone() for name, buffer in way.model.named_buffers()}
    way.model.train()
    try:
        with way.context(size):
            own = torch.cat([way.forward(i).argmax(1) for i, _ in _batches(dataset, split, size)])
    finally:
        for name, buffer in way.model.named_buffers():
            buffer.copy_(kept[name])
    running = logits[:num_images].argmax(1)
    hits = [int((found.cpu() == split.labels.cpu()).sum()) for found in (own, running)]
    return (hits[0] - hits[1]) / num_images

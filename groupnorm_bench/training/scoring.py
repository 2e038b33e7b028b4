"""What is measured of a network between epochs and at the end: loss, logits, activations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.fast import threads
from groupnorm_bench.fast.bf16 import autocast
from groupnorm_bench.models.cnn import CNN
from groupnorm_bench.settings.config import TrainConfig

EVAL_BATCH = 100
PROBE_IMAGES = 256
"""Validation images on which activations are measured."""
GAP_IMAGES = 1_000
"""Validation images on which batch and running statistics are compared."""

Row = dict[str, float]


def _batches(dataset: Dataset, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
        yield dataset.normalize(images), labels


@torch.no_grad()
def evaluate(
    model: CNN, dataset: Dataset, split: Split, config: TrainConfig
) -> tuple[float, Tensor]:
    """Return the mean loss over a split and the logits, Float[Tensor, "n 10"], on the CPU."""
    model.eval()
    outputs = []
    shared = threads.for_batches(model.use_loops, EVAL_BATCH)
    with autocast(config, split.images.device, model.use_loops), shared:
        for images, _ in _batches(dataset, split, EVAL_BATCH):
            outputs.append(model(images).float())
    logits = torch.cat(outputs)
    return F.cross_entropy(logits, split.labels).item(), logits.cpu()


@torch.no_grad()
def norm_diagnostics(model: CNN, dataset: Dataset, config: TrainConfig) -> Row:
    """Return what each norm layer puts out on a fixed probe batch, and BatchNorm's eval gap.

    `norm/eval_gap` is the accuracy with the batch's own statistics (batches of the training
    size) minus that with running ones: Wu & He 2018, arXiv:1803.08494, section 1.
    """
    row: Row = {}
    model.eval()
    probe = dataset.normalize(dataset.val.images[:PROBE_IMAGES])
    for name, features in model.norm_outputs(probe):
        row[f"norm/{name}/activation_mean"] = features.mean().item()
        row[f"norm/{name}/activation_std"] = features.std().item()
    if not config.norm_spec.has_running_statistics:
        return row
    split = Split(dataset.val.images[:GAP_IMAGES], dataset.val.labels[:GAP_IMAGES])
    running = _accuracy(model, dataset, split, EVAL_BATCH)
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    try:
        row["norm/eval_gap"] = _accuracy(model, dataset, split, config.batch_size) - running
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
    return row


def _accuracy(model: nn.Module, dataset: Dataset, split: Split, batch_size: int) -> float:
    hits = sum(
        (model(images).argmax(1) == labels).sum()
        for images, labels in _batches(dataset, split, batch_size)
        if len(images) == min(batch_size, len(split))  # whole batches: a rest of one has no batch
    )
    counted = max(len(split) // batch_size, 1) * min(batch_size, len(split))
    return int(hits) / counted

"""The table of networks: what the rest must know of each, and how it is built. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from groupnorm_bench.models.blocks import NormLayer

ImageShape = tuple[int, int, int]
"""Channels, height and width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What the rest of the tool must know of a network before it is built."""

    help: str
    build: Callable[[NormLayer, ImageShape, int], nn.Module]
    """Called as build(norm_layer, image_shape, num_classes); weights come from torch's generator,
    from which norm layers draw nothing."""
    norm_channels: Mapping[str, int]
    """Its norm layers: each one's name in the network, and the channels that it normalises."""


def _cnn(norm_layer: NormLayer, image_shape: ImageShape, num_classes: int) -> nn.Module:
    from groupnorm_bench.models.cnn import CNN

    return CNN(norm_layer, image_shape, num_classes)


MODELS: dict[str, ModelSpec] = {
    "cnn": ModelSpec(
        help="two blocks of 5x5 convolution, norm, ReLU and pooling: the W&B report's",
        build=_cnn,
        norm_channels={"norm1": 32, "norm2": 64},
    )
}

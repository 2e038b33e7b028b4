"""The table of networks: what the rest must know of each, and how it is built. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groupnorm_bench.errors import ConfigError, nearest

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
    apart: str | None = None
    """A norm layer that an addition parts from the ReLU behind it: there a norm that brings its
    own activation has no place."""


def _cnn(norm_layer: NormLayer, image_shape: ImageShape, num_classes: int) -> nn.Module:
    from groupnorm_bench.models.cnn import CNN

    return CNN(norm_layer, image_shape, num_classes)


def _resnet20(norm_layer: NormLayer, image_shape: ImageShape, num_classes: int) -> nn.Module:
    from groupnorm_bench.models.resnet import ResNet

    return ResNet(norm_layer, image_shape[0], num_classes)


def _resnet20_channels() -> dict[str, int]:
    channels = {"norm": 16}
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            channels |= {f"stage{stage}.{block}.norm{i}": width for i in (1, 2)}
    return channels


MODELS: dict[str, ModelSpec] = {
    "cnn": ModelSpec(
        help="two blocks of 5x5 convolution, norm, ReLU and pooling: the W&B report's",
        build=_cnn,
        norm_channels={"norm1": 32, "norm2": 64},
    ),
    "resnet20": ModelSpec(
        help="19 convolutions of 3x3 in nine residual blocks: He et al. 2015, section 4.2",
        build=_resnet20,
        norm_channels=_resnet20_channels(),
        apart="stage1.0.norm2",
    ),
}


def model_spec(name: str) -> ModelSpec:
    """Return the spec of a network.

    Raises:
        ConfigError: there is none of this name.
    """
    if name in MODELS:
        return MODELS[name]
    raise ConfigError(f"model={name!r} is unknown{nearest(name, MODELS)}")

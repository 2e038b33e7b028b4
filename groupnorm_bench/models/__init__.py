"""The table of networks: what the rest must know of each, and how it is built. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from groupnorm_bench.errors import ConfigError, nearest
from groupnorm_bench.own import is_own

if TYPE_CHECKING:
    from torch import nn

    from groupnorm_bench.models.blocks import NormLayer

ImageShape = tuple[int, int, int]
"""Channels, height and width."""


Build: TypeAlias = "Callable[[NormLayer, ImageShape, int], nn.Module]"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What the rest of the tool must know of a network before it is built."""

    help: str
    build: Build
    """Called as build(norm_layer, image_shape, num_classes); weights come from torch's generator,
    from which norm layers draw nothing. Where it never calls `norm_layer`, the norms of what it
    returns are exchanged."""
    norm_channels: Mapping[str, int]
    """Its norm layers: each one's name in the network, and the channels that it normalises; empty
    where only the network, once built, tells."""
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


LIBRARIES = ("torchvision", "timm")
"""Whose classifiers are models by name: `timm:resnet18`."""


def model_spec(name: str) -> ModelSpec:
    """Return the spec of a network: a key of `MODELS`, or one made elsewhere.

    Those are `torchvision:NAME`, `timm:NAME` and a user's `package.module:make_model`; nothing is
    imported here, so whether there is one of that name shows when it is built.

    Raises:
        ConfigError: `name` is none of these.
    """
    if name in MODELS:
        return MODELS[name]
    origin, _, its_name = name.partition(":")
    if origin in LIBRARIES:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", its_name):
            raise ConfigError(f"model={name!r} names no network; write {origin}:resnet18")
        return ModelSpec(
            help=f"{its_name} of {origin}", build=_of_library(origin, its_name), norm_channels={}
        )
    if is_own(name):
        return ModelSpec(help=f"your own, {name}", build=_own(name), norm_channels={})
    known = (*MODELS, "torchvision:NAME", "timm:NAME", "package.module:make_model")
    raise ConfigError(f"model={name!r} is unknown{nearest(name, known)}")


def _of_library(origin: str, its_name: str) -> Build:
    def build(norm_layer: NormLayer, image_shape: ImageShape, num_classes: int) -> nn.Module:
        from groupnorm_bench.models import elsewhere

        make = elsewhere.build_timm if origin == "timm" else elsewhere.build_torchvision
        return make(its_name, image_shape[0], num_classes)

    return build


def _own(name: str) -> Build:
    def build(norm_layer: NormLayer, image_shape: ImageShape, num_classes: int) -> nn.Module:
        from groupnorm_bench.models.elsewhere import build_own

        return build_own(name, norm_layer, image_shape[0], num_classes)

    return build

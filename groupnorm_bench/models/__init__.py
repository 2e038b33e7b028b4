"""The table of networks: what the rest must know of each, before it is built. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What the rest of the tool must know of a network before it is built."""

    help: str
    norm_channels: Mapping[str, int]
    """Its norm layers: each one's name in the network, and the channels that it normalises."""


MODELS: dict[str, ModelSpec] = {
    "cnn": ModelSpec(
        help="two blocks of 5x5 convolution, norm, ReLU and pooling: the W&B report's",
        norm_channels={"norm1": 32, "norm2": 64},
    )
}

"""What networks are built of, so that one network takes every norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class NormLayer:
    """An arm's factory of norm layers, and of the layers around them that depend on the norm."""

    make: Callable[[int], nn.Module]
    """From num_channels to a layer for features [batch, num_channels, height, width]."""
    fuses_activation: bool = False
    standardizes_weights: bool = False
    made: list[tuple[nn.Module, int]] = field(default_factory=list)
    """The layers made so far, and the channels of each."""
    asked_for: set[str] = field(default_factory=set)
    """Which of `activation` and `conv` were called."""

    def __call__(self, num_channels: int) -> nn.Module:
        layer = self.make(num_channels)
        self.made.append((layer, num_channels))
        return layer

    def activation(self) -> nn.Module:
        """Return what follows the norm: ReLU, unless the norm activates by itself."""
        self.asked_for.add("activation")
        return nn.Identity() if self.fuses_activation else nn.ReLU()

    def conv(self, *arguments: Any, **options: Any) -> nn.Conv2d:
        """Return the convolution before the norm; arguments are those of `nn.Conv2d`."""
        self.asked_for.add("conv")
        if not self.standardizes_weights:
            return nn.Conv2d(*arguments, **options)
        from timm.layers.std_conv import StdConv2d

        return StdConv2d(*arguments, **options)

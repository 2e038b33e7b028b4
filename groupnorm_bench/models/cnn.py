"""The CNN of the W&B report, with a pluggable norm, of torch's own modules."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from groupnorm_bench.models import ImageShape
from groupnorm_bench.models.blocks import NormLayer


class CNN(nn.Sequential):
    """Two blocks of 5x5 convolution, norm, ReLU and 2x2 max-pool, then one linear layer.

    For images [batch, *image_shape], logits [batch, num_classes]; for 28 x 28 pixels of one channel
    and ten classes 83,466 parameters without norm, 83,658 with a scale and a shift per channel.
    """

    def __init__(self, norm_layer: NormLayer, image_shape: ImageShape, num_classes: int) -> None:
        channels, height, width = image_shape
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, out_channels in enumerate((32, 64), 1):
            layers[f"conv{i}"] = norm_layer.conv(channels, out_channels, 5, padding=2, bias=True)
            layers[f"norm{i}"] = norm_layer(out_channels)
            layers[f"activation{i}"] = norm_layer.activation()
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            channels = out_channels
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels * (height // 4) * (width // 4), num_classes)
        super().__init__(layers)

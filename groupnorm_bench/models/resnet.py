"""The residual network for small images, with a pluggable norm, of torch's own modules."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groupnorm_bench.models.blocks import NormLayer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with its norm, and a shortcut without parameters around them.

    Where the block halves the map and widens it, the shortcut takes every second pixel and pads
    with zero channels: option A of He et al. 2015, arXiv:1512.03385, section 3.3.
    """

    def __init__(self, norm_layer: NormLayer, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stride = out_channels // in_channels
        self.padding = out_channels - in_channels
        self.conv1 = _conv3x3(norm_layer, in_channels, out_channels, self.stride)
        self.norm1 = norm_layer(out_channels)
        self.activation1 = norm_layer.activation()
        self.conv2 = _conv3x3(norm_layer, out_channels, out_channels)
        self.norm2 = norm_layer(out_channels)
        self.activation2 = nn.ReLU()  # behind the addition, so never part of a norm

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Return what the next block takes."""
        inner = self.activation1(self.norm1(self.conv1(features)))
        inner = self.norm2(self.conv2(inner))
        shortcut = features[:, :, :: self.stride, :: self.stride]
        if self.padding:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.padding))
        return self.activation2(inner + shortcut)


class ResNet(nn.Module):
    """ResNet-20: He et al. 2015, arXiv:1512.03385, section 4.2, with n = 3.

    A 3x3 convolution, three stages of three blocks of 16, 32 and 64 channels, the mean over pixels
    and one linear layer. For images [batch, in_channels, height, width] of any size, logits
    [batch, num_classes]; with three channels, ten classes and an affine norm 269,722 parameters
    (the paper: 0.27 million). Convolutions have no bias and start as in He et al. 2015,
    arXiv:1502.01852, eq. 10: normal, with variance 2 / inputs.
    """

    def __init__(self, norm_layer: NormLayer, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = _conv3x3(norm_layer, in_channels, 16)
        self.norm = norm_layer(16)
        self.activation = norm_layer.activation()
        self.stage1 = _stage(norm_layer, 16, 16)
        self.stage2 = _stage(norm_layer, 16, 32)
        self.stage3 = _stage(norm_layer, 32, 64)
        self.linear = nn.Linear(64, num_classes)

    def forward(
        self, images: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return logits."""
        features = self.activation(self.norm(self.conv(images)))
        features = self.stage3(self.stage2(self.stage1(features)))
        return self.linear(features.mean((2, 3)))


def _stage(norm_layer: NormLayer, in_channels: int, channels: int) -> nn.Sequential:
    blocks = [BasicBlock(norm_layer, inputs, channels) for inputs in (in_channels, channels)]
    return nn.Sequential(*blocks, BasicBlock(norm_layer, channels, channels))


def _conv3x3(norm_layer: NormLayer, inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    conv = norm_layer.conv(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv

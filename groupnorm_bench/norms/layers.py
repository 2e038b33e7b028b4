"""Norm layers that neither torch nor timm keeps: RMS group norm, batch renorm, ghost batch norm."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class RMSGroupNorm(nn.Module):
    """Group norm without the mean: x / sqrt(mean(x^2) + eps) per image and group, then an affine.

    Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4, taken over GroupNorm's blocks
    (num_channels / num_groups, height, width) instead of over a whole vector.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        groups = features.unflatten(1, (self.num_groups, -1))  # [B, G, C/G, H, W]
        scale = groups.square().mean((2, 3, 4), keepdim=True).add(self.eps).rsqrt()
        normed = (groups * scale).flatten(1, 2)
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


class BatchRenorm2d(nn.BatchNorm2d):
    """Batch norm whose training output is corrected towards its running statistics.

    Ioffe 2017, arXiv:1702.03275, algorithm 1: x_hat = (x - mean_B) / std_B * r + d, with
    r = std_B / std clipped to [1/r_max, r_max] and d = (mean_B - mean) / std clipped to
    [-d_max, d_max], neither of them differentiated. r_max and d_max grow linearly from plain
    batch norm (1 and 0) to 3 and 5; the paper does so over its first 40,000 and 25,000 steps,
    here over `warmup_steps`, since our trainings are hundreds of steps long.
    """

    def __init__(
        self,
        num_features: int,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup_steps: int = 500,
    ) -> None:
        super().__init__(num_features)
        self.r_max = r_max
        self.d_max = d_max
        self.warmup_steps = warmup_steps

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        if not self.training:
            return super().forward(features)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            mean = features.mean((0, 2, 3))
            std = (features.var((0, 2, 3), unbiased=False) + self.eps).sqrt()
            running_std = (self.running_var + self.eps).sqrt()
            ramp = (self.num_batches_tracked / self.warmup_steps).clamp(max=1.0)
            r_max = 1.0 + (self.r_max - 1.0) * ramp
            d_max = self.d_max * ramp
            r = torch.clamp(std / running_std, 1.0 / r_max, r_max)
            d = torch.clamp((mean - self.running_mean) / running_std, -d_max, d_max)
        normed = F.batch_norm(  # updates the running statistics
            features,
            self.running_mean,
            self.running_var,
            training=True,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )
        self.num_batches_tracked.add_(1)
        scale = (r * self.weight)[:, None, None]
        shift = (d * self.weight + self.bias)[:, None, None]
        return normed * scale + shift


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over sub-batches ("ghost batches"), for less reliance on a large batch.

    Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1. The batch is cut into
    ceil(batch / ghost_size) nearly equal parts, whose statistics enter the running ones one after
    the other; evaluation uses those. So ghosts are Wu and He's batches of one GPU among several.
    """

    def __init__(self, num_features: int, ghost_size: int) -> None:
        super().__init__(num_features)
        self.ghost_size = ghost_size

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        if not self.training or len(features) <= self.ghost_size:
            return super().forward(features)
        parts = -(-len(features) // self.ghost_size)
        normed = [super(GhostBatchNorm2d, self).forward(p) for p in features.tensor_split(parts)]
        return torch.cat(normed)

"""What the norm layers of a network meet in a forward pass."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.models.sites import survey
from groupnorm_bench.models.swap import swap_norms


def surveyed(model, num_groups, images):
    sites = swap_norms(model, lambda channels: nn.GroupNorm(num_groups, channels))
    return survey(model, sites, images)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 3)

    def forward(self, images):
        features = self.norm(self.norm(images)[:, :, ::2])
        return self.linear(features.mean((2, 3)))


def test_a_layer_called_twice_is_judged_by_its_smaller_map():
    found = surveyed(Twice(), 2, torch.randn(2, 4, 6, 5))
    (use,) = found.uses
    assert (use.calls, use.map_size, use.num_groups, use.elements) == (2, (3, 5), 2, 2 * 3 * 5)
    assert found.parameters == 8 + 15
    assert found.multiply_adds == 12
    assert found.output_shape == (3,)


def test_resnet18_has_its_published_size_on_the_meta_device():
    """ResNet-18: 11.69 million parameters and 1.81 thousand million multiply-adds at 224 x 224."""
    with torch.device("meta"):
        found = surveyed(torchvision.models.resnet18(), 32, torch.empty(1, 3, 224, 224))
    assert found.parameters == 11_689_512
    assert round(found.multiply_adds / 1e9, 2) == 1.81
    assert [use.map_size for use in found.uses[:2]] == [(112, 112), (56, 56)]
    assert len(found.uses) == 20
    assert {use.calls for use in found.uses} == {1}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten()),
            r"norm layer '1' \(GroupNorm, 4 channels in 4 groups, features 1x1\) would normalise",
        ),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)),
            r"norm layer '2' \(GroupNorm, 4 channels in 4 groups, features without pixels\)",
        ),
        (nn.Sequential(nn.BatchNorm2d(4)), r"Sequential returned \[2, 4, 6, 5\] for 2 images"),
        (
            nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3, 2)),
            r"Sequential cannot take images shaped \[4, 6, 5\]: RuntimeError",
        ),
    ],
)
def test_what_would_give_a_constant_or_no_logits_is_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        surveyed(model, 4, torch.randn(2, 4, 6, 5))

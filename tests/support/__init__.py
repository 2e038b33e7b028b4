"""What several test modules share."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The checkout."""

FAILS_LATE = """
import torch


class Norm(torch.nn.Module):
    def forward(self, x):
        if len(x) > 16:
            raise ValueError("no such luck")
        return x


def make(num_channels, num_groups):
    return Norm()
"""
"""A module with a norm that passes what a plan tries with few images, and fails in training."""

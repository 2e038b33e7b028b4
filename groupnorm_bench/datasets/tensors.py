"""A data set as tensors, resident on one device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groupnorm_bench.datasets import DatasetSpec
from groupnorm_bench.errors import DataError
from groupnorm_bench.wording import count

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Split:
    """Images and labels of one part.

    Attributes:
        images: UInt8[Tensor, "n channels height width"].
        labels: Int64[Tensor, "n"].
    """

    images: UInt8[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set cut into train, val and test, as uint8 pixels."""

    name: str
    spec: DatasetSpec
    train: Split
    val: Split
    test: Split

    def normalize(
        self, images: UInt8[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n channels height width"]:
        """Return pixels as the network takes them: zero mean and unit variance over the data."""
        mean, std = self.spec.mean, self.spec.std
        return images.float().mul_(1 / (255 * std)).sub_(mean / std)

    def to(self, device: torch.device) -> Dataset:
        """Return the same data set resident on `device`."""
        train, val, test = (
            Split(part.images.to(device), part.labels.to(device))
            for part in (self.train, self.val, self.test)
        )
        return dataclasses.replace(self, train=train, val=val, test=test)

    def limited(self, train_limit: int | None) -> Dataset:
        """Return the data set with only the first `train_limit` training images.

        Training images lie in stratified order, so every prefix holds the classes in their
        proportions, and smaller subsets are parts of larger ones.

        Raises:
            DataError: there are fewer training images than that.
        """
        if train_limit is None:
            return self
        if train_limit > len(self.train):
            raise DataError(
                f"train_limit={train_limit} is more than the "
                f"{count(len(self.train), 'training image')} of {self.name}; set it to at most that"
            )
        train = Split(self.train.images[:train_limit], self.train.labels[:train_limit])
        return dataclasses.replace(self, train=train)

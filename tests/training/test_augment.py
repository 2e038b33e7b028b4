"""Augmentation moves and mirrors, draws for a whole epoch, and is the same in every arm."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.errors import TrainingStopped
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.settings.fields import AUGMENTATIONS
from groupnorm_bench.training.augment import Augmentation
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import train


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The bundled digits with little to evaluate."""
    every = load_dataset("mnist-5k", Path("unused"))
    val, test = (Split(part.images[:120], part.labels[:120]) for part in (every.val, every.test))
    return dataclasses.replace(every, val=val, test=test)


def moved(kind: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = Augmentation(kind, len(images), torch.Generator().manual_seed(3))
    return drawn(images, 0), drawn.moves


def test_none_is_none():
    images = torch.randint(0, 256, (4, 1, 6, 6), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert Augmentation("none", 4, generator)(images, 0) is images
    assert torch.equal(generator.get_state(), before), "so older runs keep their bits"


@pytest.mark.parametrize(("kind", "margin"), [("shift", 2), ("crop-flip", 4)])
def test_an_image_is_moved_as_drawn_and_black_comes_in(kind, margin):
    """A second way: roll a padded image, pixel by pixel."""
    images = torch.randint(1, 256, (200, 3, 9, 7), dtype=torch.uint8)
    found, moves = moved(kind, images)
    assert moves[:, :2].unique().tolist() == list(range(2 * margin + 1))
    for image, (down, right, flip), result in zip(images, moves.tolist(), found, strict=True):
        expected = torch.zeros_like(image)
        for y in range(9):
            for x in range(7):
                old_y, old_x = y + down - margin, (6 - x if flip else x) + right - margin
                if 0 <= old_y < 9 and 0 <= old_x < 7:
                    expected[:, y, x] = image[:, old_y, old_x]
        assert torch.equal(result, expected)
    assert set(moves[:, 2].tolist()) == ({0, 1} if kind == "crop-flip" else {0})


def test_each_batch_of_an_epoch_has_its_own_draws():
    images = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).repeat(40, 1, 1, 1)
    drawn = Augmentation("shift", 40, torch.Generator().manual_seed(1))
    whole = drawn(images, 0)
    assert torch.equal(torch.cat([drawn(images[:10], 10 * i) for i in range(4)]), whole)
    assert len(whole.flatten(1).unique(dim=0)) > 10


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_run_stopped_within_an_epoch_goes_on_with_the_same_bits(kind, digits):
    config = TrainConfig(
        norm="batch", augment=kind, epochs=2, train_limit=200, batch_size=20, dataset="mnist-5k"
    )
    whole = train(config, digits)
    states = []
    steps = []
    hooks = Hooks(
        on_step=lambda step, loss, accuracy: steps.append(step),
        should_stop=lambda: steps[-1] == 13,
        save=lambda state, history: states.append(copy.deepcopy(state)),
    )
    with pytest.raises(TrainingStopped, match="stopped at step 13"):
        train(config, digits, hooks=hooks)
    again = train(config, digits, checkpoint=states[-1])
    assert again.history[-1]["train/loss"] == whole.history[-1]["train/loss"]
    if kind != "none":
        plain = train(config.replace(augment="none"), digits)
        assert plain.history[0]["train/loss"] != whole.history[0]["train/loss"]

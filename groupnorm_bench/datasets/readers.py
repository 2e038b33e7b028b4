"""Readers of data of one's own: class folders of images, `.npz` archives, a function's arrays."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groupnorm_bench.datasets import mapped
from groupnorm_bench.datasets.files import Array
from groupnorm_bench.errors import DataError, one_line
from groupnorm_bench.own import own_function

Pair = tuple[Any, Any]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
PARTS = ("train", "val", "test")
MAX_SIDE = 1_024
"""Pixels."""
_SMALL = 1 << 24
"""Bytes that are read at once, and that are in memory wherever the rest is."""
_KEYS = (
    {part: (f"x_{part}", f"y_{part}") for part in PARTS},
    {part: (f"{part}_images", f"{part}_labels") for part in PARTS},
    {"train": ("images", "labels")},
)
"""Keras', MedMNIST's, and those of data in one piece."""
_KEYS_IN_WORDS = (
    "x_train, y_train[, x_test, y_test], train_images, train_labels[, val_..., test_...] "
    "or images, labels"
)


class OwnData(NamedTuple):
    """What a reader read, as it came: images and labels of each part that is there."""

    parts: dict[str, Pair]
    """`train`, and `val` and `test` where they come apart."""
    class_names: tuple[str, ...] = ()


def files_of(folder: Path) -> list[Path]:
    """Return the images of a folder of class folders, in the order in which they are read.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"folder:{folder} is no folder; give one with a folder for each class")
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in sorted(files) if not name.startswith(".")]
    images = [path for path in found if path.suffix.lower() in _SUFFIXES]
    for path in images:
        if not path.is_file():
            raise DataError(f"{path} is no file")
    return images


def read_folder(folder: Path) -> OwnData:
    """Read class folders, `DIR/CLASS/IMAGE`, or `DIR/train/CLASS/IMAGE` with `val` and `test`.

    Files whose suffix is no image's, and names that begin with a dot, are left out.

    Args:
        folder: holds the classes, or `train` and at least one of `val` and `test`.

    Raises:
        DataError: an image cannot be read, has another size, or lies outside a class; or there is
            room for all of them neither in memory nor on disk.
    """
    files = files_of(folder)
    tops = {path.relative_to(folder).parts[0] for path in files}
    split = {"train"} < tops <= set(PARTS)
    parts: dict[str, list[tuple[str, Path]]] = {}
    for path in files:
        inner = path.relative_to(folder).parts
        part, inner = (inner[0], inner[1:]) if split else ("train", inner)
        if len(inner) != 2:
            raise DataError(f"{path} lies in no class; the files are {folder}/CLASS/IMAGE")
        parts.setdefault(part, []).append((inner[0], path))
    if not files:
        raise DataError(f"folder:{folder} holds no images; they are {folder}/CLASS/IMAGE")
    names = sorted({name for members in parts.values() for name, _ in members})
    shape = _common_shape(files)
    on_disk = len(files) * shape[0] * shape[1] * shape[2] > mapped.MOST_IN_MEMORY
    what = f"the {len(files):,} images of {folder}"
    pairs = {}
    for part, members in parts.items():
        images = mapped.empty((len(members), *shape), on_disk=on_disk, what=what)
        for i, (_, path) in enumerate(members):
            images[i] = _pixels(path, shape[0])
        pairs[part] = (images, np.array([names.index(name) for name, _ in members]))
    return OwnData(pairs, tuple(names))


def _common_shape(files: Sequence[Path]) -> tuple[int, int, int]:
    """Return channels, height and width of all images, before any is decoded."""
    first: tuple[int, int] | None = None
    channels = 1
    for path in files:
        with _opened(path) as image:
            if first is None:
                first = image.size
            if image.size != first:
                raise DataError(
                    f"{path} has {image.width}x{image.height} pixels, and {files[0]} "
                    f"{first[0]}x{first[1]}; bring all to one size"
                )
            if max(image.size) > MAX_SIDE:
                raise DataError(f"{path} has more than {MAX_SIDE} pixels a side; make it smaller")
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits a pixel; save it with 8")
            if image.mode not in ("1", "L", "LA"):
                channels = 3
    assert first is not None
    return channels, first[1], first[0]


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(path)
    except Exception as error:  # PIL raises a dozen kinds
        raise DataError(f"{path} is no image that can be read: {one_line(error)}") from error


def _pixels(path: Path, channels: int) -> Array:
    """Return uint8 [channels, height, width]."""
    with _opened(path) as image:
        try:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        except Exception as error:  # while decoding, likewise
            raise DataError(f"{path} is no image that can be read: {one_line(error)}") from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def read_npz(path: Path) -> OwnData:
    """Read an archive of arrays under Keras' or MedMNIST's names; nothing in it is executed.

    Raises:
        DataError: it is no such archive, or unpacked there is room for it neither in memory nor on
            disk.
    """
    if not path.is_file():
        raise DataError(f"npz:{path} is no file")
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = [*_parts_in(members, f"npz:{path}").values()]
            keys = [key for pair in wanted for key in pair]
            keys += ["class_names"] * ("class_names" in members)
            size = sum(members[key].file_size for key in keys)
            on_disk = size > mapped.MOST_IN_MEMORY
            for key in keys:
                with archive.open(members[key]) as file:
                    what = f"{path}: {key}"
                    arrays[key] = _read_npy(file, members[key].file_size, what, on_disk)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise DataError(f"npz:{path} cannot be read: {one_line(error)}") from error
    return _from_mapping(arrays, f"npz:{path}")


def _read_npy(file: Any, size: int, what: str, on_disk: bool) -> Array:
    """Read an array whose header is held against the bytes that are there."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        header = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled objects, which are never loaded; save plain arrays")
    length = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
    if length > size:
        raise DataError(f"{what} is truncated or altered: its header promises {length:,} bytes")
    content = mapped.empty((length,), on_disk=on_disk and length > _SMALL, what=what)
    for start in range(0, length, _SMALL):
        piece = file.read(min(_SMALL, length - start))
        content[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        if len(piece) < min(_SMALL, length - start):
            raise EOFError("it ends too early")
    array = content.view(dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _parts_in(keys: Mapping[str, Any], what: str) -> dict[str, tuple[str, str]]:
    for convention in _KEYS:
        images, labels = convention["train"]
        if images in keys and labels in keys:
            return {p: pair for p, pair in convention.items() if set(pair) <= set(keys)}
    has = ", ".join(sorted(keys)) or "none"
    raise DataError(f"{what} has the keys {has}; they are to be {_KEYS_IN_WORDS}")


def _from_mapping(arrays: Mapping[str, Any], what: str) -> OwnData:
    parts = {
        part: (arrays[images], arrays[labels])
        for part, (images, labels) in _parts_in(arrays, what).items()
    }
    return OwnData(parts, tuple(str(name) for name in arrays.get("class_names", ())))


def call_function(name: str) -> OwnData:
    """Call `package.module:load`: arrays by the keys of an archive, (images, labels), or Keras'
    ((x_train, y_train), (x_test, y_test)).

    Raises:
        DataError: it cannot be imported, raises, or returns something else.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            told = own_function(name)()
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise DataError(f"dataset={name!r} cannot be loaded: {one_line(error)}") from error
    if isinstance(told, Mapping):
        return _from_mapping(told, f"what {name} returned")
    if isinstance(told, tuple) and len(told) == 2:
        if all(isinstance(part, tuple) and len(part) == 2 for part in told):
            return OwnData({"train": told[0], "test": told[1]})
        return OwnData({"train": (told[0], told[1])})
    raise DataError(
        f"dataset={name!r} returned {type(told).__name__}; return (images, labels), "
        "((x_train, y_train), (x_test, y_test)) or a dictionary of arrays"
    )

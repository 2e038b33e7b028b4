"""Arrays that would take too much memory: in a file without a name, mapped.

The file lies where fetched data lie, since a temporary folder may be memory itself; it is gone with
the process. Its bytes are reserved at once: a write to a mapped page that finds no room ends a
process, while a reservation that fails is one line.
"""

from __future__ import annotations

import os
import sys
import tempfile

import numpy as np

from groupnorm_bench.datasets.files import Array
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.errors import DataError

MOST_IN_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
"""Bytes of a data set's pixels."""
_COPIES = 3
"""Of an array on disk at one time: as it was read, channels first, and cut into parts."""
_CHUNK = 256
"""Images that are copied at once."""


def empty(shape: tuple[int, ...], *, on_disk: bool, what: str) -> Array:
    """Return an array of bytes to be filled.

    Raises:
        DataError: `what` has no room on the disk.
    """
    if not on_disk:
        return np.empty(shape, np.uint8)
    size = int(np.prod(shape, dtype=object))
    folder = default_data_dir().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = os.statvfs(folder)
        if _COPIES * size > room.f_bavail * room.f_frsize:
            raise OSError(f"{folder} has {room.f_bavail * room.f_frsize / 2**30:,.1f} GiB left")
        with tempfile.TemporaryFile(dir=folder) as file:
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except (OSError, OverflowError, ValueError) as error:
        raise DataError(
            f"{what} would take {size / 2**30:,.1f} GiB: {MOST_IN_MEMORY / 2**30:,.1f} GiB of "
            f"memory are the most here, and on disk there is no room for {_COPIES} times as much "
            f"({error}); take fewer or smaller images"
        ) from error


def is_mapped(array: Array) -> bool:
    """Return whether an array is mapped from a file."""
    found: object = array
    while isinstance(found, np.ndarray):
        if isinstance(found, np.memmap):
            return True
        found = found.base
    return False


def taken(images: Array, order: Array) -> Array:
    """Return `images[order]`, on disk where the images are."""
    if not is_mapped(images):
        return images[order]
    into = empty((len(order), *images.shape[1:]), on_disk=True, what="a part of them")
    for i in range(0, len(order), _CHUNK):
        into[i : i + _CHUNK] = images[order[i : i + _CHUNK]]
    return into


def contiguous(images: Array) -> Array:
    """Return images in one piece of memory, or of a file that may be written to."""
    if not is_mapped(images):
        return np.ascontiguousarray(images)
    if images.flags.c_contiguous and images.flags.writeable:
        return images
    return taken(images, np.arange(len(images)))

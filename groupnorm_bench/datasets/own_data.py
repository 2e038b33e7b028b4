"""Data of one's own: read, checked, and known by their content.

The content's hash is computed once for as long as the files keep size and time; what was found
(shape, classes, mean, hash) is kept in the user's cache, the pixels are not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from groupnorm_bench.datasets import Counts, DatasetSpec
from groupnorm_bench.datasets.files import Array, Arrays
from groupnorm_bench.datasets.mapped import contiguous
from groupnorm_bench.datasets.naming import (
    FOLDER,
    HASH_DIGITS,
    NPZ,
    is_function,
    split_name,
)
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.datasets.readers import (
    MAX_SIDE,
    OwnData,
    call_function,
    files_of,
    read_folder,
    read_npz,
)
from groupnorm_bench.datasets.split import stratified_order
from groupnorm_bench.errors import DataError
from groupnorm_bench.files import write_atomic
from groupnorm_bench.wording import count

FEWEST_IMAGES = 30
"""Of a whole data set: fewer make no three parts."""
MIN_SIDE = 4
"""Pixels."""
MAX_CLASSES = 10_000
VAL_SHARE, TEST_SHARE = 0.1, 0.2
"""Of the images from which a part is cut, where it does not come apart."""
_VERSION = 1
"""Of what the cache holds."""

_known: dict[str, dict[str, Any]] = {}
_adopted: dict[str, dict[str, Any]] = {}
"""What another process knew of data whose files may not be here."""
_held: dict[str, Arrays] = {}
"""What was read to be described, for who loads it next; one data set at most."""


def resolve_own(name: str) -> str:
    """Return a name with its content's hash behind it.

    Raises:
        DataError: the data cannot be read or trained on, or are not those that the name is bound
            to.
    """
    return f"{split_name(name)[0]}@{_facts(name)['hash']}"


def own_spec(name: str) -> DatasetSpec:
    """Return what is known of data of one's own; they are read if nothing is known yet.

    Raises:
        DataError: see `resolve_own`.
    """
    facts = _facts(name)
    return DatasetSpec(
        help=f"your own, {split_name(name)[0]}",
        image_shape=tuple(facts["image_shape"]),
        num_classes=facts["num_classes"],
        counts=Counts(*facts["counts"]),
        mean=facts["mean"],
        std=facts["std"],
        load=lambda _: _load(name),
        class_names=tuple(facts["class_names"]),
    )


def facts_of(name: str) -> dict[str, Any]:
    """Return all that is known of data, in plain values, for `adopt` in another process.

    Raises:
        DataError: see `resolve_own`.
    """
    return dict(_facts(name))


def adopt(name: str, facts: dict[str, Any]) -> None:
    """Take what is known of data from another process, which holds their files."""
    _adopted[name] = facts


def _load(name: str) -> Arrays:
    plain, bound = split_name(name)
    held = _held.pop(plain, None)
    if held is not None:
        return held
    arrays, names = _read(plain)
    found = _content_hash(arrays, names)
    if bound is not None and found != bound:
        raise _changed(plain, bound, found)
    return arrays


def _changed(plain: str, bound: str, found: str) -> DataError:
    return DataError(
        f"dataset={plain!r} holds other images than {bound} (now {found}); what a run was trained "
        "on must not change: type the name without @ for a run of its own"
    )


def _facts(name: str) -> dict[str, Any]:
    """Return what the cache knows of the data, read anew if they changed or are new."""
    if name in _adopted:
        return _adopted[name]
    plain, bound = split_name(name)
    key = _key(plain, bound)
    facts = _known.get(key) or _recalled(key)
    if facts is None:
        arrays, names = _read(plain)
        facts = _describe(arrays, names)
        _held.clear()
        _held[plain] = arrays
        key = _key(plain, facts["hash"])  # a function without its hash may give others next time
        _keep(key, facts)
    if key:
        _known[key] = facts
    if bound is not None and facts["hash"] != bound:
        raise _changed(plain, bound, facts["hash"])
    return facts


def _key(plain: str, bound: str | None) -> str:
    """Return what stands for the state of the data: their files' sizes and times."""
    state: list[Any] = [_VERSION, plain, os.getcwd()]
    if is_function(plain):
        return json.dumps([*state, bound]) if bound else ""
    path = Path(plain.partition(":")[2])
    files = files_of(path) if plain.startswith(FOLDER) else [path]
    for file in files:
        try:
            found = file.stat()
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}; it is no {plain[:4]} data") from error
        state.append((str(file), found.st_size, found.st_mtime_ns))
    return json.dumps(state)


def _cache_path(key: str) -> Path:
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
    return default_data_dir().parent / "own-data" / f"{digest}.json"


def _recalled(key: str) -> dict[str, Any] | None:
    if not key:
        return None
    try:
        facts = json.loads(_cache_path(key).read_text(encoding="utf-8"))
        Counts(*facts["counts"]), len(facts["image_shape"]), facts["hash"], facts["mean"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if isinstance(facts, dict) else None


def _keep(key: str, facts: dict[str, Any]) -> None:
    if key:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            path = _cache_path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(facts).encode())


def _read(plain: str) -> tuple[Arrays, tuple[str, ...]]:
    """Read and check all parts."""
    path = Path(plain.partition(":")[2])
    if plain.startswith(NPZ):
        data = read_npz(path)
    elif plain.startswith(FOLDER):
        data = read_folder(path)
    else:
        data = call_function(plain)
    return _checked(plain, data)


def _checked(plain: str, data: OwnData) -> tuple[Arrays, tuple[str, ...]]:
    parts = {
        part: _pair(f"{plain}: {part}", images, labels)
        for part, (images, labels) in data.parts.items()
    }
    images, labels = parts["train"]
    shapes = {part: images.shape[1:] for part, (images, _) in parts.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{plain} has parts of different shapes, {shapes}; bring all to one")
    height, width = images.shape[2:]
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise DataError(
            f"{plain} has images of {width}x{height} pixels; {MIN_SIDE} to {MAX_SIDE} a side can "
            "be trained on"
        )
    total = sum(len(labels) for _, labels in parts.values())
    if total < FEWEST_IMAGES:
        raise DataError(f"{plain} holds {count(total, 'image')}; {FEWEST_IMAGES} is the least")
    num_classes = int(max(labels.max() for _, labels in parts.values())) + 1
    if num_classes > MAX_CLASSES:
        raise DataError(
            f"{plain} has labels up to {num_classes - 1:,}; number classes from 0, "
            f"{MAX_CLASSES:,} at most"
        )
    missing = sorted(set(range(num_classes)) - set(np.unique(labels).tolist()))
    if missing:
        raise DataError(
            f"{plain} has labels up to {num_classes - 1} and no training image of class "
            f"{missing[0]}; number the classes that are there from 0"
        )
    if num_classes < 2:
        raise DataError(f"{plain} holds one class; there is nothing to tell apart")
    names = data.class_names
    if names and len(names) != num_classes:
        raise DataError(f"{plain} names {len(names)} classes and has {num_classes}; name each once")
    if int(images.max()) == int(images.min()):
        raise DataError(f"{plain} has training images of one and the same grey; nothing to learn")
    test_images, test_labels = parts.get("test", (None, None))
    val_images, val_labels = parts.get("val", (None, None))
    arrays = Arrays(
        images,
        labels,
        test_images,
        test_labels,
        val_images=val_images,
        val_labels=val_labels,
    )
    return arrays, names


def _pair(what: str, images: Any, labels: Any) -> tuple[Array, Array]:
    """Return images uint8 [n, channels, height, width] and labels int64 [n]."""
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        kinds = f"{type(images).__name__} and {type(labels).__name__}"
        raise DataError(f"{what} is {kinds}; give images and labels as numpy arrays")
    if images.dtype != np.uint8:
        raise DataError(f"{what} images are {images.dtype}; give grey levels 0 to 255 as uint8")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{what} images are shaped {list(images.shape)}; give [n, height, width] or "
            "[n, height, width, channels] with 1 or 3 channels"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:  # as MedMNIST has them
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{what} labels are {labels.dtype} shaped {list(labels.shape)}; give a whole number "
            "an image"
        )
    if len(images) != len(labels) or len(labels) == 0:
        raise DataError(
            f"{what} has {count(len(images), 'image')} and {count(len(labels), 'label')}"
        )
    if labels.min() < 0:
        raise DataError(f"{what} has the label {labels.min()}; number classes from 0")
    return contiguous(images), labels.astype(np.int64)


def _describe(arrays: Arrays, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what is known of data: all that `DatasetSpec` tells, and the hash."""
    total = len(arrays.labels)
    test = round(TEST_SHARE * total) if arrays.test_labels is None else len(arrays.test_labels)
    left = total - (test if arrays.test_labels is None else 0)
    val = round(VAL_SHARE * total) if arrays.val_labels is None else len(arrays.val_labels)
    train = left - (val if arrays.val_labels is None else 0)
    if min(train, val, test) < 1:
        raise DataError(f"{total} images are too few to cut {train} / {val} / {test} from")
    members = stratified_order(arrays.labels)[-train:]
    mean, std = _mean_and_std(arrays.images, members)
    return {
        "hash": _content_hash(arrays, names),
        "image_shape": list(arrays.images.shape[1:]),
        "num_classes": int(arrays.labels.max()) + 1,
        "counts": [train, val, test],
        "mean": mean,
        "std": std,
        "class_names": list(names),
    }


def _mean_and_std(images: Array, members: Array) -> tuple[float, float]:
    """Return mean and deviation of the pixels of some images, scaled to 0..1."""
    counts = np.zeros(256, dtype=np.int64)
    for i in range(0, len(members), 1_000):
        counts += np.bincount(images[members[i : i + 1_000]].ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = float((counts * levels).sum() / counts.sum())
    return mean, max(float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum())), 1e-3)


def _content_hash(arrays: Arrays, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps(names).encode())
    for field in arrays:
        if isinstance(field, np.ndarray):
            digest.update(str((field.shape, field.dtype.name)).encode())
            digest.update(np.ascontiguousarray(field).data)
        else:
            digest.update(b"-")
    return digest.hexdigest()[:HASH_DIGITS]

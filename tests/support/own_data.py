"""Small data of one's own, as people keep them: class folders and archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

Array = np.ndarray


def shaded(count: int, shape: tuple[int, ...], classes: int = 3) -> tuple[Array, Array]:
    """Return noisy images, the brighter the higher their class, and labels."""
    labels = np.arange(count) % classes
    noise = np.random.default_rng(count).integers(0, 40, (count, *shape))
    bright = (labels * (200 // classes)).reshape(-1, *[1] * len(shape))
    return (noise + bright).astype(np.uint8), labels


def write_folder(folder: Path, images: Array, labels: Array, suffix: str = "png") -> None:
    """Write `folder/CLASS/IMAGE`, classes named `a`, `b`, ..."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "abcdefgh"[label] / f"{i:04}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

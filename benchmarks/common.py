"""What every peer shares: its command line, the digits, and the one line it prints."""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path

import numpy as np

TRAIN_IMAGES = 55_000
MEAN, STD = 0.1307, 0.3081


def options(**kwargs: str) -> argparse.Namespace:
    """Read the shared command line; `images` is how many are trained on, at most one epoch."""
    parser = argparse.ArgumentParser(**kwargs)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--norm", choices=["group", "batch", "none"], default="group")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=TRAIN_IMAGES)
    parser.add_argument("--epochs", type=int, default=1, help="heeded by the plain loop")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=0, help="loader processes, where used")
    parser.add_argument("--evaluate", action="store_true", help="score the test set at the end")
    given = parser.parse_args()
    given.steps = given.images // given.batch_size
    given.images = given.steps * given.batch_size
    return given


def digits(data_dir: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, float32 [n, 28, 28], normalised, and labels, int64 [n], of train or t10k."""
    raw = data_dir / "MNIST" / "raw"
    images = np.fromfile(raw / f"{part}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)
    labels = np.fromfile(raw / f"{part}-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
    return (images.astype(np.float32) / 255 - MEAN) / STD, labels


def report(images: int, seconds: float, accuracy: float | None = None) -> None:
    """Print what the runner reads: the training phase only, imports and loading left out."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    document = {
        "images_per_second": images / seconds,
        "peak_memory_mb": peak,
        "test_accuracy": accuracy,
    }
    print(json.dumps(document))

"""The test images that runs misread most, and which arms misread them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.compare.series import most_missed
from groupnorm_bench.errors import DataError
from groupnorm_bench.report.confusion import Confusions, confusions_of
from groupnorm_bench.report.palette import Style, style_of_run

SHOWN = 84
"""CSS pixels of the box that an image is shown in; it is stored enlarged, to stay sharp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Miss:
    """One arm's runs on one image."""

    arm: str
    style: Style
    missed: int
    runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One test image."""

    index: int
    label: int
    name: str
    """Of its class: the label itself where the classes have none."""
    png: bytes
    read_as: str
    """What most of the runs that misread it took it for; empty where no run kept that."""
    misses: Sequence[Miss]

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def words(self) -> str:
        """What it is and who misread it, for those who cannot see it."""
        arms = ", ".join(f"{m.arm} {m.missed} of {m.runs}" for m in self.misses if m.missed)
        read_as = f", read as {self.read_as}" if self.read_as else ""
        return f"test image {self.index}: {self.name}{read_as}; misread by {arms}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """The most-missed images of one data set, or why there are none."""

    dataset: str = ""
    pictures: Sequence[Picture] = ()
    absent: str = ""
    confusions: Confusions | None = None
    """What was taken for what; None where no run kept it."""

    @property
    def arms(self) -> list[tuple[str, Style]]:
        """Arms in the order of their bars."""
        return [(miss.arm, miss.style) for miss in self.pictures[0].misses] if self.pictures else []


def gallery(rows: Sequence[RunRow], data_dir: Path, limit: int = 24) -> Gallery:
    """Return the images missed most; nothing is fetched, and no data set is no error.

    Args:
        rows: finished runs.
        data_dir: the folder of data sets.
        limit: how many images.
    """
    found = most_missed(rows, limit)
    if found is None:
        return Gallery(absent="No run kept which test images it read right (test_hits.npy).")
    if not found.images:
        return Gallery(dataset=found.dataset, absent="No run misread any test image.")
    try:
        (images, labels), names = _test_images(found.dataset, data_dir)
    except DataError as error:
        return Gallery(dataset=found.dataset, absent=f"The test images are not here: {error}.")
    if any(image.index >= len(labels) for image in found.images):
        why = f"The runs' test set is not the {found.dataset} of this machine."
        return Gallery(dataset=found.dataset, absent=why)
    first = {row.arm: row for row in reversed(rows)}
    classes = names or [str(label) for label in range(int(max(labels)) + 1)]
    arms = sorted(found.runs, key=lambda arm: first[arm].order)
    return Gallery(
        dataset=found.dataset,
        pictures=[
            Picture(
                index=image.index,
                label=int(labels[image.index]),
                name=classes[labels[image.index]],
                read_as=" or ".join(
                    classes[r] for r in list(image.read_as)[:2] if r < len(classes)
                ),
                png=_png(images[image.index]),
                misses=[
                    Miss(
                        arm=arm,
                        style=style_of_run(first[arm]),
                        missed=image.missed[arm],
                        runs=found.runs[arm],
                    )
                    for arm in arms
                ],
            )
            for image in found.images
        ],
        confusions=confusions_of(
            [row for row in rows if row.cell_config.dataset == found.dataset], arms, labels, classes
        ),
    )


def _test_images(name: str, data_dir: Path) -> tuple[tuple[Any, Any], tuple[str, ...]]:
    """Return the test images and labels of a data set on this disk, and the names of classes."""
    from groupnorm_bench.datasets import DATASETS, dataset_spec
    from groupnorm_bench.datasets.fetch import is_on_disk
    from groupnorm_bench.datasets.load import read_test
    from groupnorm_bench.datasets.naming import is_function, is_own_data

    if is_own_data(name):
        if is_function(name):  # the name is what a run folder says, and may be a stranger's
            raise DataError(f"{name} is a function, which a report does not call")
        return read_test(name, data_dir), dataset_spec(name).class_names
    if name not in DATASETS or not is_on_disk(name, data_dir):
        raise DataError(f"{name} is not in {data_dir}; fetch it: gnbench data {name}")
    return read_test(name, data_dir), DATASETS[name].class_names


def _png(pixels: Any) -> bytes:
    """Return the PNG of an image, uint8 [channels, height, width]; grey ones dark on white."""
    from PIL import Image

    image = Image.fromarray(255 - pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    scale = max(1, SHOWN // max(image.size))
    size = (image.width * scale, image.height * scale)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

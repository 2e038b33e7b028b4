"""Every data set keeps the same promises, from the day it is added to `DATASETS`."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from groupnorm_bench import TrainConfig
from groupnorm_bench.datasets import AUTO, DATASETS, Counts, files
from groupnorm_bench.datasets.fetch import FETCHED, is_on_disk, raw_folder
from groupnorm_bench.datasets.load import load_dataset, read_test
from groupnorm_bench.errors import DataError

SMALL = Counts(train=400, val=5_000, test=200)
"""Images of a stand-in for a data set that would have to be fetched."""


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory that holds a stand-in for every data set that is fetched."""
    root = tmp_path_factory.mktemp("data")
    for name in FETCHED:
        rng = np.random.default_rng(len(name))
        spec = DATASETS[name]
        folder = raw_folder(name, root)
        folder.mkdir(parents=True)
        for (images, labels), count in zip(
            (files.FILES[:2], files.FILES[2:]),
            (SMALL.train + SMALL.val, SMALL.test),
            strict=True,
        ):
            shape = (count, *spec.image_shape[1:])
            for file, array in (
                (images, rng.integers(0, 256, shape, np.uint8)),
                (labels, rng.integers(0, spec.num_classes, count, np.uint8)),
            ):
                (folder / file).write_bytes(idx(array))
                (folder / f"{file}.gz").write_bytes(gzip.compress(idx(array), 1))
    return root


@pytest.fixture(autouse=True)
def stand_ins_pass_for_the_real_ones(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sums(name: str, suffix: str) -> dict[str, str]:
        raw = raw_folder(name, data_dir)
        contents = {file: (raw / f"{file}{suffix}").read_bytes() for file in files.FILES}
        return {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}

    monkeypatch.setattr(files, "MNIST_MD5", sums("mnist", ""))
    for name in FETCHED:
        small = dataclasses.replace(DATASETS[name], counts=SMALL)
        monkeypatch.setitem(DATASETS, name, small)
        monkeypatch.setitem(files.ARCHIVE_MD5, name, sums(name, ".gz"))


@pytest.mark.parametrize("name", DATASETS)
def test_a_spec_tells_what_its_images_are(name, data_dir):
    spec = DATASETS[name]
    data = load_dataset(name, data_dir)
    assert (data.name, data.spec) == (name, spec)
    assert spec.help
    assert (len(data.train), len(data.val), len(data.test)) == spec.counts
    assert spec.load(data_dir).verified
    for part in (data.train, data.val, data.test):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (len(part), *spec.image_shape)
        assert part.labels.dtype == torch.int64
        assert 0 <= part.labels.min() <= part.labels.max() < spec.num_classes
    assert set(data.train.labels.tolist()) == set(range(spec.num_classes))


@pytest.mark.parametrize("name", DATASETS)
def test_its_split_is_fixed_whole_and_in_proportion(name, data_dir):
    one, two = load_dataset(name, data_dir), load_dataset(name, data_dir)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(one, part).images, getattr(two, part).images)
    seen = torch.cat([part.images.flatten(1) for part in (one.train, one.val, one.test)])
    assert len(seen.unique(dim=0)) == len(seen)
    both = torch.cat([one.train.labels, one.val.labels])
    expected = torch.bincount(both, minlength=one.spec.num_classes) / len(both)
    share = torch.bincount(one.val.labels, minlength=one.spec.num_classes) / len(one.val)
    torch.testing.assert_close(share, expected, atol=1.5 / len(one.val), rtol=0)


@pytest.mark.parametrize("name", DATASETS)
def test_its_pixels_are_normalized_by_its_own_mean_and_deviation(name, data_dir):
    data = load_dataset(name, data_dir)
    images = data.normalize(data.val.images)
    expected = (data.val.images.double() / 255 - data.spec.mean) / data.spec.std
    torch.testing.assert_close(images.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DATASETS)
def test_its_test_set_is_read_without_torch_or_network(name, data_dir):
    images, labels = read_test(name, data_dir)
    test = load_dataset(name, data_dir).test
    assert np.array_equal(images, test.images.numpy())
    assert np.array_equal(labels, test.labels.numpy())


@pytest.mark.parametrize("name", FETCHED)
def test_one_that_is_fetched_is_missed_by_name(name, tmp_path):
    assert not is_on_disk(name, tmp_path)
    with pytest.raises(DataError, match=f"No such file.*gnbench data {name}"):
        read_test(name, tmp_path)


@pytest.mark.parametrize("name", FETCHED)
def test_files_of_another_data_set_are_refused(name, data_dir, tmp_path):
    other = next(one for one in FETCHED if one != name)
    shutil.copytree(raw_folder(other, data_dir), raw_folder(name, tmp_path))
    with pytest.raises(DataError, match=f"altered|is not {name}'s"):
        read_test(name, tmp_path)


@pytest.mark.parametrize("name", FETCHED)
def test_too_few_images_are_not_the_data_set(name, data_dir, monkeypatch):
    more = dataclasses.replace(DATASETS[name], counts=Counts(55_000, 5_000, 10_000))
    monkeypatch.setitem(DATASETS, name, more)
    with pytest.raises(DataError, match=f"holds 5,400 and 200 images, which is not {name}"):
        read_test(name, data_dir)


@pytest.mark.parametrize("name", [*DATASETS, AUTO])
def test_it_can_be_asked_for(name):
    assert TrainConfig(dataset=name).dataset == name


def test_the_table_loads_without_torch_and_numpy():
    code = (
        "import sys, groupnorm_bench.datasets\n"
        "print({'torch', 'numpy', 'torchvision'} & {name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"

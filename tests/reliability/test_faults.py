"""The counter of the crash campaign, held against what a small program is known to do."""

import subprocess
import sys

import pytest

from tests.reliability import faults
from tests.reliability.faults import Fault

pytestmark = pytest.mark.skipif(faults.compiler() is None, reason="there is no C compiler")

DEEDS = """
import os, pathlib, tempfile
runs = pathlib.Path("runs")
outside = pathlib.Path("outside")
outside.write_text("not counted")
runs.mkdir()                                             # mkdir
with open("runs/a", "wb") as file:                       # open
    file.write(b"0123456789"); file.flush()              # write
    os.fsync(file.fileno())                              # fsync
    os.fdatasync(file.fileno())                          # fdatasync
    os.ftruncate(file.fileno(), 5)                       # ftruncate
    os.fchmod(file.fileno(), 0o600)                      # fchmod
os.chmod("runs/a", 0o644)                                # chmod
os.rename("runs/a", "runs/b")                            # rename
folder = os.open("runs", os.O_RDONLY)
os.fsync(folder)                                         # fsync
os.replace("b", "c", src_dir_fd=folder, dst_dir_fd=folder)   # rename
handle = os.open("c", os.O_WRONLY, dir_fd=folder)        # open
os.pwrite(handle, b"xy", 1)                              # write
os.writev(handle, [b"x", b"y"])                          # write
os.mkdir("sub", dir_fd=folder)                           # mkdir
os.symlink("c", "runs/s")                                # symlink
os.unlink("s", dir_fd=folder)                            # unlink
os.rmdir("sub", dir_fd=folder)                           # rmdir
os.unlink(os.path.abspath("runs/c"))                     # unlink
open("runs-not", "w").close()
os.chdir("runs"); os.mkdir("../runs/sub"); os.rmdir("sub")   # mkdir rmdir
print("done")
"""
EXPECTED = [
    *("mkdir", "open", "write", "fsync", "fdatasync", "ftruncate", "fchmod", "chmod", "rename"),
    *("fsync", "rename", "open", "write", "write", "mkdir", "symlink", "unlink", "rmdir"),
    *("unlink", "mkdir", "rmdir"),
]


def run(folder, program, fault=None):
    environment = faults.bare_environment(folder / "home")
    environment |= faults.environment(folder / "runs", folder, fault)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )


def test_every_call_that_changes_the_folder_is_counted_and_no_other(tmp_path):
    done = run(tmp_path, DEEDS)
    assert done.stdout == "done\n", done.stderr
    calls = faults.calls(tmp_path)
    assert [call.name for call in calls] == EXPECTED
    assert faults.count(tmp_path) == len(EXPECTED)
    first, second = [call for call in calls if call.name == "rename"]
    runs = tmp_path.resolve() / "runs"
    assert (first.source, first.path) == (runs / "a", runs / "b")
    assert (second.source, second.path) == (runs / "b", runs / "c")


def test_children_are_counted_in_one_row_with_their_parent(tmp_path):
    child = "import subprocess, sys, os; os.mkdir('runs'); " + (
        "[subprocess.run([sys.executable, '-c', f\"import os; os.mkdir('runs/{i}')\"]) "
        "for i in range(3)]"
    )
    run(tmp_path, child)
    calls = faults.calls(tmp_path)
    assert [call.number for call in calls] == [1, 2, 3, 4]
    assert len({call.process for call in calls}) == 4


@pytest.mark.parametrize(
    ("kind", "word"),
    [("ENOSPC", "No space left"), ("EIO", "Input/output error"), ("EROFS", "Read-only")],
)
def test_the_nth_call_fails_and_leaves_no_trace(tmp_path, kind, word):
    done = run(tmp_path, DEEDS, Fault(kind, EXPECTED.index("rename") + 1))
    assert word in done.stderr
    assert (tmp_path / "runs" / "a").exists()
    assert not (tmp_path / "runs" / "b").exists()


def test_a_fault_that_stays_fails_every_later_call(tmp_path):
    program = (
        "import os, contextlib\nos.mkdir('runs')\nfor i in range(4):\n"
        "    with contextlib.suppress(OSError):\n        os.mkdir(f'runs/{i}')"
    )
    run(tmp_path, program, Fault("EIO", 3))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0", "2", "3"]
    run(tmp_path, program.replace("'runs'", "'runs/x'", 1), Fault("EIO", 1, stays=True))
    assert not (tmp_path / "runs" / "1").exists()


@pytest.mark.parametrize(("kind", "left"), [("KILL", ""), ("CUT", ""), ("TORN", "01234")])
def test_a_death_comes_before_the_call_and_in_the_middle_of_a_torn_write(tmp_path, kind, left):
    done = run(tmp_path, DEEDS, Fault(kind, EXPECTED.index("write") + 1))
    assert done.returncode == -9
    assert (tmp_path / "runs" / "a").read_text() == left

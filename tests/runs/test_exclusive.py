"""Claims without flock: one holder at a time, whoever is killed lets go, whoever is late waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import exclusive

HOLD = """
import sys, time
from pathlib import Path
from groupnorm_bench.runs import exclusive
with exclusive.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
TAKE_TURNS = """
import os, sys, time
from pathlib import Path
from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.runs import exclusive
lock, turns = Path(sys.argv[1]), 0
inside = lock.parent / "inside"
while turns < 40:
    try:
        with exclusive.hold(lock):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # raises if another is inside
            os.unlink(inside)
            turns += 1
    except RunFolderError:
        pass
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def claims(lock: Path) -> list[str]:
    return sorted(name for name in os.listdir(lock.parent) if exclusive.is_claim(name))


def test_one_process_holds_it_and_a_killed_one_lets_go(lock):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert exclusive.is_held(lock)
        with pytest.raises(RunFolderError, match="in use by another process"):
            exclusive.hold(lock).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert claims(lock) == ["lock.1"]
    assert not exclusive.is_held(lock)
    with exclusive.hold(lock):
        assert claims(lock) == ["lock.2"]
    assert claims(lock) == []
    assert os.listdir(lock.parent) == []  # no probe of the clock either


def test_a_claim_of_another_host_is_live_until_it_was_not_touched_for_long(lock):
    claim = lock.with_name("lock.7")
    claim.write_text("1 elsewhere\n")
    assert exclusive.is_held(lock)
    late = time.time() - exclusive.STALE_SECONDS - 1
    os.utime(claim, (late, late))
    assert not exclusive.is_held(lock)
    with exclusive.hold(lock):
        assert claims(lock) == ["lock.8"]


def aged(claim: Path) -> Path:
    late = time.time() - exclusive.STALE_SECONDS - 1
    os.utime(claim, (late, late))
    return claim


def test_a_process_of_this_machine_that_is_stopped_for_long_keeps_its_claim(lock):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        try:
            aged(lock.with_name("lock.1"))
            assert exclusive.is_held(lock)
            with pytest.raises(RunFolderError, match="in use by another process"):
                exclusive.hold(lock).__enter__()
        finally:
            holder.kill()


def test_the_process_number_of_another_container_with_this_host_name_says_nothing(lock):
    """Its claim is live while it is fresh, though no process here has its number."""
    claim = lock.with_name("lock.1")
    claim.write_text(f"4194305 17 {exclusive._where().replace('pid:[', 'pid:[1')} 0123abcd\n")
    assert exclusive.is_held(lock)
    claim.write_text(f"4194305 17 {exclusive._where()} 0123abcd\n")
    assert not exclusive.is_held(lock)


def test_a_process_number_that_was_given_anew_is_another_process(lock):
    claim = lock.with_name("lock.1")
    started = int(exclusive._started(os.getpid()))
    claim.write_text(f"{os.getpid()} {started} {exclusive._where()} 0123abcd\n")
    assert exclusive.is_held(lock)
    claim.write_text(f"{os.getpid()} {started - 1} {exclusive._where()} 0123abcd\n")
    assert not exclusive.is_held(lock)


def test_who_lost_its_claim_knows_and_leaves_a_later_one_of_that_name_alone(lock):
    with exclusive.hold(lock) as claim:
        assert claim.is_ours()
        with lock.with_name("lock.2").open("w"):  # another takes ours for stale
            assert not claim.is_ours()
        lock.with_name("lock.2").unlink()
        assert claim.is_ours()
        claim.path.write_text("1 1 elsewhere 0123abcd\n")  # ours went, a later one has its name
        assert not claim.is_ours()
        aged(claim.path)
        claim.touch()
        assert time.time() - claim.path.stat().st_mtime > exclusive.STALE_SECONDS
    assert claims(lock) == ["lock.1"]


def test_a_claim_is_kept_fresh_while_it_is_held(lock, monkeypatch):
    monkeypatch.setattr(exclusive, "TOUCH_SECONDS", 0.05)
    with exclusive.hold(lock):
        claim = lock.with_name("lock.1")
        os.utime(claim, (0, 0))
        deadline = time.monotonic() + 10
        while claim.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_one_that_was_made_at_the_same_moment_is_stepped_back_from(lock, monkeypatch):
    """The other has looked before us, and makes its claim after us."""
    real = exclusive._claims
    looks = []

    def another_comes_between(folder):
        found = real(folder)
        looks.append(found)
        if len(looks) == 1:
            (folder / "lock.5").write_text("1 elsewhere\n")
            return []
        return found

    monkeypatch.setattr(exclusive, "_claims", another_comes_between)
    with pytest.raises(RunFolderError, match="in use"):
        exclusive.hold(lock).__enter__()
    assert claims(lock) == ["lock.5"]


def test_processes_that_take_turns_are_never_inside_together(lock):
    crowd = [subprocess.Popen([sys.executable, "-c", TAKE_TURNS, str(lock)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in crowd] == [0, 0, 0]
    assert claims(lock) == []


def test_the_mount_tells_where_flock_says_nothing_of_other_nodes(tmp_path, monkeypatch):
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(exclusive, "_MOUNTS", str(mounts))
    line = "36 35 {} / /scratch rw,noatime master:1 - {} fs1 {}\n"
    told = {}
    for kind, options in [("gpfs", "rw"), ("lustre", "rw,flock"), ("lustre", "rw,localflock")]:
        mounts.write_text(line.format("0:999", "gpfs", "rw") + line.format(number, kind, options))
        exclusive._is_node_local.cache_clear()
        told[kind, options] = exclusive.is_needed(tmp_path / "not" / "there")
    exclusive._is_node_local.cache_clear()
    assert list(told.values()) == [True, False, True]

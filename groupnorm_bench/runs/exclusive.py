"""A claim where flock cannot be had: a file that only one process can make, kept fresh.

flock holds between the nodes of a cluster on NFS and Ceph, not on GPFS or BeeGFS, and on Lustre
only where it was mounted so. There a claim is `lock.N` beside `lock`, made exclusively (O_EXCL),
with its process in it, and touched every 20 s. One is stale whose process has ended, where that
can be told (on the same machine, in the same container), or elsewhere one that was not touched for
three minutes, by the file server's clock. Whoever comes next makes `lock.N+1`, looks again, and
steps back if another live claim is there. A process that was stopped for long, with its machine or
by another, may so lose its claim: it asks whether it has it still before it writes anything.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import read_bounded

TOUCH_SECONDS = 20.0
STALE_SECONDS = 180.0
_MOST_BYTES = 300
_NAME = re.compile(r"lock\.(\d{1,9})")
_MOUNTS = "/proc/self/mountinfo"
_NODE_LOCAL = frozenset({"gpfs", "beegfs", "fuse.sshfs"})
"""File systems whose flock, where it works at all, is for one node."""


def is_needed(folder: Path) -> bool:
    """Return whether a folder's file system keeps flock to one node, as its mount tells."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return _is_node_local(os.stat(folder).st_dev)


@functools.cache
def _is_node_local(device: int) -> bool:
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path(_MOUNTS).read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    for line in lines:
        mount, _, source = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            return keeps_flock_to_a_node(*[*source.split(), "", "", ""][0:3:2])
    return False


def keeps_flock_to_a_node(kind: str, options: str) -> bool:
    """Return whether flock on such a mount says nothing of other nodes.

    >>> [keeps_flock_to_a_node(*mount) for mount in [("nfs4", "rw,local_lock=none"),
    ...     ("nfs", "rw,nolock"), ("lustre", "rw,flock"), ("lustre", "rw"), ("gpfs", "rw")]]
    [False, True, False, True, True]
    """
    given = set(options.split(","))
    if kind == "lustre":
        return "flock" not in given
    if kind in ("nfs", "nfs4"):
        return not given.isdisjoint({"nolock", "local_lock=all", "local_lock=flock"})
    return kind in _NODE_LOCAL


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """A claim that this process has made."""

    path: Path
    content: bytes
    """With a word of its own: a later claim may have the same name."""

    def is_ours(self) -> bool:
        """Return whether nobody has taken it for stale, or is about to.

        A process that sleeps between this and what it then writes is not guarded against.
        """
        try:
            if read_bounded(self.path, _MOST_BYTES) != self.content:
                return False
        except FileNotFoundError:
            return False
        except OSError:  # the file server is away for a moment: so it is for anybody else
            return True
        return max(map(_number, _claims(self.path.parent)), default=0) <= _number(self.path)

    def touch(self) -> None:
        """Give a sign of life, if it is ours."""
        if self.is_ours():
            os.utime(self.path)

    def drop(self) -> None:
        """Remove it, if it is ours."""
        with contextlib.suppress(OSError):  # removed by another since
            if read_bounded(self.path, _MOST_BYTES) == self.content:
                self.path.unlink()


@contextlib.contextmanager
def hold(lock: Path) -> Iterator[OwnClaim]:
    """Hold the claim beside `lock` while entered.

    Raises:
        RunFolderError: another process has a live one.
        OSError: it cannot be made.
    """
    mine = _make(lock.parent)
    over = threading.Event()
    keeper = threading.Thread(target=_keep_fresh, args=(mine, over), daemon=True)
    keeper.start()
    try:
        yield mine
    finally:
        over.set()
        mine.drop()


def _make(folder: Path) -> OwnClaim:
    before = _claims(folder)
    now = _now(folder) if before else 0.0
    if any(_is_live(claim, now) for claim in before):
        raise _in_use(folder)
    mine = folder / f"lock.{max((_number(claim) for claim in before), default=0) + 1}"
    try:
        handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise _in_use(folder) from error
    content = f"{os.getpid()} {_started(os.getpid())} {_where()} {secrets.token_hex(8)}\n".encode()
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    others = [claim for claim in _claims(folder) if claim != mine]
    now = mine.stat().st_mtime
    if any(_is_live(claim, now) for claim in others):  # made at the same moment by another
        mine.unlink(missing_ok=True)
        raise _in_use(folder)
    for stale in others:
        stale.unlink(missing_ok=True)
    return OwnClaim(mine, content)


def _in_use(folder: Path) -> RunFolderError:
    return RunFolderError(
        f"{folder} is in use by another process; wait for it or stop it (its claim, lock.N, is "
        f"taken for stale {STALE_SECONDS:.0f} s after its last sign, if it is another machine's)"
    )


def is_held(lock: Path) -> bool:
    """Return whether some process has a live claim beside `lock`, as far as our clock tells.

    Nothing is written, as whoever only looks writes nothing; `hold` asks the file server's clock.
    """
    now = time.time()
    return any(_is_live(claim, now) for claim in _claims(lock.parent))


def is_claim(name: str) -> bool:
    """Return whether a file of this name is a claim."""
    return _NAME.fullmatch(name) is not None


def _number(claim: Path) -> int:
    return int(claim.name.partition(".")[2])


def _claims(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if is_claim(name)]
    except OSError:  # not there yet
        return []


def _is_live(claim: Path, now: float) -> bool:
    try:
        touched = claim.stat().st_mtime
        words = read_bounded(claim, _MOST_BYTES).decode(errors="replace").split()
    except OSError:  # gone in between
        return False
    number, started, where = (*words, "", "", "")[:3]
    if where == _where() and number.isascii() and number.isdecimal():
        return _is_running(int(number), started)  # a stopped process, too: it has it still
    return now - touched < STALE_SECONDS


@functools.cache
def _where() -> str:
    """Return what tells apart where numbers of processes mean the same: a boot and a container.

    Two containers may have one host name; off Linux the host's name has to do.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return platform.node().replace(" ", "-") or "-"


def _started(process: int) -> str:
    """Return when a process started, as the kernel counts, for its number is given anew; or "-"."""
    try:
        return (
            Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError):
        return "-"


def _is_running(process: int, started: str) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return _started(process) in (started, "-")


def _now(folder: Path) -> float:
    """Return the time on the clock of the folder's file server; its own clock may go wrong."""
    probe = folder / f".lock-{secrets.token_hex(4)}"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        return probe.stat().st_mtime
    except OSError:  # it may only be read: then nobody takes a claim of it either
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _keep_fresh(claim: OwnClaim, over: threading.Event) -> None:
    while not over.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):  # it is full, or away for a moment; the next time
            claim.touch()

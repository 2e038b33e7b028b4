"""Faults at the n-th file call of a command: builds and arms `faults.c`, reads what it counted."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
ERRORS = ("ENOSPC", "EIO", "EROFS")
DEATHS = ("KILL", "CUT", "TORN")


def compiler() -> str | None:
    """Return the C compiler of this machine, None where it has none."""
    return shutil.which("gcc") or shutil.which("cc")


@functools.cache
def library() -> Path:
    """Compile `faults.c` into a temporary folder, once a process; return the library."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "faults.so"
    command = [compiler() or "cc", "-O1", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return made


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and when."""

    kind: str
    """`KILL` ends the process that makes the call, `CUT` its whole process group, `TORN` writes
    half and then cuts; `ENOSPC`, `EIO` and `EROFS` fail the call."""
    at: int
    """The call, from 1, over all processes of the command."""
    stays: bool = False
    """Every later call fails too: a disk that is full stays full."""

    def __str__(self) -> str:
        return f"{self.kind}{'+' if self.stays else ''}@{self.at}"


@dataclass(frozen=True, slots=True)
class Call:
    """A counted call."""

    number: int
    process: int
    name: str
    path: Path
    source: Path
    """What a rename took; of other calls the empty path."""


def environment(root: Path, scratch: Path, fault: Fault | None = None) -> dict[str, str]:
    """Return what a command needs in its environment to have its calls under `root` counted.

    Args:
        root: the watched folder, made or not.
        scratch: where the counter and the log are kept, outside `root`.
        fault: none to count only.
    """
    state, log = scratch / "counter", scratch / "calls.log"
    state.write_bytes(bytes(8))
    log.write_bytes(b"")
    told = {
        "LD_PRELOAD": str(library()),
        "FAULT_ROOT": str(root.parent.resolve() / root.name),
        "FAULT_STATE": str(state),
        "FAULT_LOG": str(log),
        "FAULT_AT": str(fault.at if fault else 0),
        "FAULT_KIND": fault.kind if fault else "",
    }
    return told | ({"FAULT_STAYS": "1"} if fault and fault.stays else {})


def count(scratch: Path) -> int:
    """Return how many calls were counted."""
    return int(struct.unpack("l", (scratch / "counter").read_bytes())[0])


def calls(scratch: Path) -> list[Call]:
    """Return the calls that were counted, in their order."""
    found = []
    for line in (scratch / "calls.log").read_text(errors="surrogateescape").splitlines():
        number, process, name, path, source = line.split("\t")
        found.append(Call(int(number), int(process), name, Path(path), Path(source)))
    return sorted(found, key=lambda call: call.number)


def bare_environment(home: Path) -> dict[str, str]:
    """Return an environment that hides this machine: home, caches, logins, data sets."""
    (home / "data").mkdir(parents=True, exist_ok=True)
    (home / "tmp").mkdir(exist_ok=True)
    (home / "data" / ".fetch-mnist.failed").touch()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "GNBENCH_", "FAULT_", "XDG_", "LD_PRELOAD"))
    }
    return kept | {
        "HOME": str(home),
        "NETRC": str(home / "netrc"),
        "TMPDIR": str(home / "tmp"),
        "GNBENCH_DATA_DIR": str(home / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONFIG_DIR": str(home / "wandb-config"),
        "WANDB_CACHE_DIR": str(home / "wandb-cache"),
        "WANDB_DATA_DIR": str(home / "wandb-data"),
        "OMP_NUM_THREADS": "1",
    }

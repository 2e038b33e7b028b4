"""Compiling the loops: only those that a run needs, once on a machine, and not waited for twice.

Each kind of loops is compiled under a lock of its own: whoever comes second waits, and finds it in
the cache folder. Nothing here loads torch, so that compiling can begin before torch is there.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from groupnorm_bench.errors import one_line
from groupnorm_bench.files import scratch_folder

MIN_IMAGES = 2_000
"""Images of training from which the loops are taken: loading them takes half a second, and they
save 0.2 to 1 ms an image."""
COMMON = ("common",)
"""What all ways by loops take."""
CONVOLUTIONS = ("convolution", "spectra")
LINEAR = ("linear",)
_BLOCKS = {"none": ("none",), "batch": ("statistics",)} | dict.fromkeys(
    ("group", "layer", "instance", "group-ws"), ("group",)
)
_children: list[subprocess.Popen[bytes]] = []


def is_long_enough(setting: str, images: int) -> bool:
    """Return whether a run of so many images takes the loops; `setting` is its `compile`."""
    return setting == "on" or (setting == "auto" and images >= MIN_IMAGES)


def compile_ahead(norms: Iterable[str], say: Callable[[str], None]) -> None:
    """Start compiling, in processes of their own, what networks with these norms take.

    Nothing is done, nor said, where the cache folder has it, undamaged.
    """
    blocks = dict.fromkeys(kind for norm in sorted(norms) for kind in _BLOCKS.get(norm, ()))
    # Of about 5 s each.
    shares = (COMMON + LINEAR + CONVOLUTIONS[:1] + tuple(blocks), CONVOLUTIONS[1:])
    states = {kind: _is_whole(kind) for kinds in shares for kind in kinds}
    missing = [kinds for kinds in shares if not all(states[kind] for kind in kinds)]
    if not missing:
        return
    why = "the cache of loops was damaged; " if False in states.values() else ""
    say(
        f"{why}compiling loops for this processor, once: some 10 s, while torch and the data are "
        "loaded"
    )
    for kinds in missing:
        command = [sys.executable, "-P", "-m", "groupnorm_bench.fast.compiler", *kinds]
        _children.append(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )


def prepare(kinds: Iterable[str]) -> tuple[str, bool]:
    """Compile loops of these kinds, or load them from the cache folder.

    Returns:
        a line for the user, and whether the loops are there.
    """
    try:
        damaged = [kind for kind in kinds if _prepare(kind)]
    except Exception as error:  # the compiler is another program: it fails in its own ways
        return f"compile off: {one_line(error)[:160]}", False
    if damaged:
        return "compile on: the cache of loops was damaged, and is made anew", True
    return "compile on", True


@functools.cache
def kernels() -> Any:
    """Return the module of loops, which loads Numba."""
    from numba import config

    # Not by its variable, which would go to processes on machines with other processors.
    config.CACHE_DIR = str(_cache_dir())
    try:
        from groupnorm_bench.fast import kernels
    except RuntimeError:  # no folder can be written: compile for this process alone
        kept = contextlib.ExitStack()
        config.CACHE_DIR = str(kept.enter_context(scratch_folder("gnbench-loops-")))
        atexit.register(kept.close)
        from groupnorm_bench.fast import kernels
    return kernels


def _prepare(kind: str) -> bool:
    """Have the loops of a kind, and return whether the cache had them damaged.

    What was changed since it was written is not run at all: it is machine code.
    """
    loops = kernels()
    if loops.is_loaded(kind):  # what became of its files is for the next process to see
        return False
    with _locked(kind):
        is_whole = _is_whole(kind)
        if is_whole is None:  # what may be there is of other sources: Numba looks at one alone
            with contextlib.suppress(PermissionError):
                loops.forget(kind)
        elif not is_whole:
            loops.forget(kind)
        is_readable = loops.prepare(kind)
        if not (is_whole and is_readable):
            _write_sums(_stamp(kind), loops.cached(kind))
    return is_whole is False or not is_readable


def _cache_dir() -> Path:
    """Return a folder for this kind of processor.

    The nodes of a cluster share a home, and have several kinds: in one folder each would take the
    other's loops for damaged, and overwrite them while they are loaded.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given is not None:
        folder = Path(given)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "groupnorm-bench/compiled"
    return folder / hashlib.sha256(_processor().encode()).hexdigest()[:8]


@functools.cache
def _processor() -> str:
    """Return what tells processors apart that take other machine code."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    told = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # of x86; of ARM
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
    return "".join(line for line in lines if line.startswith(told))


@functools.cache
def _digest() -> str:
    """Return what the compiled loops depend on: their source, the compiler and the processor.

    The sources' times as well: Numba compiles anew what is older than it, though it be the same.
    """
    folder = Path(__file__).parent
    sources = [*sorted(folder.glob("kernels/*.py")), folder / "vectors.py"]
    texts = [part for source in sources for part in (source.read_text(), str(source))]
    written = [str(source.stat().st_mtime_ns) for source in sources]
    parts = *texts, *written, importlib.metadata.version("numba"), _processor()
    return hashlib.sha256("".join((*parts, sys.version)).encode()).hexdigest()[:16]


def _stamp(kind: str) -> Path:
    """Return the file that is there once the cache has a kind: it holds the sums of its files."""
    return _cache_dir() / f"{kind}-{_digest()}.ready"


def _is_whole(kind: str) -> bool | None:
    """Return whether the files of a kind are as they were written; None before they are."""
    stamp = _stamp(kind)
    if not os.path.exists(stamp):  # nor can be reached
        return None
    try:
        sums = json.loads(stamp.read_bytes())
        return bool(sums) and all(_sum(_cache_dir() / name) == sums[name] for name in sums)
    except (OSError, ValueError, TypeError):
        return False


def _write_sums(stamp: Path, paths: Iterable[Path]) -> None:
    try:
        sums = {os.path.relpath(path, _cache_dir()): _sum(path) for path in paths}
        unfinished = stamp.with_suffix(".part")
        unfinished.write_text(json.dumps(sums))
        os.replace(unfinished, stamp)
    except OSError:  # nowhere to write: the next process looks again
        return


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _locked(kind: str) -> Iterator[None]:
    """Hold the lock of a kind, where one can be had."""
    path = _stamp(kind).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # nowhere to write: two may compile the same
        yield
        return
    try:
        with contextlib.suppress(OSError):  # no locks in this file system: the same
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


if __name__ == "__main__":
    prepare(sys.argv[1:])

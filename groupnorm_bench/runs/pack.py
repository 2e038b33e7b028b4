"""Many settled runs in one sealed file, to keep, send and merge: `gnbench pack`.

An SQLite database: one file of a format that will be read in decades, sought by name without being
read whole, and written by Python's own library. Each run's `result.json` and `test_hits.npy` are in
it as they were, compressed one by one; W&B's own files, locks and checkpoints are not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import open_regular, remove_temporaries, sync_folder
from groupnorm_bench.runs.folder import MAX_RESULT_BYTES, RunFolder
from groupnorm_bench.runs.result import SETTLED, RunResult

SUFFIX = ".gnb"
_FORMAT = 1
_APPLICATION = int.from_bytes(b"gnbp", "big")
_TABLES = (
    "CREATE TABLE runs (name TEXT PRIMARY KEY, result BLOB NOT NULL, result_sha256 BLOB NOT NULL,"
    " hits BLOB, hits_sha256 BLOB) WITHOUT ROWID",
    "CREATE TABLE seal (digest BLOB NOT NULL)",
)
"""Compared with what a file says of itself, so that no view or trigger of a stranger's runs."""
_COLUMNS = {"result.json": "result", "test_hits.npy": "hits"}
_DIGESTS = "SELECT name, result_sha256, hits_sha256 FROM runs ORDER BY name"
_MAX_HITS = 2**20


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of the runs given to `pack_runs`."""

    path: Path
    added: int
    known: int
    """In the pack already, byte for byte."""
    problems: tuple[str, ...]
    """A line for each that was left out."""


class PackedRun(RunFolder):
    """A run inside a pack, to be read as its folder was; its path is `PACK/NAME`."""

    def file(self, name: str, limit: int) -> bytes:
        """Return a file of the run as it was when it was packed.

        Raises:
            OSError: the run had none, or it is longer than `limit` bytes.
            RunFolderError: the pack is damaged.
        """
        column = _COLUMNS[name]
        with _damage_told(self.path.parent):
            found = _opened(self.path.parent).execute(
                f"SELECT {column}, {column}_sha256 FROM runs WHERE name = ?", [self.path.name]
            )
            packed, digest = found.fetchone()
        if packed is None:
            raise FileNotFoundError(2, "the run had none", name)
        content = _inflated(self.path, packed, limit)
        if hashlib.sha256(content).digest() != digest:
            raise RunFolderError(f"{self.path} is not as it was packed; {_AGAIN}")
        return content

    def is_claimed(self) -> bool:
        """Return False: nobody trains in a pack."""
        return False


def is_pack(path: Path) -> bool:
    """Return whether a path is to be read as a pack: a file that is called one."""
    return path.suffix == SUFFIX and not path.is_dir()


def packed_runs(path: Path) -> list[PackedRun]:
    """Return the runs of a pack, by name, after its seal was checked.

    Raises:
        RunFolderError: it is no pack, of a later version, cut short or altered.
    """
    with _damage_told(path):
        rows = _opened(path).execute(_DIGESTS).fetchall()
        seals = _opened(path).execute("SELECT digest FROM seal").fetchall()
    if seals != [(_seal(rows),)]:
        raise RunFolderError(f"{path} is not as it was sealed: runs lack or were put in; {_AGAIN}")
    return [PackedRun(path / name) for name, _, _ in rows]


_AGAIN = "take another copy, or pack the runs again"


def pack_runs(
    runs: Iterable[RunFolder], path: Path, *, on_run: Callable[[], None] = lambda: None
) -> Packed:
    """Add settled runs to a pack, made if need be; replaced whole or not at all.

    Args:
        runs: folders, or runs of other packs, which are merged so.
        path: the pack; what is in it stays.
        on_run: called after each.

    Raises:
        RunFolderError: a run is there already with another content; the pack cannot be read or
            written; a result cannot be read.
    """
    if path.suffix != SUFFIX:
        raise RunFolderError(f"{path}: a pack is called NAME{SUFFIX}; choose another --out")
    added = known = 0
    problems = []
    with _rewritten(path) as pack:
        for run in runs:
            content = _content(run)
            status = RunResult.from_json(content[0], run.name).status
            if status not in SETTLED:
                problems.append(f"{run.path} is {status}, no result yet; left out")
            elif _add(pack, run, *content, path):
                added += 1
            else:
                known += 1
            on_run()
    return Packed(path, added, known, tuple(problems))


def unpack_runs(
    path: Path, runs_dir: Path, *, on_run: Callable[[], None] = lambda: None
) -> tuple[int, int]:
    """Write the runs of a pack as run folders, byte for byte.

    Returns:
        how many were written, and how many were there already.

    Raises:
        RunFolderError: the pack is damaged; a folder holds another result; nothing can be written.
    """
    written = known = 0
    for run in packed_runs(path):
        folder = RunFolder(runs_dir / run.name)
        result, hits = _content(run)
        RunResult.from_json(result, run.name)
        with folder.claim():
            if not folder.result_path.exists():
                folder.restore(result, hits)
                written += 1
            elif _content(folder) == (result, hits):
                known += 1
            else:
                raise RunFolderError(
                    f"{folder.path} holds another result than {path}; choose another --out"
                )
        on_run()
    return written, known


def _content(run: RunFolder) -> tuple[bytes, bytes | None]:
    """Return a run's result and hits as they lie."""
    try:
        result = run.file("result.json", MAX_RESULT_BYTES)
    except OSError as error:
        raise RunFolderError(f"{run.path}: no result to read: {error.strerror}") from error
    try:
        hits = run.file("test_hits.npy", _MAX_HITS)
    except FileNotFoundError:
        hits = None
    except OSError as error:
        raise RunFolderError(f"{run.hits_path} is not readable: {error.strerror}") from error
    return result, hits


def _add(
    pack: sqlite3.Connection, run: RunFolder, result: bytes, hits: bytes | None, path: Path
) -> bool:
    """Put a run in; returns False where it is there already."""
    digests = tuple(
        None if part is None else hashlib.sha256(part).digest() for part in (result, hits)
    )
    there = pack.execute(
        "SELECT result_sha256, hits_sha256 FROM runs WHERE name = ?", [run.name]
    ).fetchone()
    if there == digests:
        return False
    if there is not None:
        raise RunFolderError(
            f"{run.path} holds another result than {path} has of that run; which counts? pack one "
            "of them elsewhere"
        )
    packed = (None if part is None else zlib.compress(part) for part in (result, hits))
    row = (run.name, *itertools.chain.from_iterable(zip(packed, digests, strict=True)))
    pack.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row)
    return True


def _seal(rows: Iterable[tuple[str, bytes, bytes | None]]) -> bytes:
    """Return the digest of all names and digests."""
    whole = hashlib.sha256()
    for name, result, hits in rows:
        whole.update(b"%d %b %b %b\n" % (len(name), name.encode(), result, hits or b"-"))
    return whole.digest()


@contextlib.contextmanager
def _rewritten(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a copy of the pack to write into, and put it, sealed, in the old one's place."""
    if path.is_symlink():  # what it leads to is replaced, not the link
        path = path.resolve()
    temporary = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    remove_temporaries(path.parent, of=path.name)
    try:
        with contextlib.closing(_begun(temporary, path)) as pack:
            yield pack
            seal = _seal(pack.execute(_DIGESTS))
            pack.execute("DELETE FROM seal")
            pack.execute("INSERT INTO seal VALUES (?)", [seal])
            pack.commit()
        _settle(temporary, path)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunFolderError(
            f"{path}: cannot be written: {reason}; free space or choose another --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _opened.cache_clear()


def _begun(temporary: Path, path: Path) -> sqlite3.Connection:
    pack = sqlite3.connect(temporary, isolation_level="IMMEDIATE")
    pack.execute("PRAGMA journal_mode = OFF")  # a temporary: a kill leaves the old pack
    pack.execute("PRAGMA synchronous = OFF")
    if os.path.lexists(path):
        packed_runs(path)
        _opened(path).backup(pack)
    else:
        for table in _TABLES:
            pack.execute(table)
        pack.execute(f"PRAGMA application_id = {_APPLICATION}")
        pack.execute(f"PRAGMA user_version = {_FORMAT}")
    return pack


def _settle(temporary: Path, path: Path) -> None:
    handle = open_regular(temporary)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, path)
    sync_folder(path.parent)


@functools.lru_cache(maxsize=8)
def _opened(path: Path) -> sqlite3.Connection:
    """Open a pack for reading.

    Raises:
        RunFolderError: it is not there, no pack, or of a later version.
    """
    try:
        os.close(open_regular(path))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read as a pack: {error.strerror}") from error
    with _damage_told(path):
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        pack = sqlite3.connect(uri, uri=True, check_same_thread=False)
        pack.execute("PRAGMA trusted_schema = OFF")
        (application,) = pack.execute("PRAGMA application_id").fetchone()
        (version,) = pack.execute("PRAGMA user_version").fetchone()
        told = sorted(sql for (sql,) in pack.execute("SELECT sql FROM sqlite_master"))
    if application == _APPLICATION and version > _FORMAT:
        raise RunFolderError(f"{path} is of format {version}, of a later gnbench; update gnbench")
    if application != _APPLICATION or told != sorted(_TABLES):
        raise RunFolderError(f"{path} is no pack of gnbench's; make one: gnbench pack RUNS")
    return pack


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RunFolderError(f"{path} is damaged or no pack: {error}; {_AGAIN}") from error


def _inflated(path: Path, content: bytes, limit: int) -> bytes:
    """Return what was compressed, unless it is more than `limit` bytes."""
    inflater = zlib.decompressobj()
    try:
        whole = inflater.decompress(content, limit + 1)
    except (zlib.error, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}; {_AGAIN}") from error
    if len(whole) > limit or not inflater.eof:
        raise RunFolderError(f"{path} is longer than {limit:,} bytes or cut short; {_AGAIN}")
    return whole

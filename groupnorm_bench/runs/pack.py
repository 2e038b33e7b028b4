"""Many settled runs in one sealed file, to keep, send and merge: `gnbench pack`.

An SQLite database: one file of a format that will be read in decades, sought by name without being
read whole, and written by Python's own library. Each run's `result.json` and `test_hits.npy` are in
it as they were, compressed one by one; W&B's own files, locks and checkpoints are not. Beside them
lie the few facts that verdicts rest on, by column (`facts`), and the records of the sweeps that the
runs are of, with their questions.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import random
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from groupnorm_bench.errors import RunFolderError
from groupnorm_bench.files import open_regular, remove_temporaries, sync_folder
from groupnorm_bench.runs.facts import FactColumns, PartOfFacts, decoded, encoded, facts_of
from groupnorm_bench.runs.folder import MAX_RESULT_BYTES, RunFolder
from groupnorm_bench.runs.result import SETTLED, RunResult

SUFFIX = ".gnb"
_FORMAT = 2
_APPLICATION = int.from_bytes(b"gnbp", "big")
_SEAL = "CREATE TABLE seal (digest BLOB NOT NULL)"
_TABLES = {
    1: (
        "CREATE TABLE runs (name TEXT PRIMARY KEY, result BLOB NOT NULL, result_sha256 BLOB NOT "
        "NULL, hits BLOB, hits_sha256 BLOB) WITHOUT ROWID",
        _SEAL,
    ),
    2: (
        "CREATE TABLE runs (name TEXT PRIMARY KEY, place INTEGER NOT NULL, result_sha256 BLOB NOT "
        "NULL, hits_sha256 BLOB) WITHOUT ROWID",
        "CREATE TABLE contents (place INTEGER PRIMARY KEY, result BLOB NOT NULL, hits BLOB)",
        "CREATE TABLE facts (part INTEGER PRIMARY KEY, content BLOB NOT NULL)",
        "CREATE TABLE sweeps (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID",
        _SEAL,
    ),
}
"""By format: compared with what a file says of itself, so that no view of a stranger's runs.

Names and digests lie apart from the contents, so that the seal is checked without reading those; a
run's place is that of its facts, all parts one after another.
"""
_FILES = {"result.json": "result", "test_hits.npy": "hits"}
_READ = {
    1: "SELECT {0}, {0}_sha256 FROM runs WHERE name = ?",
    2: "SELECT {0}, {0}_sha256 FROM runs JOIN contents USING (place) WHERE name = ?",
}
_INDEX = {
    1: "SELECT name, result_sha256, hits_sha256 FROM runs ORDER BY name",
    2: "SELECT name, result_sha256, hits_sha256, place FROM runs ORDER BY name",
}
_MAX_HITS = 2**26
"""Bytes of a test_hits.npy; those of 10,000 images, half of them misread, take 11,000."""
_CHECKED = 256
"""Results that are held to their facts whenever these are read, drawn anew each time."""


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

    is_packed = True

    def file(self, name: str, limit: int) -> bytes:
        """Return a file of the run as it was when it was packed.

        Raises:
            OSError: the run had none, or it is longer than `limit` bytes.
            RunFolderError: the pack is damaged.
        """
        pack, version = _opened(self.path.parent)
        with _damage_told(self.path.parent):
            query = _READ[version].format(_FILES[name])
            packed, digest = pack.execute(query, [self.path.name]).fetchone() or (None, None)
        if packed is None:
            raise FileNotFoundError(2, "the run had none", name)
        content = _inflated(self.path, packed, limit)
        if hashlib.sha256(content).digest() != digest:
            raise RunFolderError(f"{self.path} is not as it was packed; {_AGAIN}")
        return content

    def has_result(self) -> bool:
        """Return True: nothing else is packed."""
        return True

    def is_claimed(self) -> bool:
        """Return False: nobody trains in a pack."""
        return False


class PackedRuns(Sequence[PackedRun]):
    """The runs of a pack, by name; each is made when it is asked for."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> PackedRun: ...
    @overload
    def __getitem__(self, at: slice) -> PackedRuns: ...
    def __getitem__(self, at: int | slice) -> PackedRun | PackedRuns:
        if isinstance(at, slice):
            return PackedRuns(self.path, self.names[at])
        return PackedRun(self.path / self.names[at])

    def named(self, name: str) -> PackedRun:
        """Return the run of that name."""
        return PackedRun(self.path / name)


def is_pack(path: Path) -> bool:
    """Return whether a path is to be read as a pack: a file that is called one."""
    # Not `is_dir`, which raises where it may not look.
    return path.suffix == SUFFIX and not os.path.isdir(path)


def packed_runs(path: Path) -> PackedRuns:
    """Return the runs of a pack, by name, after its seal was checked.

    Raises:
        RunFolderError: it is no pack, of a later version, cut short or altered.
    """
    return PackedRuns(path, _index(path)[0])


def packed_facts(path: Path) -> tuple[PackedRuns, FactColumns | None]:
    """Return the runs of a pack and their facts, in the same order, after its seal was checked.

    Returns:
        None for the facts of a pack of the first format, which has none.

    Raises:
        RunFolderError: as `packed_runs`; or the facts are not those of the runs: `_CHECKED` of
            them, drawn anew each time, are held to their results.
    """
    names, places = _index(path)
    runs = PackedRuns(path, names)
    pack, version = _opened(path)
    if version == 1:
        return runs, None
    with _damage_told(path):
        parts = [part for (part,) in pack.execute(_PARTS)]
    try:
        columns = decoded(parts, np.array(places, dtype=np.int64))
    except RunFolderError as error:
        raise RunFolderError(f"{path}: {error}; {_AGAIN}") from error
    if any(columns.name(at) != name for at, name in enumerate(names)):
        raise RunFolderError(f"{path}: its columns are of other runs than it holds; {_AGAIN}")
    drawn = random.sample(range(len(runs)), min(_CHECKED, len(runs)))
    hold_to_results(columns, ((at, runs[at]) for at in drawn))
    return runs, columns


def hold_to_results(columns: FactColumns, runs: Iterable[tuple[int, PackedRun]]) -> None:
    """Hold facts to the results that they were made from.

    Raises:
        RunFolderError: they differ, or a result is not as it was packed.
    """
    for at, run in runs:
        result = run.read()
        try:
            differs = result is None or columns.differs(at, result)
        except RunFolderError as error:
            raise RunFolderError(f"{run.path.parent}: {error}; {_AGAIN}") from error
        if differs:
            raise RunFolderError(
                f"{run.path.parent}: its columns do not say what the result of {run.name} does; "
                f"{_AGAIN}"
            )


def packed_sweeps(path: Path) -> dict[str, bytes]:
    """Return the records of the sweeps whose runs a pack holds, by the names of their files.

    Raises:
        RunFolderError: the pack is damaged.
    """
    pack, version = _opened(path)
    if version == 1:
        return {}
    with _damage_told(path):
        return dict(pack.execute("SELECT name, record FROM sweeps ORDER BY name").fetchall())


_PARTS = "SELECT content FROM facts ORDER BY part"


def _index(path: Path) -> tuple[list[str], list[int]]:
    """Return the names of a pack's runs and their places, after its seal was checked."""
    pack, version = _opened(path)
    names: list[str] = []
    places: list[int] = []

    def told() -> Iterator[tuple[Any, ...]]:
        for row in pack.execute(_INDEX[version]):
            names.append(row[0])
            places.append(row[-1])
            yield row

    with _damage_told(path):
        seal = _seal(pack, version, told())
        seals = pack.execute("SELECT digest FROM seal").fetchall()
    if seals != [(seal,)]:
        raise RunFolderError(f"{path} is not as it was sealed: runs lack or were put in; {_AGAIN}")
    return names, places


_AGAIN = "take another copy, or pack the runs again"


def pack_runs(
    runs: Iterable[RunFolder],
    path: Path,
    *,
    sweeps: Mapping[str, bytes] | None = None,
    on_run: Callable[[], None] = lambda: None,
) -> Packed:
    """Add settled runs to a pack, made if need be; replaced whole or not at all.

    Args:
        runs: folders, or runs of other packs, which are merged so.
        path: the pack; what is in it stays. One of the first format becomes one of the present.
        sweeps: records of the runs' sweeps by the names of their files, in place of those there.
        on_run: called after each.

    Raises:
        RunFolderError: a run is there already with another content; the pack cannot be read or
            written; a result cannot be read.
    """
    if path.suffix != SUFFIX:
        raise RunFolderError(f"{path}: a pack is called NAME{SUFFIX}; choose another --out")
    added = known = 0
    problems = []
    with _rewritten(path) as writer:
        for run in runs:
            if not run.has_result():
                problems.append(f"{run.path} has no result yet; left out")
                on_run()
                continue
            content = _content(run)
            result = _result_of(run, content[0])
            if result.status not in SETTLED:
                problems.append(f"{run.path} is {result.status}, no result yet; left out")
            elif writer.add(run, *content, result, path):
                added += 1
            else:
                known += 1
            on_run()
        writer.add_sweeps(sweeps or {})
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
    runs, columns = packed_facts(path)
    for at, run in enumerate(runs):
        folder = RunFolder(runs_dir / run.name)
        result, hits = _content(run)
        told = _result_of(run, result)
        if columns is not None and columns.differs(at, told):
            hold_to_results(columns, [(at, run)])
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


def _result_of(run: RunFolder, content: bytes) -> RunResult:
    try:
        return RunResult.from_json(content, run.name)
    except RunFolderError as error:
        raise RunFolderError(
            f"{run.result_path} {error}; move it away, or train it anew"
        ) from error


class _Writer:
    """Puts runs into a pack that is being written."""

    def __init__(self, pack: sqlite3.Connection) -> None:
        self.pack = pack
        (self._place,) = pack.execute("SELECT COUNT(*) FROM runs").fetchone()
        self._facts = PartOfFacts()

    def add(
        self, run: RunFolder, result: bytes, hits: bytes | None, told: RunResult, path: Path
    ) -> bool:
        """Put a run in; returns False where it is there already."""
        digests = tuple(
            None if part is None else hashlib.sha256(part).digest() for part in (result, hits)
        )
        there = self.pack.execute(
            "SELECT result_sha256, hits_sha256 FROM runs WHERE name = ?", [run.name]
        ).fetchone()
        if there == digests:
            return False
        if there is not None:
            raise RunFolderError(
                f"{run.path} holds another result than {path} has of that run; which counts? pack "
                "one of them elsewhere"
            )
        packed = (None if part is None else zlib.compress(part) for part in (result, hits))
        self.pack.execute("INSERT INTO contents VALUES (?, ?, ?)", (self._place, *packed))
        self.pack.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", (run.name, self._place, *digests))
        self._place += 1
        if self._facts.add(facts_of(told)):
            self._write_facts()
        return True

    def add_sweeps(self, records: Mapping[str, bytes]) -> None:
        """Put records of sweeps in, each in place of the one of its name."""
        self.pack.executemany("INSERT OR REPLACE INTO sweeps VALUES (?, ?)", records.items())

    def seal(self) -> None:
        """Write what is left, and the seal."""
        self._write_facts()
        seal = _seal(self.pack, _FORMAT, self.pack.execute(_INDEX[_FORMAT]))
        self.pack.execute("DELETE FROM seal")
        self.pack.execute("INSERT INTO seal VALUES (?)", [seal])
        self.pack.commit()

    def _write_facts(self) -> None:
        if self._facts.runs:
            self.pack.execute("INSERT INTO facts VALUES (NULL, ?)", [encoded(self._facts.runs)])
            self._facts = PartOfFacts()


def _seal(pack: sqlite3.Connection, version: int, rows: Iterable[tuple[Any, ...]]) -> bytes:
    """Return the digest of all names and digests; of the places, facts and sweeps as well."""
    whole = hashlib.sha256()
    for name, result, hits, *place in rows:
        _check_kinds((str, name), (bytes, result), (bytes | None, hits), *((int, p) for p in place))
        line = b"%d %b %b %b" % (len(name), name.encode(), result, hits or b"-")
        whole.update(b"%b %d\n" % (line, *place) if place else line + b"\n")
    if version > 1:
        for (part,) in pack.execute(_PARTS):
            _check_kinds((bytes, part))
            whole.update(hashlib.sha256(part).digest())
        for name, record in pack.execute("SELECT name, record FROM sweeps ORDER BY name"):
            _check_kinds((str, name), (bytes, record))
            whole.update(b"%d %b %d %b" % (len(name), name.encode(), len(record), record))
    return whole.digest()


def _check_kinds(*told: tuple[Any, Any]) -> None:
    """Refuse what SQLite keeps in a column although it is of another kind, and no name of a file.

    Raises:
        sqlite3.DataError: a stranger's pack holds such.
    """
    for kind, value in told:
        if not isinstance(value, kind) or (kind is str and ("/" in value or "\0" in value)):
            raise sqlite3.DataError(f"it holds {value!r:.40}")


@contextlib.contextmanager
def _rewritten(path: Path) -> Iterator[_Writer]:
    """Give a copy of the pack to write into, and put it, sealed, in the old one's place."""
    if path.is_symlink():  # what it leads to is replaced, not the link
        path = Path(os.path.realpath(path))  # `resolve` raises where it leads to itself
    temporary = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    remove_temporaries(path.parent, of=path.name)
    try:
        before = _identity(path)
        with _kept(temporary), contextlib.closing(_begun(temporary, path)) as pack:
            writer = _Writer(pack)
            if os.path.lexists(path) and _opened(path)[1] < _FORMAT:
                for run in packed_runs(path):
                    content = _content(run)
                    writer.add(run, *content, _result_of(run, content[0]), path)
            yield writer
            writer.seal()
        if _identity(path) != before:
            raise RunFolderError(
                f"{path} was changed by another process meanwhile; type the command again"
            )
        _settle(temporary, path)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunFolderError(
            f"{path}: cannot be written: {reason}; free space or choose another --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _connected.cache_clear()


@contextlib.contextmanager
def _kept(temporary: Path) -> Iterator[None]:
    """Make the file, held by a lock so that another process does not take it for abandoned.

    The handle is closed after the database: closing it earlier would drop that one's own locks.
    """
    handle = os.open(temporary, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # no locks here: then nothing is swept away either
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from the one that replaced it; None where there is none."""
    try:
        told = path.stat()
    except FileNotFoundError:
        return None
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns


def _begun(temporary: Path, path: Path) -> sqlite3.Connection:
    pack = sqlite3.connect(temporary, isolation_level="IMMEDIATE")
    pack.execute("PRAGMA journal_mode = OFF")  # a temporary: a kill leaves the old pack
    pack.execute("PRAGMA synchronous = OFF")
    if os.path.lexists(path) and _opened(path)[1] == _FORMAT:
        packed_runs(path)
        _opened(path)[0].backup(pack)
    else:
        for table in _TABLES[_FORMAT]:
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


def _opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open a pack for reading, or return it open; and its format.

    Raises:
        RunFolderError: it is not there, no pack, or of a later version.
    """
    try:
        told = path.stat()
        return _connected(path, (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read as a pack: {error.strerror}") from error


@functools.lru_cache(maxsize=8)
def _connected(path: Path, identity: tuple[int, ...]) -> tuple[sqlite3.Connection, int]:
    os.close(open_regular(path))
    with _damage_told(path):
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        pack = sqlite3.connect(uri, uri=True, check_same_thread=False)
        pack.execute("PRAGMA trusted_schema = OFF")
        (application,) = pack.execute("PRAGMA application_id").fetchone()
        (version,) = pack.execute("PRAGMA user_version").fetchone()
        told = sorted(sql for (sql,) in pack.execute("SELECT sql FROM sqlite_master"))
        (pages,), (size,) = (pack.execute(f"PRAGMA page_{n}").fetchone() for n in ("count", "size"))
    if application == _APPLICATION and version > _FORMAT:
        raise RunFolderError(f"{path} is of format {version}, of a later gnbench; update gnbench")
    if application != _APPLICATION or told != sorted(_TABLES.get(version, ())):
        raise RunFolderError(f"{path} is no pack of gnbench's; make one: gnbench pack RUNS")
    if pages * size != (there := identity[2]):
        raise RunFolderError(f"{path} is damaged: {there:,} bytes, not {pages * size:,}; {_AGAIN}")
    return pack, version


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

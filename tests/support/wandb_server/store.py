"""What the test server remembers, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE projects (id INTEGER PRIMARY KEY, entity TEXT, name TEXT, created REAL,
    UNIQUE (entity, name));
CREATE TABLE runs (id INTEGER PRIMARY KEY, project INTEGER, name TEXT, display_name TEXT,
    description TEXT, notes TEXT, tags TEXT DEFAULT '[]', config TEXT DEFAULT '{}',
    summary TEXT DEFAULT '{}', state TEXT DEFAULT 'running', sweep TEXT, group_name TEXT,
    job_type TEXT, commit_hash TEXT, host TEXT, program TEXT, agent INTEGER, exitcode INTEGER,
    stop_requested INTEGER DEFAULT 0, preempting INTEGER DEFAULT 0, created REAL, heartbeat REAL,
    completions INTEGER DEFAULT 0, offers INTEGER DEFAULT 0, starts INTEGER DEFAULT 0,
    UNIQUE (project, name));
CREATE TABLE lines (run INTEGER, stream TEXT, number INTEGER, text TEXT,
    PRIMARY KEY (run, stream, number)) WITHOUT ROWID;
CREATE TABLE files (run INTEGER, name TEXT, content BLOB, uploaded REAL,
    PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE sweeps (id INTEGER PRIMARY KEY, project INTEGER, name TEXT, config TEXT,
    display_name TEXT, description TEXT, state TEXT DEFAULT 'PENDING', controller TEXT,
    scheduler TEXT, created REAL, UNIQUE (project, name));
CREATE TABLE agents (id INTEGER PRIMARY KEY, sweep INTEGER, host TEXT, created REAL,
    heartbeat REAL);
CREATE TABLE views (id INTEGER PRIMARY KEY, project INTEGER, name TEXT, type TEXT,
    display_name TEXT, description TEXT, spec TEXT, created REAL, updated REAL);
CREATE TABLE artifacts (id INTEGER PRIMARY KEY, project INTEGER, run TEXT, name TEXT, type TEXT,
    digest TEXT, client TEXT, state TEXT);
CREATE TABLE requests (id INTEGER PRIMARY KEY, at REAL, method TEXT, path TEXT, operation TEXT,
    status INTEGER, variables TEXT);
"""

Row = dict[str, Any]


class Store:
    """All state of a test server; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self.lock:
            self._connection.close()

    def all(self, query: str, *values: Any) -> list[Row]:
        with self.lock:
            return [dict(row) for row in self._connection.execute(query, values)]

    def one(self, query: str, *values: Any) -> Row | None:
        rows = self.all(query, *values)
        return rows[0] if rows else None

    def insert(self, table: str, **values: Any) -> int:
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        with self.lock:
            cursor = self._connection.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values())
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def update(self, table: str, row_id: int, **values: Any) -> None:
        assignments = ", ".join(f"{column} = ?" for column in values)
        with self.lock:
            self._connection.execute(
                f"UPDATE {table} SET {assignments} WHERE id = ?", [*values.values(), row_id]
            )

    def delete_run(self, run_id: int) -> None:
        with self.lock:
            self._connection.execute("DELETE FROM runs WHERE id = ?", [run_id])
            self._connection.execute("DELETE FROM lines WHERE run = ?", [run_id])
            self._connection.execute("DELETE FROM files WHERE run = ?", [run_id])

    def project(self, entity: str, name: str, create: bool = False) -> Row | None:
        with self.lock:
            found = self.one("SELECT * FROM projects WHERE entity = ? AND name = ?", entity, name)
            if found is None and create:
                row_id = self.insert("projects", entity=entity, name=name, created=time.time())
                found = self.one("SELECT * FROM projects WHERE id = ?", row_id)
            return found

    def run(self, project: int, name: str) -> Row | None:
        return self.one("SELECT * FROM runs WHERE project = ? AND name = ?", project, name)

    def sweep(self, project: int, name: str) -> Row | None:
        return self.one("SELECT * FROM sweeps WHERE project = ? AND name = ?", project, name)

    def sweep_runs(self, sweep: Row) -> list[Row]:
        return self.all(
            "SELECT * FROM runs WHERE project = ? AND sweep = ? ORDER BY id",
            sweep["project"],
            sweep["name"],
        )

    def put_lines(self, run: int, stream: str, offset: int, lines: list[str]) -> None:
        """Keep numbered lines; a number that is known is replaced, so repeats do no harm."""
        with self.lock:
            self._connection.executemany(
                "INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?)",
                [(run, stream, offset + i, line) for i, line in enumerate(lines)],
            )

    def lines(self, run: int, stream: str) -> list[str]:
        rows = self.all(
            "SELECT text FROM lines WHERE run = ? AND stream = ? ORDER BY number", run, stream
        )
        return [row["text"] for row in rows]

    def history(self, run: int) -> list[Row]:
        return [json.loads(line) for line in self.lines(run, "wandb-history.jsonl")]

    def put_file(self, run: int, name: str, content: bytes) -> None:
        with self.lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [run, name, content, time.time()],
            )

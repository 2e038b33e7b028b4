"""The test server's HTTP side: GraphQL, the file stream, file storage, and faults on demand."""

from __future__ import annotations

import base64
import contextlib
import gzip
import importlib.resources
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import graphql

from tests.support.wandb_server.mutations import ApiError, Root, Rules
from tests.support.wandb_server.store import Row, Store

API_KEY = "0123456789abcdef0123456789abcdef01234567"
FINAL = ("finished", "failed", "killed", "crashed", "preempted")


@dataclass
class Fault:
    """Something that goes wrong with requests, as long as it is on."""

    kind: str
    """`status`, `late` (answers after `seconds`), `rubbish`, or `drop` (closes the connection)."""
    status: int = 500
    seconds: float = 20.0
    matching: str = ""
    """Part of `path operation`; empty means every request."""
    times: int | None = None
    """How many requests; None means until healed."""
    hits: int = 0

    def strikes(self, request: str) -> bool:
        if self.matching not in request or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        self.hits += 1
        return True


class WandbServer:
    """A W&B server on loopback: what it decides is a test double, what it speaks is the protocol.

    Use it as a context manager, or call `start` and `close`.
    """

    def __init__(self, state: Path, port: int = 0) -> None:
        self.store = Store(state)
        self.rules = Rules()
        self.faults: list[Fault] = []
        self.refusals: list[str] = []
        """Requests that this server does not play; a test that leaves any here fails."""
        self._root = Root(self.store, self.rules)
        text = importlib.resources.files(__package__).joinpath("schema.graphql").read_text()
        self._schema = graphql.build_schema(text)
        self._http: _Http | None = None
        self._port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> WandbServer:
        """Listen; after `stop`, on the same port as before."""
        self._http = _Http(("127.0.0.1", self._port), self)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Be gone: refuse connections and cut those that are open. State stays."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.cut()
            self._http = None

    def close(self) -> None:
        self.stop()
        self.store.close()

    def __enter__(self) -> WandbServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def fail(self, kind: str, **details: Any) -> Fault:
        """Add a fault; `heal` takes them all away."""
        fault = Fault(kind, **details)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        self.faults.clear()

    # what tests read

    def run(self, name: str) -> Row:
        """Return one run by W&B's id, with `config`, `summary`, `history` and `files` unpacked."""
        row = self.store.one("SELECT * FROM runs WHERE name = ?", name)
        assert row is not None, f"the server knows no run {name}"
        return self._unpack(row)

    def runs(self, sweep: str | None = None) -> list[Row]:
        """Return all runs, or those of a sweep, in the order they were made."""
        rows = self.store.all("SELECT * FROM runs ORDER BY id")
        return [self._unpack(row) for row in rows if sweep in (None, row["sweep"])]

    def sweep(self, name: str) -> Row:
        row = self.store.one("SELECT * FROM sweeps WHERE name = ?", name)
        assert row is not None, f"the server knows no sweep {name}"
        return row

    def operations(self) -> list[str]:
        """Return the GraphQL operations asked for so far, oldest first."""
        rows = self.store.all("SELECT operation FROM requests WHERE operation != '' ORDER BY id")
        return [row["operation"] for row in rows]

    def wait_for(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Return what `condition` returns once that is true; fails the test after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"not true after {seconds} s; runs: {self._states()}")

    def _states(self) -> list[tuple[str, str]]:
        return [(r["name"], r["state"]) for r in self.store.all("SELECT * FROM runs")]

    def _unpack(self, row: Row) -> Row:
        config = {k: v["value"] for k, v in json.loads(row["config"]).items() if k != "_wandb"}
        files = self.store.all("SELECT name FROM files WHERE run = ? ORDER BY name", row["id"])
        return row | {
            "config": config,
            "summary": json.loads(row["summary"]),
            "tags": json.loads(row["tags"]),
            "history": self.store.history(row["id"]),
            "console": self.store.lines(row["id"], "output.log"),
            "files": [file["name"] for file in files],
        }

    # answers

    def graphql(self, body: Row, base_url: str) -> tuple[int, Row]:
        try:
            document = graphql.parse(body["query"])
        except graphql.GraphQLSyntaxError as error:
            return self._refuse(f"GraphQL syntax: {error.message}")
        problems = graphql.validate(self._schema, document)
        if problems:
            return self._refuse(f"{operation_of(body)}: {'; '.join(p.message for p in problems)}")
        result = graphql.execute_sync(
            self._schema,
            document,
            root_value=self._root,
            variable_values=body.get("variables"),
            context_value={"base_url": base_url},
        )
        answer: Row = {"data": result.data}
        status = 200
        if result.errors:
            answer["errors"] = [
                {"message": e.message, "path": e.path, "extensions": {}} for e in result.errors
            ]
            causes = [e.original_error for e in result.errors]
            refused = [cause for cause in causes if isinstance(cause, ApiError)]
            status = refused[0].status if refused else 400
            if not refused:
                self.refusals.append(f"{operation_of(body)}: {result.errors}")
        return status, answer

    def _refuse(self, why: str) -> tuple[int, Row]:
        self.refusals.append(why)
        return 400, {"errors": [{"message": f"not played by this test server: {why}"}]}

    def file_stream(self, entity: str, project: str, name: str, body: Row) -> tuple[int, Row]:
        with self.store.lock:
            row = self.store.project(entity, project)
            run = self.store.run(row["id"], name) if row else None
            if run is None:
                return 404, {"error": f"run {entity}/{project}/{name} not found"}
            for stream, chunk in body.get("files", {}).items():
                self._append(run, stream, chunk)
            changes: Row = {"heartbeat": time.time()}
            if body.get("preempting"):
                changes["preempting"] = 1
            if body.get("complete"):
                changes |= self._complete(run, body.get("exitcode"), changes)
            self.store.update("runs", run["id"], **changes)
            return 200, {"exitcode": None, "limits": {}, "stopped": bool(run["stop_requested"])}

    def _append(self, run: Row, stream: str, chunk: Row) -> None:
        offset, lines = chunk.get("offset", 0), chunk["content"]
        if stream == "wandb-summary.json":
            self.store.update("runs", run["id"], summary=lines[-1])
            return
        self.store.put_lines(run["id"], stream, offset, lines)

    def _complete(self, run: Row, exitcode: int | None, changes: Row) -> Row:
        if exitcode == 0:
            state = "finished"
        elif run["preempting"] or changes.get("preempting"):
            state = "preempted"
        else:
            state = "failed"
        return {"state": state, "exitcode": exitcode, "completions": run["completions"] + 1}

    def put_file(self, run: int, name: str, content: bytes) -> None:
        self.store.put_file(run, name, content)

    def get_file(self, run: int, name: str) -> bytes | None:
        row = self.store.one("SELECT content FROM files WHERE run = ? AND name = ?", run, name)
        return row["content"] if row else None


def operation_of(body: Row) -> str:
    """Return the name of a GraphQL request's operation."""
    found = re.search(r"\b(?:query|mutation)\s+(\w+)", body.get("query", ""))
    return found.group(1) if found else ""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], owner: WandbServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the client, or `cut`, has closed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in the store, not printed."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        owner = self.server.owner
        content = self._read()
        path = self.path.split("?")[0]
        body: Row = {}
        if "json" in self.headers.get("Content-Type", "") or path.endswith(
            ("/graphql", "/file_stream")
        ):
            body = json.loads(content or b"{}")
        operation = operation_of(body) if path.endswith("/graphql") else ""
        fault = next((f for f in owner.faults if f.strikes(f"{path} {operation}")), None)
        if fault is not None and self._fail(fault):
            self._record(path, operation, fault.status, body)
            return
        status, answer = self._route(path, body, content)
        self._record(path, operation, status, body)
        if not isinstance(answer, bytes):
            answer = json.dumps(_spelled(answer), allow_nan=False).encode()
        self._send(status, answer)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            content = b"".join(parts)
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        return content

    def _fail(self, fault: Fault) -> bool:
        """Play a fault; returns False where the request is to be answered after all."""
        if fault.kind == "late":
            time.sleep(fault.seconds)
            return False
        if fault.kind == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "rubbish":
            self._send(200, b"\x00\xff<html>not what you asked for</html>")
        elif fault.kind == "status":
            message = {"errors": [{"message": f"test fault {fault.status}"}]}
            self._send(fault.status, json.dumps(message).encode())
        else:
            raise ValueError(f"fault {fault.kind!r} is unknown")
        return True

    def _route(self, path: str, body: Row, content: bytes) -> tuple[int, Row | bytes]:
        owner = self.server.owner
        stored = re.fullmatch(r"/storage/(-?\d+)/(.+)", path)
        if stored:  # uploads go to signed addresses, without the key
            run, name = int(stored.group(1)), unquote(stored.group(2))
            if self.command == "PUT":
                owner.put_file(run, name, content)
                return 200, b""
            found = owner.get_file(run, name)
            return (404, b"") if found is None else (200, found)
        if not self._authorized():
            return 401, {"errors": [{"message": "user is not logged in"}]}
        if path == "/graphql":
            return owner.graphql(body, owner.url)
        stream = re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)
        if stream:
            entity, project, run_name = map(unquote, stream.groups())
            return owner.file_stream(entity, project, run_name, body)
        if path.startswith("/files/") and self.command == "GET":
            return 404, b""
        owner.refusals.append(f"{self.command} {path}")
        return 404, {"error": f"not played by this test server: {self.command} {path}"}

    def _authorized(self) -> bool:
        header = self.headers.get("Authorization", "")
        expected = base64.b64encode(f"api:{API_KEY}".encode()).decode()
        return header == f"Basic {expected}"

    def _record(self, path: str, operation: str, status: int, body: Row) -> None:
        self.server.owner.store.insert(
            "requests",
            at=time.time(),
            method=self.command,
            path=path,
            operation=operation,
            status=status,
            variables=json.dumps(body.get("variables", body)),
        )

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)


def _spelled(answer: Any) -> Any:
    """Return an answer with numbers that JSON does not have as W&B spells them: `"NaN"`."""
    if isinstance(answer, dict):
        return {key: _spelled(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_spelled(value) for value in answer]
    if isinstance(answer, float) and not math.isfinite(answer):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(answer, "NaN")
    return answer

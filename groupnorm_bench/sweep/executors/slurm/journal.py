"""What a task tells the command that waits for it: events as lines, appended to a file.

A file, since a node and the machine where the command was typed share nothing else for certain.
Each line is written by a file of its own opening, so that a network file system passes it on.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groupnorm_bench.metrics import EpochRow
from groupnorm_bench.settings.config import TrainConfig
from groupnorm_bench.sweep.executors.protocol import (
    Ended,
    Event,
    Held,
    Lost,
    Progress,
    Said,
    Started,
    Stopped,
)

DONE = "done"
"""What a task says last, once it has been through all its runs."""
ASKED = "asked"
_EVERY_SECONDS = 1.0
_MOST = 2**22
"""Bytes read at a time."""


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that a task has told: the name of an event, its run, its other fields."""

    what: str
    run: str
    fields: dict[str, Any]

    def event(self, run: TrainConfig, slot: int) -> Event | None:
        """Return the event; None for one that needs more than its line."""
        fields = self.fields
        if self.what == "Started":
            return Started(run, slot)
        if self.what == "Progress":
            return Progress(run, slot, fields["step"], fields["accuracy"], fields.get("row"))
        if self.what == "Said":
            return Said(run, slot, fields["text"])
        if self.what == "Lost":
            return Lost(run, slot, fields["reason"], fields["traceback"])
        return Held(run, slot) if self.what == "Held" else None


def append(path: Path, **fields: Any) -> None:
    """Append one line to a file, whole."""
    line = json.dumps(fields) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


class Journal:
    """The task's side: writes down what its workers do, progress between epochs once a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due: dict[str, float] = {}

    def write(self, event: Event) -> None:
        """Write an event down."""
        run, name = event.run, type(event).__name__
        if isinstance(event, Progress):
            now = time.monotonic()
            if event.row is None and now < self._due.get(run.name, 0.0):
                return
            self._due[run.name] = now + _EVERY_SECONDS
            fields: dict[str, Any] = {"step": event.step, "accuracy": event.accuracy}
            if event.row is not None:
                fields["row"] = dict(event.row)
        elif isinstance(event, Said):
            fields = {"text": event.text}
        elif isinstance(event, Lost):
            fields = {"reason": event.reason, "traceback": event.traceback}
        elif isinstance(event, Ended):
            status = event.result.status
            fields = {"seconds": event.seconds, "trained": event.trained, "status": status}
        else:
            assert isinstance(event, Started | Held | Stopped)
            fields = {}
        append(self._path, what=name, run=run.name, **fields)

    def ask(self, run: TrainConfig, row: EpochRow) -> None:
        """Ask whether a run should stop after this epoch."""
        append(self._path, what=ASKED, run=run.name, row=dict(row))

    def done(self) -> None:
        """Write down that all runs of the task have been tried."""
        append(self._path, what=DONE, run="")


class Tail:
    """Reads what was appended to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[dict[str, Any]]:
        """Return the new lines, whole ones only; what is not ours among them is left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read(_MOST)
        except OSError:  # not there yet, or not any more
            return []
        whole = content.rpartition(b"\n")[0]
        self._offset += len(whole) + bool(whole)
        found = []
        for line in whole.splitlines():
            try:
                document = json.loads(line)
            except ValueError:  # cut short by a full disk; the run folders tell the truth
                continue
            if isinstance(document, dict):
                found.append(document)
        return found

    def news(self) -> list[Told]:
        """Return what a task has told since."""
        documents = self.lines()
        return [
            Told(str(document.pop("what", "")), str(document.pop("run", "")), document)
            for document in documents
        ]

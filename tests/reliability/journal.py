"""What a campaign has played, line by line on disk, so that a campaign that is stopped goes on.

The first line says of which code it is: cases of other code are not taken up.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import groupnorm_bench

CODE = (Path(groupnorm_bench.__file__).parent, Path(__file__).parent)


def fingerprint() -> str:
    """Return a digest of every source of the product and of the campaign."""
    digest = hashlib.sha256()
    for root in CODE:
        for path in sorted((*root.rglob("*.py"), *root.rglob("*.c"))):
            digest.update(str(path.relative_to(root.parent)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Journal:
    """Cases by their name, each written down as it ends."""

    def __init__(self, path: Path, what: str, code: str | None = None) -> None:
        """Take up the journal at `path`, or begin one.

        Raises:
            ValueError: it is of another command or of other code.
        """
        self.path = path
        self.done: dict[str, dict[str, Any]] = {}
        head = json.dumps({"what": what, "code": code or fingerprint()})
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n")
            return
        first, *rest = path.read_text().split("\n")
        if first != head:
            raise ValueError(
                f"{path} is of another campaign or of other code; move it away, or name another "
                "--journal"
            )
        whole, torn = rest[:-1], rest[-1]  # a line that has no end was being written
        if torn:
            path.write_text("\n".join((first, *whole, "")))
        self.done = {case["name"]: case for case in map(json.loads, whole)}

    def add(self, name: str, case: dict[str, Any]) -> None:
        """Write a case down."""
        self.done[name] = {"name": name, **case}
        with self.path.open("a") as file:
            file.write(json.dumps(self.done[name]) + "\n")

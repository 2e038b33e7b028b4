"""Rules that hold all over the package: one name is one thing, and who catches all says why."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import groupnorm_bench

PACKAGE = Path(groupnorm_bench.__file__).parent


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the module's classes, nested ones too, and the names that it binds for others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        names = [name for name in names if name != "TYPE_CHECKING"]  # where typing loads too late
        yield from (name for name in names if not name.startswith("_"))


def test_no_two_things_have_one_name() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in defined(ast.parse(path.read_text())):
            homes[name].add(str(path.relative_to(PACKAGE)))
    assert len(homes) > 300
    assert {name: sorted(places) for name, places in homes.items() if len(places) > 1} == {}


def test_whoever_catches_everything_says_why_beside_it() -> None:
    broad = re.compile(r"except (\(?Exception|BaseException)\b")
    found = [
        (path.name, line.strip())
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if broad.search(line)
    ]
    assert len(found) > 10
    assert [place for place in found if "  # " not in place[1]] == []

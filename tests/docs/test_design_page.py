"""docs/design.md names rooms and modules that are there, and every module that stands alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import groupnorm_bench

PACKAGE = Path(groupnorm_bench.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "design.md").read_text()
ROWS = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", PAGE.split("| room |")[1].split("\n\n")[0], re.M)


def is_there(room: str, name: str) -> bool:
    """Return whether a module or folder of this name is in the room, or stands in the package."""
    folders = (PACKAGE / room, PACKAGE)
    return any((f / name).is_dir() or (f / f"{name}.py").exists() for f in folders)


@pytest.mark.parametrize(("rooms", "idea"), ROWS)
def test_what_the_table_of_rooms_names_is_there(rooms, idea):
    for room in re.findall(r"`(.+?)`", rooms):
        assert is_there("", room.rstrip("/"))
        if room.endswith("/"):
            names = re.findall(r"`([a-z_]+)/?`", idea)
            assert [name for name in names if not is_there(room, name)] == []


def test_the_table_of_rooms_leaves_nothing_out():
    named = {room.rstrip("/") for rooms, _ in ROWS for room in re.findall(r"`(.+?)`", rooms)}
    modules = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    there = modules | {path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py")}
    assert there - named == set()

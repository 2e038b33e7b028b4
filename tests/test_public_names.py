"""What `groupnorm_bench` exports, in whatever order a program imports it."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import groupnorm_bench
from groupnorm_bench.compare import ask
from groupnorm_bench.report import write
from groupnorm_bench.sweep import session

IMPORTS = ("from house import room", "import house.room", "import house.room.desk")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a folder with a package of one room, which is called like its desk's function."""
    room = tmp_path / "house" / "room"
    room.mkdir(parents=True)
    (room.parent / "__init__.py").touch()
    make = "from groupnorm_bench.callable_package import make_callable\n"
    (room / "__init__.py").write_text(make + "make_callable(__name__, 'desk:room')\n")
    (room / "desk.py").write_text("def room(number: int) -> int:\n    return number + 1\n")
    return tmp_path


@pytest.mark.parametrize("order", list(itertools.permutations(IMPORTS)))
def test_a_callable_package_is_function_and_folder_whatever_is_imported_first(house, order):
    checks = ["assert house.room is room", "assert room(2) == 3", "assert house.room.desk.room"]
    code = "\n".join(["import house", *order, *checks])
    done = subprocess.run([sys.executable, "-c", code], cwd=house, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_callable_package_shows_its_functions_parameters(house, monkeypatch):
    monkeypatch.syspath_prepend(house)
    import house.room  # type: ignore[import-not-found]

    assert list(inspect.signature(house.room).parameters) == ["number"]


def test_every_public_name_can_be_had_and_the_list_is_whole():
    assert groupnorm_bench.__all__ == [
        *(
            "NORMS",
            "TrainConfig",
            "bench_layers",
            "build_model",
            "compare",
            "load_runs",
            "make_norm",
            "report",
        ),
        *("swap_norms", "sweep", "train"),
    ]
    for name in groupnorm_bench.__all__:
        assert getattr(groupnorm_bench, name) is not None
    assert set(groupnorm_bench.__all__) <= set(dir(groupnorm_bench))
    for package, function in (
        (groupnorm_bench.sweep, session.sweep),
        (groupnorm_bench.compare, ask.compare),
        (groupnorm_bench.report, write.report),
    ):
        assert inspect.signature(package) == inspect.signature(function)


def test_importing_the_package_loads_none_of_its_rooms():
    code = "import sys, groupnorm_bench; print(*(m for m in sys.modules if 'groupnorm' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["groupnorm_bench"]

"""A function of the user's own is found where the user stands, and never in front of Python's."""

import doctest
import random
import sys

import pytest

from groupnorm_bench import own


def test_the_examples_of_the_docstrings_hold():
    failed, tried = doctest.testmod(own)
    assert (failed, tried) == (0, 1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_function_comes_from_the_working_directory(here):
    (here / "my_own_functions.py").write_text("def double(number):\n    return 2 * number\n")
    assert own.own_function("my_own_functions:double")(3) == 6


def test_the_working_directory_comes_last(here):
    (here / "random.py").write_text("raise SystemExit('imported in place of the library')\n")
    (here / "colorsys.py").write_text("raise SystemExit('imported in place of the library')\n")
    assert own.own_function("random:random") is random.random
    assert own.own_function("colorsys:rgb_to_hsv")(0, 0, 0) == (0.0, 0.0, 0)


def test_what_is_not_there_raises(here):
    with pytest.raises(ImportError, match="no_such_module"):
        own.own_function("no_such_module:make")
    with pytest.raises(AttributeError, match="no_such_name"):
        own.own_function("colorsys:no_such_name")
    (here / "my_own_nets.py").write_text("def make():\n    return 1\n")
    with pytest.raises(ImportError, match=r"without \.py: my_own_nets:make"):
        own.own_function("my_own_nets.py:make")
    (here / "my_own_lab").mkdir()
    (here / "my_own_lab/py.py").write_text("def make():\n    return 2\n")
    assert own.own_function("my_own_lab.py:make")() == 2

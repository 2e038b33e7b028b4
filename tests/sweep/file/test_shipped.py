"""Sweep files that come with the package, found by name."""

from __future__ import annotations

import pytest

from groupnorm_bench.errors import SweepError
from groupnorm_bench.sweep.file.shipped import find_sweep, shipped_folder, shipped_sweeps
from groupnorm_bench.sweep.file.spec import read_spec
from tests.support import ROOT
from tests.support.command_line import gnbench


def test_every_sweep_of_the_checkout_is_there_by_its_name():
    names = {path.stem for path in (ROOT / "sweeps").glob("*.yaml") if "." not in path.stem}
    assert set(shipped_sweeps()) == names
    assert {"norm", "quick", "smoke"} <= names
    assert (shipped_folder("configs") / "default.yaml").is_file()


def test_a_name_is_one_of_ours_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_spec(find_sweep("smoke")).name == "smoke"


def test_a_file_of_that_name_here_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").write_text("name: mine\n")
    assert find_sweep("smoke").read_text() == "name: mine\n"


@pytest.mark.parametrize("name", ["sweeps/smoke", "smoke.yaml"])
def test_what_looks_like_a_path_is_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(find_sweep(name)) == name


def test_an_unknown_name_is_offered_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepError, match=r"smoek is no file here.*did you mean 'smoke'"):
        find_sweep("smoek")


def test_the_command_takes_a_name(tmp_path):
    done = gnbench("sweep", "smoke", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"runs": 6' in done.stdout

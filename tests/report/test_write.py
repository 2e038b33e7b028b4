"""compare and report as Python calls: the same answers as the command line's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groupnorm_bench import compare, load_runs, report
from groupnorm_bench.cli.app import run
from groupnorm_bench.errors import CompareError, RunFolderError
from tests.support.run_folders import arms, make_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "runs"
    make_runs(folder, arms=arms(groups=(8,)), batch_sizes=(2, 8), seeds=3)
    return folder


def test_compare_answers_as_the_command_line(runs, capsys):
    options = {"where": "batch_size=2", "metric": "val/accuracy", "baseline": "none"}
    assert run(["compare", str(runs), "--json", *(f"--{k}={v}" for k, v in options.items())]) == 0
    told = json.loads(capsys.readouterr().out)
    ours = compare(runs, **options).to_dict()
    assert json.loads(json.dumps(ours)) == told


def test_runs_at_hand_are_as_good_as_where_they_lie(runs):
    table = load_runs([runs])
    assert compare(table) == compare([str(runs)])
    few = compare(table, where="norm in (batch, none) and batch_size=8")
    assert {cell.arm for cell in few.cells} == {"batch", "none"}


def test_what_is_chosen_on_validation_leaves_the_setting(runs):
    chosen = compare(runs, choose=["batch_size"])
    assert all("batch_size" not in contrast.setting for contrast in chosen.contrasts)
    with pytest.raises(CompareError, match="'sede' cannot be chosen"):
        compare(runs, choose=["sede"])


def test_a_report_is_written_with_its_figures_or_returned_as_text(runs, tmp_path):
    written = report(runs, tmp_path / "new" / "page.html", figures=tmp_path / "figures")
    assert written.path is not None
    assert written.path.read_text(encoding="utf-8") == written.text
    assert written.text.startswith("<!doctype html>")
    assert {path.suffix for path in written.figures} == {".png", ".svg"}
    text = report(load_runs([runs]), None, output="md")
    assert (text.path, text.figures) == (None, ())
    assert "### Verdicts" in text.text


def test_a_report_that_cannot_be_written_says_so(runs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=r"cannot be written: .*; choose another"):
        report(runs, tmp_path / "file" / "page.html", output="md")

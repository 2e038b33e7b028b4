"""compare and report as Python calls: the same answers as the command line's."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
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


def test_what_is_no_regular_file_is_written_to_and_stays_what_it_is(runs, tmp_path):
    target, link, pipe = (tmp_path / name for name in ("target.md", "link.md", "pipe.md"))
    target.write_text("old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    report(runs, link, output="md")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith("## Which normalisation")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    report(runs, pipe, output="md")
    reader.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert read == [target.read_text(encoding="utf-8")]
    assert report(runs, os.devnull, output="md").path == Path(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_full_device_and_a_folder_are_refused_in_one_line(runs, tmp_path, capsys):
    for out in ("/dev/full", str(tmp_path)):
        assert run(["report", str(runs), "--format", "md", "--out", out]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "cannot be written" in err


def test_stdout_by_name_holds_the_report_and_nothing_after_it(runs, tmp_path):
    code = "import sys; from groupnorm_bench.cli import main; main(sys.argv[1:])"
    for name in ("/dev/stdout", "link"):
        if name == "link":
            (tmp_path / name).symlink_to("/proc/self/fd/1")
        with (tmp_path / "out").open("wb") as out:
            command = [sys.executable, "-c", code, "report", str(runs), "--format", "md"]
            subprocess.run([*command, "--out", name], stdout=out, cwd=tmp_path, check=True)
        text = (tmp_path / "out").read_text(encoding="utf-8")
        assert text.startswith("## Which normalisation")
        assert text.rstrip().splitlines()[-1].startswith("- This report: ")

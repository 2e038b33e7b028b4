"""What a received run tells of itself is text wherever it is shown, whatever it was made to be."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.wording import csv_cell, markdown, printable
from tests.support.run_folders import arms, make_runs

EVIL = (
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "-1+1",
    "+1",
    "1 | 2 | <script>alert(1)</script>",
    "[see](http://evil.example)",
    "\x1b]0;title\x07\x1b[2J",
    "1\u202e2\u2066",
    "tag\U000e0041",
    "a\nb\r\nc",
    "# heading",
)


@pytest.fixture(params=EVIL, ids=range(len(EVIL)))
def runs(request, tmp_path: Path) -> Path:
    """Return runs of two versions, one of which is called as a bad neighbour would call it."""
    make_runs(tmp_path, arms=arms(groups=(8,))[:2], seeds=2)
    fields = dict.fromkeys(("version", "torch", "host", "device", "started"), request.param)
    make_runs(tmp_path, arms=arms(groups=(8,))[:2], seeds=2, lrs=(2e-3,), environment=fields)
    return tmp_path


def printed(capsys, *arguments: str) -> str:
    assert run([*arguments]) == 0
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    return out


def test_a_terminal_shows_no_control_character(runs, capsys):
    printed(capsys, "compare", str(runs))


def test_a_markdown_table_keeps_its_columns_and_shows_no_tag_or_link(runs, capsys):
    for command in ("compare", "report"):
        out = printed(capsys, command, str(runs), "--format", "md")
        tables = [block.splitlines() for block in out.split("\n\n") if block.startswith("|")]
        assert len(tables[0]) > 4
        for rows in tables:
            bars = {row.replace("\\\\", "").replace("\\|", "").count("|") for row in rows}
            assert len(bars) == 1
        assert "<script" not in out.replace("\\<", "")
        assert "](http" not in out
        assert not any(line.startswith("#") and "heading" in line for line in out.splitlines())


def test_no_cell_of_a_csv_is_a_formula(runs, capsys):
    out = printed(capsys, "compare", str(runs), "--format", "csv")
    rows = list(csv.reader(io.StringIO(out)))
    assert len(rows) > 2
    for cell in (cell for row in rows for cell in row):
        try:
            float(cell)
        except ValueError:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_json_and_page_hold_it_as_text(runs, capsys, tmp_path):
    document = json.loads(printed(capsys, "compare", str(runs), "--json"))
    assert len({contrast["code"] for contrast in document["contrasts"]}) == 2
    printed(capsys, "report", str(runs), "--out", str(tmp_path / "page.html"))
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_error_that_quotes_it_is_one_line(tmp_path, capsys):
    folder = tmp_path / "runs\x1b[2J\n\udcff"
    assert run(["compare", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\\x1b[2J \\udcff" in err


@pytest.mark.parametrize("text", ["a_b", "batch_size=8, lr=0.001", "räume", "98.2 ± 0.1 %"])
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == markdown(text) == csv_cell(text) == text


def test_long_text_is_cut():
    assert len(printable("x" * 10_000)) == 300


def test_times_of_other_thread_counts_are_told_and_not_divided(tmp_path, capsys):
    for count, norm in ((1, "none"), (2, "batch")):
        make_runs(tmp_path, arms=[{"norm": norm}], seeds=6, environment={"threads": count})
    out = printed(capsys, "compare", str(tmp_path))
    assert "trained on 1 and 2 threads: times and images/s are not comparable" in out
    contrasts = json.loads(printed(capsys, "compare", str(tmp_path), "--json"))["contrasts"]
    assert [contrast["time_ratio"] for contrast in contrasts] == [None]


def test_no_verdict_and_no_common_rank_for_speeds_of_other_machines(tmp_path, capsys, monkeypatch):
    """Nothing is trained here: the sweep finds its four runs done, on one thread and on two."""
    monkeypatch.chdir(tmp_path)
    for count, seeds in ((1, (0,)), (2, (1,))):
        norms = [{"norm": "none"}, {"norm": "batch"}]
        make_runs(Path("runs"), arms=norms, seeds=seeds, environment={"threads": count})
    speed = ("--metric", "images_per_second")
    for command in ("compare", "report"):
        assert run([command, "runs", *speed]) == 2
        said = capsys.readouterr().err
        assert "of runs on cpu (Some CPU @ 2.00GHz), 1 thread and on cpu (Some CPU" in said
        assert "--where" in said
    printed(capsys, "compare", "runs", *speed, "--where", "threads=1")
    Path("s.yaml").write_text(
        "method: grid\nmetric: {name: images_per_second, goal: maximize}\nparameters: "
        "{norm: {values: [none, batch]}, batch_size: {value: 8}, epochs: {value: 3}, "
        "dataset: {value: mnist-5k}}\n"
    )
    sweep = ("sweep", "s.yaml", "--seeds", "2", "--wandb", "disabled")
    assert "ranks do not compare across them" in printed(capsys, *sweep, "-q")
    ranking = json.loads(printed(capsys, *sweep, "--json"))["ranking"]
    assert sorted((cell["arm"], cell["n"], cell["timed_on"][-9:]) for cell in ranking) == [
        (arm, 1, words) for arm in ("batch", "none") for words in (" 1 thread", "2 threads")
    ]

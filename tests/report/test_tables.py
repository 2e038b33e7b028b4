"""A report on results that exist: all that their table can carry, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from groupnorm_bench import compare, report
from groupnorm_bench.cli.app import run
from groupnorm_bench.compare.ask import chosen_runs, compare_table
from groupnorm_bench.compare.foreign import Columns
from groupnorm_bench.report.content import Content, build
from groupnorm_bench.report.draw_page import figure_spec
from tests.compare.test_foreign import study
from tests.support.command_line import gnbench
from tests.support.run_folders import make_runs


def content_of(source: Path, columns: Columns | None = None) -> Content:
    table = chosen_runs([source], columns=columns)
    comparison = compare_table(table, [source])
    return build(table, comparison, sources=[str(source)], data_dir=source.parent, command="make")


def test_a_table_gets_its_page(tmp_path):
    path = study(tmp_path)
    page = report(path, tmp_path / "page.html", figures=tmp_path / "figures").text
    assert "2 arms over 8 seeds: 1 of 2 contrasts with batch is decided, by dice" in page
    assert "guessed by its names: arm norm; seed seed; metric dice" in page
    anchors = re.findall(r'<li><a href="#(\w+)">', page)
    assert anchors == ["verdict", "contrasts", "settings", "words", "provenance", "runs"]
    assert anchors == re.findall(r'<section id="(\w+)"', page)
    heads = re.search(r'id="run-table">.*?</thead>', page, re.S)
    assert re.findall(r'<button type="button">([^<]+)<', heads[0]) == [
        *("run", "arm", "batch_size", "seed", "status", "dice"),
    ]
    names = {picture.stem for picture in (tmp_path / "figures").iterdir()}
    assert names == {"differences", "importance", "parallel", "setting"}


def test_its_figures_have_the_numbers_of_the_table(tmp_path):
    content = content_of(study(tmp_path))
    (figure,) = content.figures_of("setting")
    assert figure.title == "Against batch_size"
    cells = {(c.arm, c.setting["batch_size"]): c.mean for c in content.comparison.cells}
    drawn = {(row[0], row[2]): row[4] for row in figure.table.rows}
    assert drawn == pytest.approx(cells)
    (lines,) = content.figures_of("parallel")
    assert [axis.label for axis in lines.parallel.dimensions] == ["norm", "batch_size", "dice"]
    (shares,) = content.figures_of("importance")
    sources = {row[1]: row[2] for row in shares.table.rows if row[0] == "variance"}
    assert {"norm", "batch_size", "norm x batch_size", "seed (residual)"} <= set(sources)
    forest = {row[1] for row in shares.table.rows if row[0] == "forest"}
    assert forest == {"norm=batch", "norm=group", "batch_size"}
    for figure in content.figures:
        assert not figure.absent
        assert figure_spec(figure)


def test_arms_are_told_apart_and_norms_look_as_ever(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"{arm},{s},0.{s}" for arm in ("mine", "batch", "yours", "sgd") for s in range(3)]
    path.write_text("\n".join(["arm,seed,score", *rows]))
    (figure,) = content_of(path).figures_of("parallel")
    styles = figure.parallel.styles
    assert len({style.color for style in styles.values()}) == 4
    make_runs(tmp_path / "runs", arms=[{"norm": "batch"}], batch_sizes=(8,), seeds=3)
    (ours,) = content_of(tmp_path / "runs").figures_of("parallel")
    assert styles["batch"] == ours.parallel.styles["batch"]


def test_a_table_without_a_number_among_its_settings_says_so(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "norm,seed,dice\n" + "".join(f"batch,{s},0.7\ngroup,{s},0.8\n" for s in range(4))
    )
    (figure,) = content_of(path).figures_of("setting")
    assert figure.absent == "No setting of this table has more than one number."


def test_another_setting_of_our_runs_can_be_the_arm_of_a_report(tmp_path):
    arms = [{"norm": "batch", "optimizer": o} for o in ("adam", "sgd")]
    make_runs(tmp_path / "runs", arms=arms, batch_sizes=(8, 32), seeds=3)
    assert run(["pack", str(tmp_path / "runs"), "-o", str(tmp_path / "sweep.gnb")]) == 0
    for source in (tmp_path / "sweep.gnb", tmp_path / "runs"):
        content = content_of(source, Columns(arm=("optimizer",)))
        (figure,) = content.figures_of("batch-size")
        assert len({style for _, style in figure.arms}) == 2
    assert content.question == "Which optimizer, and is the difference real?"
    (figure,) = content.figures_of("batch-size")
    assert {arm for arm, _ in figure.arms} == {"adam", "sgd"}
    (shares,) = content.figures_of("importance")
    assert "optimizer" in {row[1] for row in shares.table.rows}


def test_the_command_takes_the_columns_as_compare_does(tmp_path):
    study(tmp_path)
    told = ("--arm", "batch_size", "--seed", "seed", "--metric", "dice", "--setting", "norm")
    done = gnbench("report", "study.csv", *told, "--format", "md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## Which batch_size, and is the difference real?")
    columns = Columns(arm=("batch_size",), seed="seed", setting=("norm",))
    sentence = compare(tmp_path / "study.csv", columns=columns).contrasts[0].sentence
    assert sentence.partition(":")[0] in done.stdout.replace("\\", "")
    wrong = gnbench("report", "study.csv", "--seed", "sead", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "did you mean 'seed'" in wrong.stderr
    assert not (tmp_path / "report.html").exists()


def test_the_command_takes_a_goal_as_compare_does(tmp_path, capsys):
    """By its name alone a distance is the better the larger it is."""
    path = tmp_path / "fid.csv"
    rows = [f"{n},{s},{f + s % 3}" for s in range(12) for n, f in (("batch", 50), ("group", 30))]
    path.write_text("norm,seed,fid\n" + "\n".join(rows))
    told = []
    for goal in ("minimize", "maximize"):
        assert run(["report", str(path), "--format", "md", "--goal", goal]) == 0
        told.append(capsys.readouterr().out)
    assert "better than batch" in told[0].lower()
    assert "worse than batch" in told[1].lower()

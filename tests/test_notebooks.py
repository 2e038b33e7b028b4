"""Python's way in: what compare, report, load_runs and sweep return shows, tabulates and draws."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pandas
import pytest

from groupnorm_bench import bench_layers, compare, load_runs, report, sweep, train
from groupnorm_bench.compare.contrast import Comparison
from groupnorm_bench.errors import CompareError, SweepError
from groupnorm_bench.notebooks import Bar, MissingPackage, html_table
from groupnorm_bench.settings.config import TrainConfig
from tests.support import ROOT
from tests.support.run_folders import make_runs
from tests.support.screen import Terminal

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
TINY = {
    "name": "tiny",
    "method": "grid",
    "parameters": {
        "norm": {"values": ["none", "batch"]},
        "dataset": {"value": "mnist-5k"},
        "train_limit": {"value": 64},
        "batch_size": {"value": 32},
        "max_steps": {"value": 2},
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python") / "runs"
    make_runs(folder, arms=[{"norm": "none"}, {"norm": "batch"}], batch_sizes=(2, 32), seeds=6)
    return folder


def test_verdicts_are_a_table_in_a_notebook_as_text_and_as_pandas(runs):
    verdicts = compare(runs)
    shown = verdicts._repr_html_()
    assert shown.count("<tr>") == 1 + 4
    for contrast in verdicts.contrasts:
        assert f"<li>{contrast.sentence}</li>" in shown
        assert contrast.sentence in str(verdicts)
    table = verdicts.to_pandas()
    assert table["mean_difference"].tolist() == [c.mean_difference for c in verdicts.contrasts]
    assert table["verdict"].tolist() == [c.verdict for c in verdicts.contrasts]
    assert "table" not in verdicts.to_dict()
    assert isinstance(verdicts, Comparison)
    assert len(verdicts.runs.rows) == 24


def test_runs_are_a_table_in_a_notebook_and_as_pandas(runs):
    table = load_runs(runs)
    frame = table.to_pandas()
    assert frame.shape[0] == 24
    assert frame["test/accuracy"].tolist() == [row.metric("test/accuracy") for row in table.rows]
    assert frame["peak_memory_mb"].dtype == "float64"
    assert "24 runs, the first 20 of them here" in table._repr_html_()


def test_a_report_is_shown_as_its_verdicts_one_figure_and_a_link(runs, tmp_path):
    written = report(runs, tmp_path / "a b.html")
    shown = written._repr_html_()
    assert f'href="{tmp_path}/a%20b.html"' in shown
    assert "data:image/png;base64," in shown
    assert shown.count("<tr>") == 1 + 4
    assert len(shown) < 200_000 < len(written.text)
    assert len(repr(written)) < 1_000


@pytest.mark.parametrize("figure", ["batch-size", "differences", "parallel", "curves"])
def test_a_figure_of_the_report_is_drawn_by_its_name(runs, figure):
    assert report(runs, None, output="md").plot(figure).axes


def test_a_figure_or_a_view_that_is_not_there_is_told(runs):
    written = report(runs, None, output="md")
    with pytest.raises(CompareError, match=r"figure='batch_size' .* did you mean 'batch-size'"):
        written.plot("batch_size")
    with pytest.raises(CompareError, match="view='x' is none of curves"):
        written.plot("curves", "x")
    with pytest.raises(CompareError, match="groups: No finished run of a norm with a number"):
        written.plot("groups")


def test_the_verdicts_are_drawn_with_a_mark_for_each_contrast(runs):
    (axes,) = compare(runs).plot().axes
    assert axes.get_xlabel() == "difference (points)"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "none, batch_size=2",
        "none, batch_size=32",
    ]


def test_without_pandas_one_line_says_what_to_install(runs, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for has_table in (compare(runs), load_runs(runs)):
        with pytest.raises(MissingPackage, match=r"pip install 'groupnorm-bench\[notebook\]'"):
            has_table.to_pandas()


def test_what_stands_in_a_cell_is_text():
    table = html_table(["a", "n"], [["<img src=x>", 3], [None, 4]], ["n"])
    assert "<img" not in table
    assert "&lt;img src=x&gt;" in table
    assert table.count("text-align:right") == 3


def test_a_sweep_takes_what_wandb_sweep_takes_and_keeps_it_as_a_file(tmp_path):
    told: list[str] = []
    options: dict[str, Any] = {"runs": tmp_path, "wandb": "disabled", "workers": "1"}
    outcome = sweep(TINY, say=told.append, seeds=2, **options)
    assert {(r.arm, r.seed) for r in outcome.results} == {
        ("none", 0),
        ("none", 1),
        ("batch", 0),
        ("batch", 1),
    }
    shown = outcome._repr_html_()
    assert "4 runs trained, 0 reused" in shown
    assert shown.count("<tr>") == 1 + 2
    assert len(repr(outcome)) < 1_000
    (file,) = tmp_path.glob("tiny-*.yaml")
    again = sweep(file, say=told.append, seeds=2, **options)
    assert (len(again.trained), len(again.reused)) == (0, 4)
    assert sweep(TINY, say=told.append, seeds=2, **options).trained == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "grid"}, r"as typed: unknown key 'methods'; did you mean 'method'"),
        ({"name": object}, r"as typed: <class 'object'> is no value of a sweep"),
    ],
)
def test_a_mapping_that_is_no_sweep_is_refused_and_leaves_nothing(change, message, tmp_path):
    with pytest.raises(SweepError, match=message):
        sweep(TINY | change, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_sweep_of_ours_is_known_by_its_name(tmp_path):
    with pytest.raises(SweepError, match=r"nrom is no file here.*did you mean 'norm'"):
        sweep("nrom", runs=tmp_path)
    options: dict[str, Any] = {"wandb": "disabled", "workers": "1", "run_cap": 1}
    outcome = sweep("smoke", runs=tmp_path, say=lambda line: None, **options)
    assert len(outcome.results) == 1


def test_a_layers_speed_can_be_had_by_name(capfd):
    rows, notes = bench_layers([(2, 16, 8, 8)], ["fp32"], norms=["batch"], repeats=1)
    assert (rows[0].norm, rows[0].shape, notes) == ("batch", (2, 16, 8, 8), [])
    assert capfd.readouterr().err == ""


def test_nothing_is_drawn_where_nobody_watches(capfd):
    with Bar("title") as bar:
        bar.tell(1, 2)
    train(TrainConfig(dataset="mnist-5k", max_steps=1, train_limit=64))
    assert capfd.readouterr() == ("", "")


SCRIPT = """
from groupnorm_bench import train, TrainConfig
outcome = train(TrainConfig(dataset="mnist-5k", train_limit=320, epochs=30))
"""


@pytest.mark.slow
def test_a_script_at_a_terminal_shows_a_bar_and_leaves_none(tmp_path):
    script = SCRIPT + f"print(open({str(tmp_path / 'go')!r}).read())"
    os.mkfifo(tmp_path / "go")
    with Terminal("-c", script, cwd=tmp_path, module=None, PYTHONPATH=str(ROOT)) as terminal:
        terminal.wait_for(lambda text: "group-g8, seed 0: step" in text and "val/accuracy" in text)
        terminal.wait_for(lambda text: "step" not in text)
        (tmp_path / "go").write_text("the end")
        assert terminal.wait().strip() == "the end"


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel_and_shows_a_bar_a_verdict_and_a_figure(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = [cell.get("outputs", []) for cell in notebook.cells]
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    for shown in (outputs, kept):  # what is kept in the file for readers is of the same kind
        flat = [output for each in shown for output in each]
        pages = [
            output["data"]["text/html"] for output in flat if "text/html" in output.get("data", {})
        ]
        bars = [page for page in pages if page.startswith("<progress")]
        assert ["24 of 24; 24 finished" in bars[0], "round 7 of 7" in bars[1]] == [True, True]
        assert any("<li>group-g8 against batch: " in page for page in pages)
        assert any("report.html" in page for page in pages)
        assert sum("image/png" in output.get("data", {}) for output in flat) == 1
    assert (tmp_path / "report.html").exists()


def test_pandas_is_no_dependency():
    text = (ROOT / "pyproject.toml").read_text()
    assert "pandas" not in text.split("[project.optional-dependencies]")[0]
    assert pandas.__version__

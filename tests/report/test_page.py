"""The report as files: what is in the page, in Markdown, in the pictures, and what is refused."""

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.compare import excerpt
from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.rows import RunTable
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.report import accuracy
from groupnorm_bench.report import content as content_module
from groupnorm_bench.report.charts import Figure
from groupnorm_bench.report.confusion import MOST_CLASSES, confusions_of
from groupnorm_bench.report.content import MOST_ORIGINS, Content, build, origins
from groupnorm_bench.report.draw_page import figure_spec
from groupnorm_bench.report.draw_paper import draw_figure, save_figures
from groupnorm_bench.report.markdown import render_markdown
from groupnorm_bench.report.page import json_for_script, render
from groupnorm_bench.report.slices import MAX_VIEWS, slices
from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import arms, make_run, make_runs, row_of

EVIL = "<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """The elements of a page, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif not self._open or self._open[-1] != "style":
            self.words += data


def content_of(folder: Path, **options) -> Content:
    table = load_runs([folder])
    comparison = compare_runs(table, **options)
    command = "gnbench report"
    return build(table, comparison, sources=["runs"], data_dir=folder / "data", command=command)


def figure(content: Content, key: str) -> Figure:
    return content.figures_of(key)[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_runs(folder, arms=arms(groups=(1, 8, 32)), batch_sizes=(2, 32), seeds=6)
    make_run(folder, TrainConfig(dataset="mnist-5k", epochs=3, seed=9), status="diverged")
    return folder


@pytest.fixture(scope="module")
def content(study: Path) -> Content:
    return content_of(study)


@pytest.fixture(scope="module")
def text(content: Content) -> str:
    return render(content)


def test_the_page_asks_no_host_for_anything(text: str):
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "srcset", "href", "action", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:image/png;base64,"))
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?https?:", "".join(page.words))


def test_the_policy_lets_only_the_pages_own_scripts_run(text: str):
    page = Page(text)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    code = [script for script in page.scripts if not script.lstrip().startswith("{")]
    assert len(code) == 2
    for script in code:
        digest = hashlib.sha256(script.encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy


def test_the_page_gives_the_numbers_of_compare(content: Content, text: str):
    words = Page(text).words
    for contrast in content.comparison.contrasts:
        assert contrast.sentence in words
        assert f"{contrast.mean_difference:+.2f}" in words
    for cell in content.comparison.cells:
        if cell.mean is not None:
            assert f"{cell.mean:.2f}" in words


def test_the_verdict_comes_first_and_in_words(text: str):
    words = Page(text).words
    verdict = words.index("84 finished runs of 7 arms over 6 seeds: ")
    assert verdict < words.index("Parallel coordinates")
    assert "better than batch:" in words.lower() or "undecided against batch:" in words.lower()


def test_every_figure_is_drawn_and_valid_for_plotly(content: Content):
    assert [f.key for f in content.figures if f.absent] == []
    for one in content.figures:
        spec = figure_spec(one)
        for view in spec.get("views", []):
            assert view["panels"]
            for panel in view["panels"]:
                drawn = go.Figure(panel["data"], panel["layout"])  # raises for what Plotly lacks
                assert sum(len(trace.x) for trace in drawn.data) > 0


def test_drawn_means_are_those_of_pandas(study: Path, content: Content):
    rows = load_runs([study]).finished
    frame = pd.DataFrame(
        {
            "arm": [row.arm for row in rows],
            "batch_size": [row.config.batch_size for row in rows],
            "accuracy": [100 * row.result.summary["test/accuracy"] for row in rows],
        }
    )
    expected = frame.groupby(["arm", "batch_size"])["accuracy"].mean()
    (view,) = figure(content, "batch-size").views
    drawn = {series.arm: list(series.y) for series in view.panels[0].series}
    assert set(drawn) == set(frame["arm"])
    for arm, means in drawn.items():
        assert means == pytest.approx(expected[arm].tolist(), abs=1e-9)


def test_runs_without_groups_stay_among_the_parallel_lines(content: Content):
    parallel = figure(content, "parallel").parallel
    assert parallel is not None
    groups = next(d for d in parallel.dimensions if d.label == "num_groups")
    assert groups.ticks is not None
    words = dict(groups.ticks)
    of_batch = {
        words[place]
        for place, arm in zip(groups.values, parallel.arms, strict=True)
        if arm == "batch"
    }
    assert of_batch == {"none"}
    assert len(parallel.arms) == len(content.table.finished)
    assert [content.table.rows[i].arm for i in parallel.runs] == list(parallel.arms)


def test_layer_and_instance_norm_are_the_ends_of_the_groups_axis(content: Content):
    panel = figure(content, "groups").views[0].panels[0]
    assert [word for _, word in panel.x.ticks or ()] == ["LN", "1", "8", "32", "IN"]
    place = {series.arm: series.x[0] for series in panel.series if series.kind == "points"}
    assert place == {"layer": 0, "group-g1": 1, "group-g8": 2, "group-g32": 3, "instance": 4}
    assert {series.arm for series in panel.series if series.kind == "reference"} == {
        "none",
        "batch",
    }


def test_an_arm_has_one_color_in_every_figure_and_in_the_table(content: Content, text: str):
    seen: dict[str, set[str]] = {}
    for one in content.figures:
        for arm, style in one.arms:
            seen.setdefault(arm, set()).add(style.color)
    assert set(seen) == {row.arm for row in content.table.finished}
    assert all(len(colors) == 1 for colors in seen.values())
    for arm, (color,) in seen.items():
        assert f'style="color:{color}" aria-hidden="true"' in text, arm


def test_the_gallery_shows_the_bundled_digits_and_who_missed_them(content: Content, text: str):
    pictures = content.gallery.pictures
    assert len(pictures) == 24
    assert pictures[0].png.startswith(b"\x89PNG")
    assert 0 <= pictures[0].label <= 9
    assert html.escape(pictures[0].words) in text
    shares = [sum(m.missed / m.runs for m in picture.misses) for picture in pictures]
    assert shares == sorted(shares, reverse=True)


def test_the_gallery_tells_what_each_digit_was_read_as(content: Content, text: str):
    for picture in content.gallery.pictures:
        first, *rest = picture.read_as.split(" or ")
        assert int(first) == (picture.label + 1) % 10, "as the runs of this test mostly do"
        assert len(rest) <= 1
        assert f"<b>{picture.name}</b> read as <b>{picture.read_as}</b>" in text
        assert f": {picture.name}, read as {picture.read_as}; misread by " in picture.words


def test_a_confusion_matrix_for_all_arms_and_for_each(content: Content, text: str):
    confused = content.gallery.confusions
    assert confused is not None
    assert [matrix.title for matrix in confused.matrices] == ["all arms", *content.table.arms]
    overall, *each = confused.matrices
    for matrix in confused.matrices:
        assert [sum(row) for row in matrix.shares] == pytest.approx([100] * 10)
        assert max(map(max, matrix.shades)) == 45
        assert [matrix.shades[i][i] for i in range(10)] == [0] * 10
    mean = sum(matrix.shares[3][4] for matrix in each) / len(each)
    assert overall.shares[3][4] == pytest.approx(mean)
    assert text.count('<details class="confusion"') == 1 + len(each)
    wrong = [
        (share, f"{i} read as {j}: {share:.1f} %")
        for i, row in enumerate(overall.shares)
        for j, share in enumerate(row)
        if i != j
    ]
    assert confused.mistakes[0] == max(wrong)[1]
    assert confused.mistakes[0] in text


def test_of_many_classes_the_mistakes_are_told_and_no_matrix(content: Content, study: Path):
    rows = content.table.finished
    labels = [picture.label for picture in content.gallery.pictures]
    many = [f"class {i}" for i in range(MOST_CLASSES + 1)]
    truth = (labels * 42)[: rows[0].num_images("test")]
    confused = confusions_of(rows, content.table.arms, truth, many)
    assert confused is not None
    assert (list(confused.matrices), len(confused.mistakes)) == ([], 8)
    assert all(re.fullmatch(r"class \d read as class \d: \d+\.\d %", m) for m in confused.mistakes)
    assert confusions_of(rows, [], truth, many) is None


def test_a_mark_of_what_a_cell_costs_names_its_batch_size_on_an_axis_from_zero(content: Content):
    (panel,) = figure(content, "seconds").views[0].panels
    assert {name for series in panel.series for name in series.names} == {"2", "32"}
    spec = figure_spec(figure(content, "seconds"))["views"][0]["panels"][0]
    assert spec["layout"]["xaxis"]["rangemode"] == "tozero"
    assert [trace["text"] for trace in spec["data"]] == [["2", "32"]] * 7
    assert all(trace["mode"] == "markers+text" for trace in spec["data"])
    assert "The number beside a mark is its batch size." in figure(content, "seconds").caption
    canvas = draw_figure(figure(content, "seconds"))
    assert canvas.axes[0].get_xlim()[0] == 0
    assert {text.get_text() for text in canvas.axes[0].texts} == {"2", "32"}


def test_marks_of_one_batch_size_are_not_named(tmp_path: Path):
    make_runs(tmp_path, arms=[{"norm": "batch"}, {"norm": "none"}], seeds=2)
    shown = figure(content_of(tmp_path), "seconds")
    assert [series.names for series in shown.views[0].panels[0].series] == [None, None]
    assert "batch size" not in shown.caption


def test_the_run_table_is_the_last_thing_on_the_page(text: str):
    places = [text.index(f'<section id="{name}"') for name in ("missed", "provenance", "runs")]
    assert places == sorted(places)
    assert "<section" not in text[places[-1] + 10 :].split("<script")[0]


def test_without_the_data_set_the_gallery_says_so(tmp_path: Path):
    make_runs(tmp_path, arms=[{"norm": "batch"}, {"norm": "none"}], seeds=2, dataset="mnist")
    words = Page(render(content_of(tmp_path))).words
    assert "mnist is not in" in words
    assert "gnbench data mnist" in words


def test_text_from_users_is_text(tmp_path: Path):
    folders = make_runs(
        tmp_path,
        arms=[{"norm": "batch"}, {"norm": "none"}],
        seeds=6,
        environment={"host": EVIL, "command": ["gnbench", EVIL], "device_name": "</script>" + EVIL},
    )
    folders[0].path.rename(tmp_path / EVIL)
    result = folders[1].read()
    assert result is not None
    folders[1].write(result.replace(wandb={"url": "javascript:alert(1)"}))
    content = content_of(tmp_path)
    page = Page(render(content))
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert EVIL in page.words
    assert not [a for t, a in page.elements if t == "a" and not a["href"].startswith("#")]
    assert EVIL not in render_markdown(content)


def test_json_in_a_script_cannot_end_it():
    document = {"name": "</script><script>alert(1)</script><!-- \u2028"}
    text = json_for_script(document)
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == document


@pytest.mark.parametrize(
    ("grid", "absent"),
    [
        ({"arms": [{"norm": "none"}], "seeds": 1}, {"differences", "groups", "activations"}),
        ({"arms": [{"norm": "batch"}], "seeds": 1}, {"differences", "groups", "importance"}),
        ({"arms": arms(groups=(4,)), "seeds": 1, "hits": False}, set()),
        ({"arms": [{"norm": "group", "group_size": 4}, {"norm": "batch"}], "seeds": 3}, {"groups"}),
        ({"arms": arms(groups=(8,)), "seeds": 2, "epochs": 1}, set()),
    ],
)
def test_a_thin_study_still_makes_a_page(tmp_path: Path, grid, absent):
    make_runs(tmp_path, **grid)
    content = content_of(tmp_path)
    missing = {one.key for one in content.figures if one.absent}
    assert absent <= missing
    words = Page(render(content)).words
    for one in content.figures:
        assert one.absent in words


def test_a_search_over_lr_keeps_to_the_budget_of_views(tmp_path: Path):
    lrs = [round(1e-4 * 1.07**i, 9) for i in range(60)]
    make_runs(tmp_path, arms=[{"norm": "batch"}], lrs=lrs, seeds=1, epochs=2)
    content = content_of(tmp_path)
    rows = load_runs([tmp_path]).rows
    found, note = slices(rows)
    assert len(found) == MAX_VIEWS
    assert "60" in note
    assert note in figure(content, "curves").caption
    parallel = figure(content, "parallel").parallel
    assert parallel is not None
    assert next(d for d in parallel.dimensions if d.label == "log10 lr").is_scale


def test_a_page_is_of_a_sane_size_and_says_what_it_leaves_out(study: Path, monkeypatch):
    monkeypatch.setattr(excerpt, "MOST_READ", 5)
    monkeypatch.setattr(content_module, "MOST_ARMS", 3)
    monkeypatch.setattr(content_module, "MOST_SHOWN", 20)
    monkeypatch.setattr(content_module, "SHOWN_OF_MORE", 12)
    monkeypatch.setattr(accuracy, "MOST_CELLS_SHOWN", 4)
    content = content_of(study)
    words = Page(render(content)).words
    for said in (
        "84 finished runs of 7 arms",
        "of these 12 contrasts",
        "those of the 5 contrasts of 12 that tell most",
        "figures and the run table are of 3 arms of 7: the baseline, and those whose contrasts",
        "are of 12 runs of 85, those of the lowest seeds",
        "The 4 fullest of 6 cells are drawn.",
        "12 of 12 runs shown",
    ):
        assert said in words
    assert len(content.listed.contrasts) == 5
    assert {row[0] for row in figure(content, "differences").table.rows} < set(content.table.arms)
    assert {arm for arm, _ in figure(content, "parallel").arms} <= set(content.table.arms)
    assert len(figure(content, "batch-size").arms) == 3
    assert len(figure(content, "seconds").table.rows) == 4
    assert "that tell most" in render_markdown(content)


def test_a_page_looks_at_all_runs_a_few_times_and_not_for_each_of_them(content, monkeypatch):
    looked = []
    real = RunTable.is_of_networks
    monkeypatch.setattr(
        RunTable, "is_of_networks", property(lambda self: looked.append(1) or real.fget(self))
    )
    render(content)
    assert len(looked) <= 2


def test_runs_of_many_machines_are_told_of_in_a_few_lines():
    rows = [row_of("batch", 0.9, seed=seed) for seed in range(40)]
    for seed, row in enumerate(rows):
        row.result.environment.update(host=f"node{min(seed, 35):02d}", started=f"2026-11-{seed}")
    found = origins(rows)
    assert len(found) == MOST_ORIGINS
    assert [origin.runs for origin in found[:2]] == [5, 1]
    assert (found[-1].machine, found[-1].runs) == ("13 others", 13)
    assert sum(origin.runs for origin in found) == 40
    assert found[0].when == "2026-11-35 to 2026-11-39"


def test_code_versions_are_never_averaged(tmp_path: Path):
    config = TrainConfig(norm="batch", dataset="mnist-5k", epochs=2)
    make_run(tmp_path / "a", config)
    make_run(tmp_path / "b", config, environment={"commit": "fedcba9876543210"})
    rows = load_runs([tmp_path / "a", tmp_path / "b"]).rows
    found, _ = slices(rows)
    assert len(found) == 2
    assert all("code" in piece.label for piece in found)


def test_markdown_has_the_verdicts_and_links_the_pictures(content: Content):
    text = render_markdown(content, [Path("figures/batch-size.png")])
    assert "![batch-size](<figures/batch-size.png>)" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(content.comparison.cells)
    assert "By: " not in text
    assert "torch 2.13.0" in text


@pytest.mark.slow
def test_pictures_are_whole_and_the_same_each_time(content: Content, tmp_path: Path):
    few = [one for one in content.figures if one.key == "parallel"]
    paths = save_figures(few, tmp_path / "a")
    again = save_figures(few, tmp_path / "b")
    assert {path.suffix for path in paths} == {".png", ".svg"}
    assert len(paths) == 2 * sum(max(1, len(one.views)) for one in few)
    for path, other in zip(paths, again, strict=True):
        assert path.read_bytes() == other.read_bytes()
    svg = next(path for path in paths if path.suffix == ".svg" and "parallel" in path.name)
    assert "test accuracy (%)" in svg.read_text()


def test_the_command_writes_page_and_pictures(study: Path, tmp_path: Path, capsys):
    out = tmp_path / "new" / "page.html"
    assert (
        run(["report", str(study), "--out", str(out), "--where", "batch_size==32", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document == {"report": str(out), "figures": []}
    assert out.read_text().startswith("<!doctype html>")
    one_cell = ["report", str(study), "--where", "batch_size==32 and norm in (batch, none)"]
    assert run([*one_cell, "--format", "md", "--figures", str(tmp_path / "f")]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("## Which normalisation")
    assert re.search(r"\d+ pictures in", shown.err)
    linked = re.findall(r"\]\(<([^>]+)>\)", shown.out)
    assert linked
    assert all(Path(name).is_file() for name in linked)


@pytest.mark.slow
def test_open_hands_the_page_to_the_browser(study: Path, tmp_path: Path):
    seen = tmp_path / "seen"
    browser = tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "groupnorm_bench.cli",
        "report",
        str(study),
        "--where",
        "batch_size==32",
    ]
    done = subprocess.run(
        [*command, "--out", "page.html", "--open"],
        cwd=tmp_path,
        env=os.environ | {"BROWSER": f"{browser} %s"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "page.html"), done.stderr
    assert seen.read_text().strip() == (tmp_path / "page.html").as_uri()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere is not a folder of runs"),
        (["{study}", "--format", "pdf"], "format='pdf' is unknown"),
        (["{study}", "--format", "md", "--open"], "--open opens the page"),
        (["{study}", "--out", "{study}"], "cannot be written"),
        (["{study}", "--out", "{file}/page.html"], "cannot be written"),
        (["{study}", "--figures", "{file}"], "cannot be written"),
        (["{study}", "--where", "colour==1"], "unknown name 'colour'"),
        (["{study}", "--metric", "test/acuracy"], "did you mean 'test/accuracy'"),
        (["{study}", "--baseline", "bach"], "did you mean 'batch'"),
        (["{study}", "--choose", "seed"], "cannot be chosen"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(study: Path, tmp_path: Path, capsys, args, message):
    file = tmp_path / "file"
    file.write_text("")
    filled = [arg.format(study=study, file=file) for arg in args]
    assert run(["report", *filled]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown.splitlines()[-1]


def test_a_table_without_a_finished_run_is_refused(tmp_path: Path, capsys):
    config = TrainConfig(norm="none", dataset="mnist-5k", epochs=4)
    make_run(tmp_path, config, status="diverged")
    assert run(["report", str(tmp_path), "--out", str(tmp_path / "p.html")]) == 2
    assert "no run of 1 is finished" in capsys.readouterr().err
    assert not (tmp_path / "p.html").exists()


def test_the_modules_that_draw_load_without_torch_and_wandb():
    code = (
        "import sys, groupnorm_bench.cli, groupnorm_bench.report.page, "
        "groupnorm_bench.report.draw_paper, groupnorm_bench.report.markdown; "
        "heavy = {'torch', 'wandb', 'pandas', 'plotly', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_choosing_on_validation_reaches_the_figures(tmp_path: Path):
    from groupnorm_bench.compare.choice import choose

    make_runs(
        tmp_path, arms=[{"norm": "batch"}, {"norm": "none"}], lrs=(1e-3, 1e-2), seeds=3, epochs=2
    )
    table: RunTable = choose(load_runs([tmp_path]), ["lr"])
    content = build(
        table, compare_runs(table), sources=["runs"], data_dir=tmp_path, command="gnbench report"
    )
    assert len(figure(content, "batch-size").views) == 1
    assert "chosen on validation" in Page(render(content)).words

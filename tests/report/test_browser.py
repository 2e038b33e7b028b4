"""The page in a real Chromium, opened from disk: drawn, brushed, sorted, dark, narrow, printed."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from groupnorm_bench.compare.load import load_runs
from groupnorm_bench.compare.verdicts import compare_runs
from groupnorm_bench.report.content import build
from groupnorm_bench.report.page import render
from groupnorm_bench.settings.config import TrainConfig
from tests.support.run_folders import arms, make_run, make_runs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

EVIL = "<img src=x onerror=alert(1)>"
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RUNS = 7 * 2 * 6 + 1


def write_page(runs: Path, page: Path) -> Path:
    table = load_runs([runs])
    content = build(
        table, compare_runs(table), sources=["runs", EVIL], data_dir=runs, command="gnbench report"
    )
    page.write_text(render(content), encoding="utf-8")
    return page


def chromium_path() -> str:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    return path or pytest.skip("no Chromium on this machine; apt-get install chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    make_runs(runs, arms=arms(groups=(1, 8, 32)), batch_sizes=(2, 32), seeds=6)
    make_run(runs, TrainConfig(dataset="mnist-5k", epochs=3, seed=9), status="diverged")
    return write_page(runs, tmp_path_factory.mktemp("page") / "report.html")


class Tab:
    """An open page, and what it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dialog)
        self.page.set_default_timeout(120_000)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn=yes]")

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def rows_shown(self) -> list[str]:
        return self.page.eval_on_selector_all(
            "#run-table tbody tr:not([hidden])", "rows => rows.map(r => r.dataset.arm)"
        )

    def column(self, table: str, number: int) -> list[str]:
        return self.page.eval_on_selector_all(
            f"{table} tbody tr", f"rows => rows.map(r => r.cells[{number}].textContent.trim())"
        )


@pytest.fixture(scope="module")
def shared(chromium: Any, report: Path) -> Iterator[Tab]:
    """One light, wide tab for tests that leave it as it was."""
    tab = Tab(chromium, report, viewport={"width": 1200, "height": 900}, color_scheme="light")
    yield tab
    tab.context.close()


def test_nothing_fails_and_no_request_leaves(shared: Tab, report: Path):
    assert shared.errors == []
    assert shared.dialogs == []
    assert [url for url in shared.requests if not url.startswith("data:")] == [report.as_uri()]


def test_each_figure_has_drawn_marks(shared: Tab):
    keys = shared.page.eval_on_selector_all(
        "[data-figure]", "figures => figures.map(f => f.dataset.figure)"
    )
    assert len(keys) == 9
    for key in keys:
        marks = shared.page.locator(
            f'[data-figure="{key}"] .panel :is(.point, .points path, .js-line, .bars path)'
        ).count()
        if key == "parallel":
            assert painted(shared) > 500
        else:
            assert marks >= 2, key


def painted(tab: Tab) -> int:
    """Return how many pixels of the parallel coordinates' lines are not transparent."""
    picture = tab.page.locator('[data-figure="parallel"] .panel')
    picture.scroll_into_view_if_needed()
    from io import BytesIO

    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(picture.screenshot())).convert("RGB")).astype(int)
    return int((pixels.max(axis=2) - pixels.min(axis=2) > 40).sum())  # coloured, not grey


def test_a_hostile_name_is_shown_as_text(shared: Tab):
    assert EVIL in shared.page.inner_text("body")
    assert shared.page.locator("img[src=x]").count() == 0


def test_runs_without_groups_are_lines_and_brushing_keeps_what_passes(shared: Tab):
    page = shared.page
    everything = painted(shared)
    axis = page.locator('[data-figure="parallel"] .parcoords .y-axis').first
    axis.scroll_into_view_if_needed()
    bar = axis.locator(".axis-brush .background, .background").first.bounding_box()
    places = ["none", "batch", "group", "layer", "instance"]  # of the norm axis, from below

    def height(place: float) -> float:
        padded = (place + 0.16) / (len(places) - 1 + 0.32)
        return float(bar["y"] + bar["height"] * (1 - padded))

    x = bar["x"] + bar["width"] / 2
    page.mouse.move(x, height(0.6))
    page.mouse.down()
    page.mouse.move(x, height(1.0), steps=5)
    page.mouse.move(x, height(1.4), steps=5)
    page.mouse.up()
    page.wait_for_function("document.querySelector('.brushed').textContent !== ''")
    assert set(shared.rows_shown()) == {"batch"}
    assert len(shared.rows_shown()) == 12
    assert page.locator("#shown").text_content() == f"12 of {RUNS} runs shown."
    page.wait_for_timeout(500)
    assert painted(shared) < everything
    page.get_by_role("button", name="Show all runs").click()
    assert len(shared.rows_shown()) == RUNS


def test_the_boxes_filter_without_a_pointer(shared: Tab):
    page = shared.page
    box = page.locator(".filters label", has_text="num_groups").locator("select")
    box.focus()
    page.keyboard.type("none")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.brushed').textContent !== ''")
    assert set(shared.rows_shown()) == {"none", "batch", "layer", "instance"}
    smallest = page.locator(".filters label", has_text="test accuracy").locator("input")
    smallest.fill("97.5")
    smallest.press("Enter")
    page.wait_for_function("document.querySelectorAll('#run-table tr:not([hidden])').length < 49")
    accuracies = page.eval_on_selector_all(
        "#run-table tbody tr:not([hidden])", "rows => rows.map(r => Number(r.cells[5].textContent))"
    )
    assert accuracies
    assert min(accuracies) >= 97.5
    button = page.get_by_role("button", name="Show all runs")
    button.focus()
    page.keyboard.press("Enter")
    assert len(shared.rows_shown()) == RUNS
    assert box.input_value() == ""


def test_a_chip_hides_its_arm_everywhere(shared: Tab):
    page = shared.page
    chip = page.locator('[data-figure="batch-size"] .chip', has_text="batch")
    count = (
        'key => [...document.querySelectorAll(`[data-figure="${key}"] .panel`)]'
        ".flatMap(e => e.data).filter(t => t.visible && t.meta.arm === 'batch').length"
    )
    before = {key: page.evaluate(count, key) for key in ("batch-size", "curves", "seconds")}
    assert all(before.values())
    chip.focus()
    page.keyboard.press("Space")
    assert chip.get_attribute("aria-pressed") == "false"
    assert {page.evaluate(count, key) for key in before} == {0}
    assert "batch" not in shared.rows_shown()
    chip.click()
    assert {key: page.evaluate(count, key) for key in before} == before


def test_another_setting_can_be_chosen(shared: Tab):
    page = shared.page
    heights = "document.querySelector('[data-figure=groups] .panel').data.map(t => t.y[0])"
    before = page.evaluate(heights)
    page.locator('select[data-view-of="groups"]').select_option(label="batch_size=32")
    page.wait_for_timeout(200)
    assert page.evaluate(heights) != before
    page.locator('select[data-view-of="groups"]').select_option(index=0)


def test_the_run_table_sorts_by_pointer_and_by_key(shared: Tab):
    page = shared.page
    button = page.locator("#run-table thead th button", has_text="test acc.")
    button.click()
    values = shared.column("#run-table", 5)
    assert values[-1] == "–"  # the diverged run has none, and stays last both ways
    assert [float(v) for v in values[:-1]] == sorted(float(v) for v in values[:-1])
    button.focus()
    page.keyboard.press("Enter")
    values = shared.column("#run-table", 5)
    assert values[-1] == "–"
    assert [float(v) for v in values[:-1]] == sorted((float(v) for v in values[:-1]), reverse=True)
    assert page.locator("#run-table th[aria-sort=descending]").count() == 1


def test_every_control_can_be_reached_by_key(shared: Tab):
    page = shared.page
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if "report" in reached:
            break
    assert {"theme", "chip", "scroll tall", "skip"} <= reached


def test_light_and_dark_pages_differ_and_the_button_overrules_the_system(
    chromium: Any, report: Path, tmp_path: Path
):
    tab = Tab(chromium, report, viewport={"width": 1200, "height": 900}, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    words = "getComputedStyle(document.querySelector('.xaxislayer-above text')).fill"
    assert tab.page.evaluate(ground) == "rgb(20, 23, 28)"
    assert tab.page.evaluate(words) == "rgb(232, 234, 237)"
    tab.page.screenshot(path=tmp_path / "dark.png", full_page=True)
    assert (tmp_path / "dark.png").stat().st_size > 100_000
    tab.page.click("#theme")
    assert tab.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert tab.page.evaluate(words) == "rgb(26, 29, 33)"
    assert tab.page.locator("#theme").text_content() == "Dark page"
    assert tab.errors == []
    tab.context.close()


def test_a_phone_scrolls_down_but_never_sideways(chromium: Any, report: Path, tmp_path: Path):
    tab = Tab(chromium, report, viewport={"width": 360, "height": 740}, color_scheme="light")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    outside = tab.page.evaluate(
        """() => [...document.querySelectorAll('.panels:not(.parallel) .panel')]
             .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"""
    )
    assert outside == 0
    tab.page.screenshot(path=tmp_path / "narrow.png", full_page=True)
    assert (tmp_path / "narrow.png").stat().st_size > 100_000
    tab.context.close()


def test_paper_is_white_and_holds_every_figure(chromium: Any, report: Path, tmp_path: Path):
    tab = Tab(chromium, report, viewport={"width": 1200, "height": 900}, color_scheme="dark")
    tab.page.emulate_media(media="print")
    assert (
        tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    tab.page.emulate_media(media="screen")
    tab.page.pdf(path=tmp_path / "report.pdf", format="A4")
    content = (tmp_path / "report.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 6 <= pages <= 16
    width = tab.page.evaluate(
        "document.querySelector('[data-figure=batch-size] .main-svg').getBoundingClientRect().width"
    )
    assert width > 800  # and on the screen all is as before
    tab.context.close()


def test_a_browser_without_webgl_draws_the_same_lines_and_filters_by_the_boxes(
    chromium: Any, report: Path
):
    plain = chromium.browser_type.launch(
        executable_path=chromium_path(), args=[*FLAGS, "--disable-3d-apis"]
    )
    tab = Tab(plain, report, viewport={"width": 1200, "height": 900}, color_scheme="light")
    assert tab.errors == []
    assert "no WebGL" in tab.page.locator(".filters").inner_text()
    assert painted(tab) > 500
    points = "document.querySelector('.parallel .panel').data.flatMap(t => t.x).length"
    everything = tab.page.evaluate(points)
    assert everything == (RUNS - 1) * 6  # five axes and a break for each finished run
    tab.page.locator(".filters label", has_text="norm").first.locator("select").select_option(
        label="batch"
    )
    assert tab.page.evaluate(points) == 12 * 6
    assert set(tab.rows_shown()) == {"batch"}
    plain.close()


def test_two_thousand_runs_scroll_smoothly(chromium: Any, tmp_path: Path):
    runs = tmp_path / "runs"
    make_runs(
        runs,
        arms=arms(),
        batch_sizes=(2, 4, 8, 16, 32),
        seeds=8,
        lrs=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        epochs=20,
    )
    page = write_page(runs, tmp_path / "page.html")
    tab = Tab(chromium, page, viewport={"width": 1200, "height": 900}, color_scheme="light")
    tab.page.mouse.move(600, 450)
    frames = tab.page.evaluate(
        """async () => {
             const gaps = [];
             let last = performance.now();
             const height = document.documentElement.scrollHeight;
             document.documentElement.style.scrollBehavior = 'auto';
             for (let i = 0; i < 120; i++) {
               scrollTo(0, height * i / 120);
               const now = await new Promise(requestAnimationFrame);
               gaps.push(now - last);
               last = now;
             }
             return gaps;
           }"""
    )
    assert tab.errors == []
    assert len(tab.rows_shown()) == 2_000
    assert median(frames[1:]) < 34  # 30 frames a second, drawn by the processor
    tab.context.close()


@pytest.mark.parametrize("width", [1280, 1000, 390])
def test_every_drawing_is_as_wide_as_its_box_as_opened(chromium: Any, report: Path, width: int):
    """No resize in between: that would mend what the first drawing got wrong."""
    tab = Tab(chromium, report, viewport={"width": width, "height": 900})
    widths = tab.page.eval_on_selector_all(
        ".panel",
        """panels => panels.map(panel => [panel.closest("figure").id, panel.clientWidth,
             panel.querySelector(".main-svg").getBoundingClientRect().width])""",
    )
    assert len(widths) > 9
    assert [one for one in widths if abs(one[1] - one[2]) > 1] == []
    tab.context.close()


def test_a_drawing_follows_a_box_that_changes_its_width(chromium: Any, report: Path):
    tab = Tab(chromium, report, viewport={"width": 1280, "height": 900})
    tab.page.evaluate("document.body.style.maxWidth = '600px'")  # the window stays as it is
    tab.page.wait_for_function(
        """[...document.querySelectorAll('.panel')].every(panel => Math.abs(panel.clientWidth
             - panel.querySelector('.main-svg').getBoundingClientRect().width) <= 1)"""
    )
    tab.context.close()


def test_the_toolbar_has_these_buttons_and_covers_no_mark(shared: Tab):
    """Plotly 7 brought one that uploads the chart: what a new version adds is not wanted here."""
    bars = shared.page.eval_on_selector_all(
        ".panel",
        """panels => panels.map(panel => {
             const bar = panel.querySelector(".modebar"), plot = panel.querySelector(".nsewdrag");
             const {bottom} = bar.getBoundingClientRect();
             return {key: panel.closest("figure").id, background: getComputedStyle(bar).background,
               buttons: [...bar.querySelectorAll(".modebar-btn")].map(
                 button => button.dataset.title || button.ariaLabel || button.title),
               below: plot ? plot.getBoundingClientRect().top - bottom : 0}})""",
    )
    titles = {tuple(bar["buttons"]) for bar in bars if bar["key"] != "parallel"}
    assert titles == {("Download plot as a PNG", "Zoom", "Pan", "Reset axes")}
    assert [bar["buttons"] for bar in bars if bar["key"] == "parallel"] == [
        ["Download plot as a PNG"]
    ]
    assert all(bar["below"] >= 0 for bar in bars)
    assert {bar["background"].split(" none")[0] for bar in bars} == {"rgba(0, 0, 0, 0)"}


def test_the_order_answers_first(shared: Tab):
    keys = shared.page.eval_on_selector_all(".figure", "figures => figures.map(f => f.id)")
    assert keys[:2] == ["batch-size", "differences"]
    links = shared.page.eval_on_selector_all(
        ".contents a", "links => links.map(a => [a.textContent, a.getAttribute('href')])"
    )
    heads = shared.page.eval_on_selector_all(
        "main section", "sections => sections.map(s => [s.querySelector('h2').textContent, s.id])"
    )
    assert [href for _, href in links] == [f"#{key}" for _, key in heads]
    terms = shared.page.eval_on_selector_all("#words dt", "terms => terms.map(t => t.textContent)")
    assert len(terms) == 5


def test_the_run_table_is_searched_and_downloaded(chromium: Any, report: Path):
    tab = Tab(chromium, report, viewport={"width": 1200, "height": 900})
    tab.page.fill("#search", "GROUP-G8 b2-")
    assert set(tab.rows_shown()) == {"group-g8"}
    assert len(tab.rows_shown()) == 6
    assert tab.page.locator("#shown").text_content() == f"6 of {RUNS} runs shown."
    with tab.page.expect_download() as waiting:
        tab.page.click("#download")
    path = waiting.value.path()
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert waiting.value.suggested_filename == "runs.csv"
    assert len(lines) == 1 + 6
    assert all(line.count('","') == lines[0].count('","') for line in lines)
    tab.page.fill("#search", "")
    assert len(tab.rows_shown()) == RUNS
    assert tab.errors == []
    tab.context.close()


def test_a_phone_shows_the_verdict_without_scrolling(chromium: Any, report: Path):
    tab = Tab(chromium, report, viewport={"width": 390, "height": 800})
    edges = tab.page.eval_on_selector_all(
        "#verdict-table span.verdict", "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert len(edges) > 6
    assert max(edges) <= 390
    assert tab.page.locator(".cue").is_visible()
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(chromium: Any, report: Path, scheme: str):
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    tab = Tab(chromium, report, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    tab.page.evaluate(script.read_text(encoding="utf-8"))
    # An arm's mark beside its name is a picture (3:1), which axe takes for a letter (4.5:1).
    found = tab.page.evaluate(
        "axe.run({exclude: [['[aria-hidden=true]']]}, {resultTypes: ['violations']})"
    )
    faults = {
        one["id"]: [node["target"] for node in one["nodes"]][:5]
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    }
    assert faults == {}
    tab.context.close()

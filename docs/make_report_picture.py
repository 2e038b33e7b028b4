"""Make `docs/report.png`, the README's picture of a report, from real runs.

    python docs/make_report_picture.py RUNS [OUT]

Needs a Chromium and the package playwright (in the extra `dev`). Left: the page's top, the verdict
and the differences; right: the parallel coordinates and accuracy against batch size.
"""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from groupnorm_bench.cli.app import run

FLAGS = ["--no-sandbox", "--no-first-run", "--disable-background-networking"]
WIDTH, SCALE, GAP = 860, 1, 24
LEFT = ("header", "#verdict > .lead", "#verdict > .headlines", "#differences")
RIGHT = ("#parallel", "#batch-size")


def main(runs: str, out: str = "docs/report.png") -> None:
    """Write the picture of the report on the runs in a folder."""
    target = Path(out).resolve()
    os.chdir(Path(runs).resolve().parent)  # the page names its source: not where it lies here
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        if run(["report", Path(runs).name, "--out", str(page)]) != 0:
            raise SystemExit(1)
        columns = [_column(parts) for parts in _photograph(page)]
    height = max(column.height for column in columns)
    picture = Image.new("RGB", (sum(c.width for c in columns) + 3 * GAP, height + 2 * GAP), "white")
    x = GAP
    for column in columns:
        picture.paste(column, (x, GAP))
        x += column.width + GAP
    picture.quantize(128).save(target, optimize=True)
    print(f"{out}: {picture.width} x {picture.height}, {target.stat().st_size:,} bytes")


def _photograph(path: Path) -> list[list[Image.Image]]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1200},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        page.set_default_timeout(300_000)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=yes]")
        page.wait_for_timeout(2_000)
        parts = [[_part(page, name) for name in column] for column in (LEFT, RIGHT)]
        browser.close()
    return parts


def _part(page: Page, selector: str) -> Image.Image:
    return Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB")


def _column(parts: list[Image.Image]) -> Image.Image:
    height = sum(part.height + GAP for part in parts)
    column = Image.new("RGB", (max(part.width for part in parts), height), "white")
    y = 0
    for part in parts:
        column.paste(part, (0, y))
        y += part.height + GAP
    return column


if __name__ == "__main__":
    main(*sys.argv[1:])

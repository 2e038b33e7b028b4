"""The page's look against pictures that a person has seen: wide, narrow, phone, dark, on paper.

Compared small and grey, so that another Chromium's letters are no difference and a figure that is
missing, empty, or elsewhere is. To take one anew, delete it, run this test, and look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.test_browser import Tab, chromium, report

__all__ = ["chromium", "report"]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SHOTS = Path(__file__).parent / "screenshots"
SMALLER = 6
"""Times, in either direction: letters blur, figures do not."""
BLOCK = 8
"""Pixels of the small picture that are compared as one."""
MOST = 4.0
"""The largest mean difference, of 255 greys; another font and its wrapped lines make 1 to 3."""


def small(png: bytes) -> Image.Image:
    picture = Image.open(BytesIO(png)).convert("L")
    size = (picture.width // SMALLER, picture.height // SMALLER)
    return picture.resize(size, Image.Resampling.BOX)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures' blocks, the second as high as the first."""
    size = (one.width // BLOCK, one.height // BLOCK)
    first, second = (
        np.asarray(picture.resize(size, Image.Resampling.BOX), dtype=float)
        for picture in (one, other)
    )
    return float(np.abs(first - second).mean())


@pytest.fixture(scope="module", params=[1280, 1000, 390])
def tab(chromium: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab as it opens at a width."""
    tab = Tab(chromium, report, viewport={"width": request.param, "height": 900})
    yield tab
    tab.context.close()


def shot_of(tab: Tab) -> Image.Image:
    tab.page.wait_for_timeout(300)
    return small(tab.page.screenshot(full_page=True))


def compare(name: str, shot: Image.Image) -> None:
    path = SHOTS / f"{name}.png"
    if not path.exists():
        SHOTS.mkdir(exist_ok=True)
        shot.quantize(16).save(path, optimize=True)
        pytest.fail(f"{path} is new: look at it, and keep it if it is right")
    seen = Image.open(path).convert("L")
    assert shot.width == seen.width
    assert shot.height == pytest.approx(seen.height, rel=0.04)
    assert difference(seen, shot) < MOST


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_looks_as_it_was_seen(tab: Tab, scheme: Any):
    tab.page.emulate_media(color_scheme=scheme)
    compare(f"{tab.page.viewport_size['width']}-{scheme}", shot_of(tab))


def test_paper_looks_as_it_was_seen(tab: Tab):
    if tab.page.viewport_size["width"] != 1000:
        pytest.skip("paper has one width")
    tab.page.set_viewport_size({"width": 700, "height": 900})
    tab.page.emulate_media(media="print", color_scheme="dark")
    tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    compare("print", shot_of(tab))


@pytest.mark.parametrize("harm", ["a figure is gone", "dark is light", "it is longer"])
def test_what_the_comparison_finds(harm: str):
    seen = Image.open(SHOTS / "1280-light.png").convert("L")
    page = np.asarray(seen).copy()
    if harm == "a figure is gone":
        page = np.concatenate([page[:150], page[210:], np.full((60, seen.width), 255, np.uint8)])
    elif harm == "dark is light":
        page = np.asarray(Image.open(SHOTS / "1280-dark.png").convert("L").resize(seen.size))
    else:
        page = np.concatenate([page[:100], np.full((50, seen.width), 255, np.uint8), page[100:]])
    assert difference(seen, Image.fromarray(page)) > MOST


@pytest.mark.parametrize("shift", [1, 2])
def test_what_another_font_does_is_no_difference(shift: int):
    seen = Image.open(SHOTS / "1280-light.png").convert("L")
    moved = np.roll(np.asarray(seen), shift, axis=0)
    assert difference(seen, Image.fromarray(moved)) < MOST

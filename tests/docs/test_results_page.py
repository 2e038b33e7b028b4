"""docs/results.md is what its script makes of the packed runs, and so is README's answer."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from groupnorm_bench.cli.app import run
from tests.support import ROOT

_SPEC = importlib.util.spec_from_file_location("make_results", ROOT / "docs/make_results.py")
assert _SPEC is not None
assert _SPEC.loader is not None
make_results = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_results)

STUDIES = sorted(path.stem for path in make_results.PACKS.glob("*.gnb"))


@pytest.mark.parametrize("page", make_results.PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_packed_runs_say(page):
    text = page.read_text(encoding="utf-8")
    assert make_results.BLOCK.search(text)
    assert make_results.made(text) == text


def test_every_pack_has_its_place_on_the_page():
    text = make_results.PAGES[0].read_text(encoding="utf-8")
    told = {block["name"] for block in make_results.BLOCK.finditer(text)} - {"answer"}
    assert told == set(STUDIES) != set()


@pytest.mark.parametrize("name", STUDIES)
def test_anyone_gets_the_table_from_the_pack(name, capsys):
    assert run(["compare", str(make_results.PACKS / f"{name}.gnb"), "--explain"]) == 0
    printed = capsys.readouterr().out
    page = make_results.PAGES[0].read_text(encoding="utf-8")
    for contrast in make_results.Study(name).comparison.contrasts:
        assert contrast.sentence in page
        assert contrast.sentence in printed


@pytest.mark.parametrize("name", STUDIES)
def test_a_figure_is_made_again_from_the_pack(name, tmp_path):
    kept = (make_results.PACKS / f"{name}.svg").read_text(encoding="utf-8")
    drawn = make_results.save_study_figure(make_results.Study(name), tmp_path)
    again = drawn.read_text(encoding="utf-8")
    made_by = re.compile("Matplotlib v[0-9.]+")
    if made_by.findall(again) == made_by.findall(kept):
        assert _plain(again) == _plain(kept)
    assert [path.name for path in Path(tmp_path).iterdir()] == [f"{name}.svg"]


def _plain(svg: str) -> str:
    """Return a drawing without the names that matplotlib draws by chance."""
    names = dict.fromkeys(re.findall(r'(?:id="|#)([a-z][0-9a-f]{10})\b', svg))
    for number, name in enumerate(names):
        svg = svg.replace(name, f"name-{number}")
    return svg

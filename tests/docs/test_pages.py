"""What README and docs name exists: files are there, Python runs; commands: `test_commands.py`."""

from __future__ import annotations

import re

import pytest
import yaml

from groupnorm_bench.compare.question import Question
from tests.docs.shown import PAGES, read
from tests.support import ROOT

NEW = {"groupnorm_bench/sweep/executors/here.py"}
"""What docs/extending.md has a person make."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_picture_is_shown_on_a_page():
    docs = (ROOT / "docs").resolve()
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    pictures = {path for ending in ("svg", "png") for path in docs.rglob(f"*.{ending}")}
    assert pictures - shown == set()


PYTHON = {
    "README.md": (1, "below"),
    "extending.md": (6, "test_extending_page.py"),
    "norms.md": (2, "test_norms_page.py"),
    "scheduler.md": (1, "test_commands.py"),
    "your-own.md": (9, "test_commands.py"),
}
"""Blocks of Python on a page, and where they are run."""


def test_every_block_of_python_is_run():
    counted = {page.name: [lang for lang, _ in read(page).blocks].count("python") for page in PAGES}
    assert {name: count for name, count in counted.items() if count} == {
        name: count for name, (count, _) in PYTHON.items()
    }


def test_the_questions_that_a_page_shows_are_questions():
    shown = [text for lang, text in read(ROOT / "docs" / "statistics.md").blocks if lang == "yaml"]
    assert len(shown) == 2
    for text in shown:
        assert Question.from_mapping(yaml.safe_load(text)) != Question()


def test_the_python_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert 0.5 < float(capsys.readouterr().out) <= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_repository_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:tests|docs|benchmarks|groupnorm_bench|sweeps)/[\w/.-]*\w", text):
        assert (ROOT / path).exists() or path in NEW, f"{page.name} names {path}"

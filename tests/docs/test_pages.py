"""What README and docs show exists: commands parse, files are there, Python runs."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.main import get_command

from groupnorm_bench.cli import app
from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEW = {"groupnorm_bench/sweep/executors/here.py"}
"""What docs/extending.md has a person make."""
PLACEHOLDERS = {"ENTITY/PROJECT/SWEEP", "NAME", "URL"}


def commands() -> list[tuple[str, str]]:
    """Return (page, command line) for every `gnbench ...` in code on a page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^(?:    |\$ )(.*gnbench .*)$", text, re.M)
        blocks += re.findall(r"^(?:\$ )?(gnbench .*)$", text, re.M)
        blocks += [span for span in re.findall(r"`([^`\n]+)`", text) if span.startswith("gnbench ")]
        for line in blocks:
            for part in re.split(r"&&|\||;|>", line):
                part = re.sub(r"\s#.*", "", part).strip().removeprefix("$ ")
                if part.startswith("gnbench ") and "..." not in part:
                    found.append((page.name, part))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_shown_is_one_that_exists(page, line):
    words = shlex.split(line)[1:]
    group = get_command(app)
    with group.make_context("gnbench", list(words), resilient_parsing=True) as context:
        rest = [*getattr(context, "_protected_args", []), *context.args]
        while rest and hasattr(group, "get_command"):
            command = group.get_command(context, rest[0])
            assert command is not None, f"{page} shows `{line}`, but there is no {rest[0]!r}"
            group, rest = command, rest[1:]
            if "--help" in rest:
                return
            if hasattr(group, "get_command"):
                continue
            group.make_context(command.name, list(rest), parent=context)


CHEAP = {
    "gnbench norms": "group",
    "gnbench data": "mnist-5k",
    "gnbench init norm": "norm.yaml",
    "gnbench sweep --norm none,batch,group --num-groups 4,8 --batch-size 32,128 --seeds 8"
    " --save mine.yaml --dry-run": "8 cells x 8 seeds = 64 runs",
}
"""Commands of the README that ask nothing of anybody, and what they print; the others are run by
the tests of their own pages: `quick` by tests/test_wheel.py."""


@pytest.mark.parametrize("line", CHEAP)
def test_commands_of_the_readme_do_what_they_say(line, tmp_path, monkeypatch, capsys):
    from groupnorm_bench.cli.app import run

    shown = {command for page, command in commands() if page == "README.md"}
    assert line in shown
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNBENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("groupnorm_bench.datasets.fetch.recently_failed", lambda *_: "not now")
    assert run(shlex.split(line)[1:]) == 0
    assert CHEAP[line] in capsys.readouterr().out


def test_the_pages_show_commands_at_all():
    assert len(commands()) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


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

"""docs/your-own.md, training functions of one's own: the examples work as they stand there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from groupnorm_bench.cli.app import run
from tests.support import ROOT

PAGE = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
SECTIONS = {
    name: re.search(rf"^## {head}.*?(?=^## |\Z)", PAGE, re.M | re.S).group()
    for name, head in {"study": "Your training", "fit": "A trainer of a library inside"}.items()
}
HAS_LIGHTNING = importlib.util.find_spec("lightning") is not None
"""`pip install 'groupnorm-bench[lightning]'`: for this test alone."""


def code(section, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)


@pytest.mark.parametrize("name", SECTIONS)
def test_each_example_is_short_and_has_a_name(name):
    section = SECTIONS[name]
    assert len(code(section)) == len(set(re.findall(r"`(\w+\.py)`", section)))
    assert all(len(each.splitlines()) < 25 for each in code(section))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_ends_in_a_verdict(name, tmp_path, monkeypatch, capsys):
    if name == "fit" and not HAS_LIGHTNING:
        pytest.skip("lightning is not installed")
    monkeypatch.chdir(tmp_path)
    section = SECTIONS[name]
    for file, text in zip(re.findall(r"`(\w+\.py)`", section), code(section), strict=True):
        (tmp_path / file).write_text(text)
    (sweep,) = code(section, "yaml")
    (tmp_path / f"{name}.yaml").write_text(sweep)
    swept, compared = re.findall(r"^    gnbench (.*)$", section, re.M)
    command = [sys.executable, "-P", "-m", "groupnorm_bench", *shlex.split(swept)]
    subprocess.run([*command, "--wandb", "disabled"], check=True, timeout=600)
    assert run(shlex.split(compared)) == 0
    told = capsys.readouterr().out
    assert re.search(r"^\s*group-g4 +6 .*(worse|better|equal|undecided)", told, re.M), told

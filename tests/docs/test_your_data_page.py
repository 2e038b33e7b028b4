"""docs/your-own.md, data of one's own: the example works as it stands there."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from groupnorm_bench.cli.app import run
from groupnorm_bench.datasets.naming import FORMS
from tests.support import ROOT

PAGE = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
(DATA,) = re.findall(r"^## Your data.*?(?=^## |\Z)", PAGE, re.M | re.S)


def test_the_table_names_every_form():
    assert re.findall(r"^\| `([^`]+:[^`]+)` \|", DATA, re.M) == list(FORMS)


@pytest.mark.slow
def test_the_example_ends_in_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (code,) = re.findall(r"^```python\n(.*?)^```$", DATA, re.M | re.S)
    assert len(code.splitlines()) < 25
    (tmp_path / "my_data.py").write_text(code)
    told, *trained, compared = re.findall(r"^    gnbench (.*)$", DATA, re.M)
    assert run(shlex.split(told)) == 0
    assert "840 / 120 / 240 images" in capsys.readouterr().out
    for command in trained:
        assert run([*shlex.split(command), "--wandb", "disabled", "--quiet"]) == 0
    assert run(shlex.split(compared)) == 0
    assert "group-g8 against batch" in capsys.readouterr().out
    sys.modules.pop("my_data", None)
